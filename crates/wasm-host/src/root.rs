//! The root context: compiles the configuration, whole or not at all, and makes the streams' contexts.
//! Cannot trap: whatever the host does, a trap here would take every stream of the worker along.

use std::{cell::RefCell, rc::Rc};

use gatehouse_authn::{Portable, Verifier, probe};
use gatehouse_edge::{Host, Parts, Signatures, Suite, VmState};
use proxy_wasm::{
    traits::{Context, HttpContext, RootContext},
    types::{ContextType, LogLevel},
};

use crate::{envoy::EnvoyVerifier, host, stream::Stream};

/// The policy, who checks signatures for it, and what this VM remembers under it. A stream keeps the one that it
/// began with: a request sees one configuration (acceptance T12).
pub(crate) struct Engine {
    pub(crate) suite: Suite,
    pub(crate) verifier: Box<dyn Verifier>,
    pub(crate) vm: RefCell<VmState>,
}

struct Root {
    engine: Option<Rc<Engine>>,
}

pub(crate) fn create(_context_id: u32) -> Box<dyn RootContext> {
    Box::new(Root { engine: None })
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let document = host::configuration().unwrap_or_default();
        let Ok(document) = String::from_utf8(document) else {
            host::log(
                LogLevel::Error,
                "gatehouse: configuration $: not UTF-8; write one JSON object",
            );
            return false;
        };
        match Suite::compile(&document, Parts::Suite) {
            Ok((suite, warnings)) => {
                for warning in warnings {
                    host::log(LogLevel::Warn, &format!("gatehouse: configuration {warning}"));
                }
                let verifier = verifier(suite.signatures());
                let vm = RefCell::new(VmState::new(host::seed()));
                self.engine = Some(Rc::new(Engine { suite, verifier, vm }));
                true
            }
            Err(mistakes) => {
                for mistake in mistakes {
                    host::log(LogLevel::Error, &format!("gatehouse: configuration {mistake}"));
                }
                // Envoy keeps the configuration before. A plain nginx worker would exit and not come back, so that
                // there the module stays and answers 503 to everything.
                self.engine = None;
                Suite::named_host(&document) == Some(Host::Kong)
            }
        }
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream::new(self.engine.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// The host's library if it passes the probe; what is not known to work is not trusted with identities.
fn verifier(signatures: Signatures) -> Box<dyn Verifier> {
    match signatures {
        Signatures::Portable => Box::new(Portable),
        Signatures::Native => match probe::check(&EnvoyVerifier) {
            Ok(()) => Box::new(EnvoyVerifier),
            Err(failed) => {
                let message = format!(
                    "gatehouse: {failed}; signatures are checked in the module instead, at ten times the cost"
                );
                host::log(LogLevel::Warn, &message);
                Box::new(Portable)
            }
        },
    }
}
