//! The shell of the module that judges bodies: callbacks, and the one stream they are for. Nothing of the request path is
//! in it, so that the compiler leaves that out of the module, and this out of the others. Knows no schemas.
//!
//! A host that lets bodies come while headers wait (`hold_headers`) keeps a request to itself until its body is judged.
//! Elsewhere the headers go on at once and the body waits: the upstream sees a request that is reset before its body.

use std::rc::Rc;

use gatehouse_edge::path;
use gatehouse_validate::{Answer, Awaited, Begin, Validator, answer};
use proxy_wasm::{
    traits::{Context, HttpContext, RootContext},
    types::{Action, ContextType},
};

use crate::{
    abi::{self, Buffer, HeaderMap, Level, LocalResponse, Map},
    host,
};

/// A root context that judges bodies. Made by [`crate::validate_module!`].
pub fn validate_root() -> Box<dyn RootContext> {
    Box::new(Root::default())
}

/// Makes the crate the module that judges bodies.
#[macro_export]
macro_rules! validate_module {
    () => {
        $crate::proxy_wasm::main! {{
            $crate::proxy_wasm::set_root_context(|_context| $crate::validate_root());
        }}
    };
}

#[derive(Default)]
struct Root {
    /// `None` before the first configuration: everything is closed.
    validator: Option<Rc<Validator>>,
}

impl Context for Root {}

impl RootContext for Root {
    /// Whole or not at all: a host keeps the configuration before.
    fn on_configure(&mut self, _size: usize) -> bool {
        let document = host::configuration().and_then(|bytes| String::from_utf8(bytes).ok());
        match Validator::compile(&document.unwrap_or_default()) {
            Ok(validator) => {
                self.validator = Some(Rc::new(validator));
                true
            }
            Err(mistakes) => {
                for mistake in mistakes {
                    abi::log(Level::Error, &format!("gatehouse: configuration {mistake}"));
                }
                false
            }
        }
    }

    fn create_http_context(&self, _context: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { validator: self.validator.clone(), phase: Phase::Closed }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// A request. It keeps the rules that it began with.
struct Stream {
    validator: Option<Rc<Validator>>,
    phase: Phase,
}

enum Phase {
    /// Nothing goes on: nothing is known yet, or it is answered.
    Closed,
    /// The whole body is awaited.
    Awaiting(Awaited),
    /// Everything goes on as it comes.
    Passed,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, ended: bool) -> Action {
        let Some(validator) = self.validator.clone() else { return host::close() };
        let Some(headers) = HeaderMap::read(Map::Request) else { return host::close() };
        let Some(headers) = headers.pairs() else { return host::close() };
        let normal = |target| path::normalise(target).ok().map(|target| target.path);
        match validator.begin(&headers, normal) {
            Begin::Pass => self.pass(),
            Begin::Refuse(refusal) => self.refuse(&answer(&refusal, &headers)),
            Begin::Await(awaited) if ended => self.judge(&validator, &awaited),
            Begin::Await(awaited) => {
                self.phase = Phase::Awaiting(awaited);
                if validator.holds_headers() { Action::Pause } else { Action::Continue }
            }
        }
    }

    fn on_http_request_body(&mut self, size: usize, ended: bool) -> Action {
        self.on_more(|validator, awaited| ended || size > validator.max_body_bytes(awaited))
    }

    /// Trailers end the body where they come.
    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        self.on_more(|_, _| true)
    }
}

impl Stream {
    fn pass(&mut self) -> Action {
        self.phase = Phase::Passed;
        Action::Continue
    }

    /// More has come. The host keeps what is paused at, all of it together; it is judged once `enough` is there: the
    /// whole, or more than is taken.
    fn on_more(&mut self, enough: impl FnOnce(&Validator, &Awaited) -> bool) -> Action {
        let awaited = match &self.phase {
            Phase::Passed => return Action::Continue,
            Phase::Closed => return Action::Pause,
            Phase::Awaiting(awaited) => awaited.clone(),
        };
        match self.validator.clone() {
            Some(validator) if enough(&validator, &awaited) => self.judge(&validator, &awaited),
            _ => Action::Pause,
        }
    }

    /// Judges what the host keeps; one byte more than the rule takes is enough to refuse it.
    fn judge(&mut self, validator: &Validator, awaited: &Awaited) -> Action {
        let most = validator.max_body_bytes(awaited).saturating_add(1);
        let body = abi::buffer(Buffer::RequestBody, most).unwrap_or_default();
        match validator.end(awaited, &body) {
            Ok(()) => self.pass(),
            Err(refusal) => self.refuse(&awaited.answer(&refusal)),
        }
    }

    fn refuse(&mut self, answer: &Answer) -> Action {
        self.phase = Phase::Closed;
        host::note_reason(answer.reason.code());
        let _sent = abi::local_response(&LocalResponse {
            status: u32::from(answer.reason.status()),
            headers: &answer.headers,
            body: &answer.body,
            details: answer.reason.code(),
            grpc_status: answer.grpc_code.map_or(host::NO_GRPC_STATUS, i32::from),
        });
        Action::Pause
    }
}
