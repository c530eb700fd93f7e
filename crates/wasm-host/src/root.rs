//! The root context: compiles the configuration, whole or not at all, makes the streams' engine, and listens to the
//! change feed. Cannot trap: whatever the host does, a trap here would take every stream of the worker along.

use std::{cell::RefCell, rc::Rc, time::Duration};

use gatehouse_authn::{Algorithm, Key, Portable, Unavailable, Verifier, probe};
use gatehouse_edge::{
    Host, Parts, Purpose, RootAnswer, RootCall, Shared, Signatures, Suite, Unshared, VmState,
};

use crate::{
    abi::{self, Level},
    envoy::EnvoyVerifier,
    host::{self, MAX_ROOT_ANSWER_BYTES, Received, SharedData},
};

/// The policy, who checks signatures for it, and what this VM remembers under it. A stream keeps the one that it
/// began with: a request sees one configuration (acceptance T12).
pub(crate) struct Engine {
    pub(crate) suite: Suite,
    pub(crate) verifier: Box<dyn Verifier>,
    pub(crate) vm: RefCell<VmState>,
    unshared: Unshared,
    /// The host's counters, by the policy's places; `None` where it takes none.
    counters: Vec<Option<u32>>,
}

pub(crate) struct Root {
    parts: Parts,
    engine: Option<Rc<Engine>>,
    /// Call-outs that have no answer yet.
    waiting: Vec<(u32, Purpose)>,
}

impl Root {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts, engine: None, waiting: Vec::new() }
    }

    /// What a new stream begins with.
    pub(crate) fn engine(&self) -> Option<Rc<Engine>> {
        self.engine.clone()
    }

    /// Takes the configuration; `false` refuses it. Nothing of the one before is kept: what was remembered under
    /// other rules is worth nothing under these.
    pub(crate) fn on_configure(&mut self) -> bool {
        self.waiting.clear();
        let document = host::configuration().unwrap_or_default();
        let Ok(document) = String::from_utf8(document) else {
            let text = "gatehouse: configuration $: not UTF-8; write one JSON object";
            abi::log(Level::Error, text);
            return false;
        };
        let compiled = Suite::compile(&document, self.parts).and_then(|(suite, warnings)| {
            let (suite, more) = suite.with_keys(&host::variable)?;
            Ok((suite, warnings.into_iter().chain(more)))
        });
        match compiled {
            Ok((suite, warnings)) => {
                for warning in warnings {
                    abi::log(Level::Warn, &format!("gatehouse: configuration {warning}"));
                }
                tick_every(suite.tick_period());
                let verifier = verifier(&suite);
                let clock = Box::new(host::monotonic);
                let vm = RefCell::new(VmState::new(host::seed()).with_clock(clock));
                let unshared = Unshared::default();
                let counters = counters(&suite);
                self.engine = Some(Rc::new(Engine { suite, verifier, vm, unshared, counters }));
                true
            }
            Err(mistakes) => {
                for mistake in mistakes {
                    abi::log(Level::Error, &format!("gatehouse: configuration {mistake}"));
                }
                // Envoy keeps the configuration before. A plain nginx worker would exit and not come back, so that
                // there the module stays and answers 503 to everything.
                self.engine = None;
                Suite::named_host(&document) == Some(Host::Kong)
            }
        }
    }

    /// Does what is due.
    pub(crate) fn on_tick(&mut self) {
        let Some(engine) = self.engine.clone() else { return };
        let Ok(mut vm) = engine.vm.try_borrow_mut() else { return };
        let now = host::now();
        for RootCall { call, purpose } in engine.suite.on_tick(&mut vm, engine.shared(), now) {
            match host::call(&call) {
                Some(token) => self.waiting.push((token, purpose)),
                None => engine.suite.on_root_answer(
                    &mut vm,
                    &RootAnswer::<&[u8], &[u8]> { purpose, headers: &[], body: &[] },
                    engine.shared(),
                    now,
                ),
            }
        }
        for (place, by) in engine.suite.take_counts(&mut vm) {
            if let Some(Some(counter)) = engine.counters.get(place) {
                abi::count(*counter, by);
            }
        }
    }

    /// The answer to a call-out of [`Self::on_tick`].
    pub(crate) fn on_answer(&mut self, token: u32, headers: usize, body_size: usize) {
        let Some(place) = self.waiting.iter().position(|(waiting, _)| *waiting == token) else {
            return;
        };
        let (_, purpose) = self.waiting.swap_remove(place);
        let Some(engine) = &self.engine else { return };
        let Ok(mut vm) = engine.vm.try_borrow_mut() else { return };
        let received = Received::within(headers, body_size, MAX_ROOT_ANSWER_BYTES);
        let (headers, body) = received.parts();
        let answer = RootAnswer { purpose, headers: &headers, body };
        engine.suite.on_root_answer(&mut vm, &answer, engine.shared(), host::now());
    }
}

impl Engine {
    /// Kong's shared data is a trap unless its operator declared a zone.
    fn shared(&self) -> &dyn Shared {
        match self.suite.host() {
            Host::Envoy => &SharedData,
            Host::Kong => &self.unshared,
        }
    }
}

/// The counters of the policy as the host knows them. On Kong they would need a zone that its operator declares.
fn counters(suite: &Suite) -> Vec<Option<u32>> {
    match suite.host() {
        Host::Envoy => suite.counter_names().map(|name| abi::counter(&name)).collect(),
        Host::Kong => Vec::new(),
    }
}

/// A host that refuses leaves the feed silent, which the policy notices.
fn tick_every(period: Option<Duration>) {
    let period_ms = period.map_or(0, |period| period.as_millis());
    let _set = abi::set_tick_period(u32::try_from(period_ms).unwrap_or(u32::MAX));
}

/// The host's library if it passes the probe; what is not known to work is not trusted with identities.
fn verifier(suite: &Suite) -> Box<dyn Verifier> {
    if !suite.parts().authenticates() {
        return Box::new(Nobody);
    }
    match suite.signatures() {
        Signatures::Portable => Box::new(Portable),
        Signatures::Native => match probe::check(&EnvoyVerifier) {
            Ok(()) => Box::new(EnvoyVerifier),
            Err(failed) => {
                let message = format!(
                    "gatehouse: {failed}; signatures are checked in the module instead, at ten times the cost"
                );
                abi::log(Level::Warn, &message);
                Box::new(Portable)
            }
        },
    }
}

/// Of a module that judges no credentials.
struct Nobody;

impl Verifier for Nobody {
    fn verify(
        &self,
        _algorithm: Algorithm,
        _key: &Key,
        _signed: &[u8],
        _signature: &[u8],
    ) -> Result<bool, Unavailable> {
        Err(Unavailable)
    }
}
