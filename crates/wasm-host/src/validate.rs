//! The shell of the module that judges bodies: callbacks, and the one stream they are for. Nothing of the request path is
//! in it, so that the compiler leaves that out of the module, and this out of the others. Knows no schemas.
//!
//! A host that lets bodies come while headers wait (`hold_headers`) keeps a request to itself until its body is judged.
//! Elsewhere the headers go on at once and the body waits: the upstream sees a request that is reset before its body.

use std::rc::Rc;

use gatehouse_edge::path;
use gatehouse_validate::{Answer, Begin, Validator};
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
    /// The whole body is awaited, for the rule of this place.
    Awaiting(usize),
    /// Everything goes on as it comes.
    Passed,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, ended: bool) -> Action {
        let Some(validator) = self.validator.clone() else { return host::close() };
        let begun = with_headers(|headers| {
            validator
                .begin(headers, |target| path::normalise(target).ok().map(|target| target.path))
        });
        match begun {
            None => host::close(),
            Some(Begin::Pass) => self.pass(),
            Some(Begin::Refuse(answer)) => self.refuse(&answer),
            Some(Begin::Await(place)) => {
                self.phase = Phase::Awaiting(place);
                if ended {
                    return self.judge(&validator, place);
                }
                if validator.holds_headers() { Action::Pause } else { Action::Continue }
            }
        }
    }

    fn on_http_request_body(&mut self, size: usize, ended: bool) -> Action {
        match (&self.phase, self.validator.clone()) {
            (Phase::Passed, _) => Action::Continue,
            (Phase::Awaiting(place), Some(validator)) => {
                let place = *place;
                // What has come so far: the host keeps it while it is paused. The judge says the rest.
                if ended || size > validator.max_body_bytes(place) {
                    return self.judge(&validator, place);
                }
                Action::Pause
            }
            (Phase::Closed | Phase::Awaiting(_), _) => Action::Pause,
        }
    }

    /// Trailers end the body where they come.
    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        match (&self.phase, self.validator.clone()) {
            (Phase::Passed, _) => Action::Continue,
            (Phase::Awaiting(place), Some(validator)) => {
                let place = *place;
                self.judge(&validator, place)
            }
            (Phase::Closed | Phase::Awaiting(_), _) => Action::Pause,
        }
    }
}

impl Stream {
    fn pass(&mut self) -> Action {
        self.phase = Phase::Passed;
        Action::Continue
    }

    /// Judges what the host keeps; one byte more than the rule takes is enough to refuse it.
    fn judge(&mut self, validator: &Validator, place: usize) -> Action {
        let most = validator.max_body_bytes(place).saturating_add(1);
        let body = abi::buffer(Buffer::RequestBody, most).unwrap_or_default();
        match with_headers(|headers| validator.end(place, &body, headers)) {
            Some(Ok(())) => self.pass(),
            Some(Err(answer)) => self.refuse(&answer),
            None => {
                self.phase = Phase::Closed;
                host::close()
            }
        }
    }

    fn refuse(&mut self, answer: &Answer) -> Action {
        self.phase = Phase::Closed;
        host::note_reason(answer.reason.code());
        let headers: Vec<(&str, &str)> =
            answer.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let _sent = abi::local_response(&LocalResponse {
            status: u32::from(answer.reason.status()),
            headers: &headers,
            body: &answer.body,
            details: answer.reason.code(),
            grpc_status: answer.grpc_code.map_or(host::NO_GRPC_STATUS, i32::from),
        });
        Action::Pause
    }
}

/// Reads the request's headers for `look`; `None` where the host has none.
fn with_headers<T>(look: impl FnOnce(&[(&[u8], &[u8])]) -> T) -> Option<T> {
    let headers = HeaderMap::read(Map::Request)?;
    let headers = headers.pairs()?;
    Some(look(&headers))
}
