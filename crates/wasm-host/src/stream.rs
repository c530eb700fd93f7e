//! One request: performs the policy's steps. Whatever happens, a request is either waiting for one call-out, or
//! passed, or answered; what falls between is closed.

use std::rc::Rc;

use gatehouse_edge::{
    Answer, Edit, Host, Pending, RequestRecord, RequestView, Step, protected_names,
};
use proxy_wasm::types::Action;

use crate::{
    abi::{self, HeaderMap, Level, Map},
    host::{self, Received},
    root::Engine,
};

pub(crate) struct Stream {
    /// `None` before the first configuration: everything is closed.
    engine: Option<Rc<Engine>>,
    phase: Phase,
}

enum Phase {
    /// Nothing is known yet.
    New,
    /// A call-out is on its way.
    Waiting { token: u32, pending: Box<Pending> },
    /// Passed on to the upstream.
    Passed(RequestRecord),
    /// Answered by us.
    Answered(Option<RequestRecord>),
}

impl Stream {
    pub(crate) fn new(engine: Option<Rc<Engine>>) -> Self {
        Self { engine, phase: Phase::New }
    }

    pub(crate) fn on_request_headers(&mut self) -> Action {
        let Some(engine) = self.engine.clone() else { return self.close() };
        match judged(&engine) {
            Some(step) => self.perform(&engine, step),
            None => self.close(),
        }
    }

    /// The answer to the call-out that this stream waits for.
    pub(crate) fn on_answer(&mut self, token: u32, headers: usize, body_size: usize) {
        if !matches!(&self.phase, Phase::Waiting { token: waiting, .. } if *waiting == token) {
            return;
        }
        let Some(engine) = self.engine.clone() else { return };
        let Phase::Waiting { pending, .. } =
            std::mem::replace(&mut self.phase, Phase::Answered(None))
        else {
            return;
        };
        let received = Received::read(headers, body_size);
        let action = match answered(&engine, *pending, received.answer()) {
            Some(step) => self.perform(&engine, step),
            None => self.close(),
        };
        if action == Action::Continue && !abi::continue_request() {
            self.close();
        }
    }

    /// Where the host lets bodies run ahead of paused headers (Envoy's `allow_on_headers_stop_iteration`), going on
    /// here would let the request pass unjudged.
    pub(crate) fn on_request_body(&mut self) -> Action {
        match self.phase {
            Phase::Passed(_) => Action::Continue,
            Phase::New | Phase::Waiting { .. } | Phase::Answered(_) => Action::Pause,
        }
    }

    /// Protected names in trailers are dropped (acceptance T5).
    pub(crate) fn on_request_trailers(&mut self) -> Action {
        let trailers = HeaderMap::read(Map::RequestTrailers);
        let trailers = trailers.as_ref().and_then(HeaderMap::pairs).unwrap_or_default();
        let edits: Vec<_> = protected_names(&trailers)
            .into_iter()
            .map(|name| Edit::Remove(name.to_owned().into()))
            .collect();
        host::apply(Map::RequestTrailers, &edits);
        self.on_request_body()
    }

    pub(crate) fn on_response_headers(&mut self) -> Action {
        if let Phase::Waiting { pending, .. } = &self.phase {
            // The host answered by itself; whatever the call-out brings now comes too late.
            self.phase = Phase::Answered(Some(pending.record().clone()));
        }
        let (Phase::Passed(record) | Phase::Answered(Some(record))) = &mut self.phase else {
            return Action::Continue;
        };
        if let Some(engine) = &self.engine {
            let headers = HeaderMap::read(Map::Response);
            let headers = headers.as_ref().and_then(HeaderMap::pairs).unwrap_or_default();
            if record.is_unsettled()
                && let Ok(mut vm) = engine.vm.try_borrow_mut()
            {
                engine.suite.settle(&mut vm, record, &headers, host::now());
            }
            let edits = engine.suite.on_response(record, &headers);
            host::apply(Map::Response, &edits);
        }
        Action::Continue
    }

    /// Does what `step` says until the request passes, is answered, or waits.
    fn perform(&mut self, engine: &Engine, mut step: Step) -> Action {
        loop {
            match step {
                Step::Continue { edits, mut record } => {
                    log(&mut record);
                    if !host::apply(Map::Request, &edits) || !hand_over(engine, &record) {
                        return self.close();
                    }
                    self.phase = Phase::Passed(record);
                    return Action::Continue;
                }
                Step::Reply(mut reply) => {
                    log(&mut reply.record);
                    if let (Host::Envoy, Some(reason)) = (engine.suite.host(), reply.reason) {
                        host::note_reason(reason.code());
                    }
                    host::reply(&reply);
                    self.phase = Phase::Answered(Some(reply.record));
                    return Action::Pause;
                }
                Step::Call { call, pending } => match host::call(&call) {
                    Some(token) => {
                        self.phase = Phase::Waiting { token, pending };
                        return Action::Pause;
                    }
                    None => match answered(engine, *pending, Answer::Unavailable) {
                        Some(next) => step = next,
                        None => return self.close(),
                    },
                },
            }
        }
    }

    fn close(&mut self) -> Action {
        self.phase = Phase::Answered(None);
        host::close()
    }
}

/// What the policy wants people to know.
fn log(record: &mut RequestRecord) {
    for note in std::mem::take(&mut record.notes) {
        abi::log(Level::Info, &format!("gatehouse: {note}"));
    }
}

/// Tells what later modules and the access log may know; `false` if a later module would not know the caller.
fn hand_over(engine: &Engine, record: &RequestRecord) -> bool {
    if engine.suite.host() != Host::Envoy {
        return true;
    }
    if let Some(reason) = record.shadowed {
        host::note_shadowed(reason.code());
    }
    record.handover.as_ref().is_none_or(|caller| host::hand_over(caller))
}

/// `None` only if the VM's state is in use, which one thread cannot bring about.
fn answered(engine: &Engine, pending: Pending, answer: Answer<'_>) -> Option<Step> {
    let mut vm = engine.vm.try_borrow_mut().ok()?;
    let verifier = engine.verifier.as_ref();
    Some(engine.suite.on_answer(&mut vm, pending, answer, host::now(), verifier))
}

fn judged(engine: &Engine) -> Option<Step> {
    let headers = HeaderMap::read(Map::Request)?;
    let headers = headers.pairs()?;
    let mut vm = engine.vm.try_borrow_mut().ok()?;
    let verifier = engine.verifier.as_ref();
    let view = RequestView::of(&headers).with_client(&host::client).with_peer(&host::peer);
    Some(engine.suite.on_request(&mut vm, &view, host::now(), verifier))
}
