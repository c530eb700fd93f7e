//! One request: performs the policy's steps. Whatever happens, a request is either waiting for one call-out, or
//! passed, or answered; what falls between is closed.

use std::rc::Rc;

use gatehouse_contract::Reason;
use gatehouse_edge::{
    Answer, Edit, Host, Pending, Reply, RequestRecord, RequestView, Step, Wrapped, Wrapping,
    protected_names,
};
use proxy_wasm::types::Action;

use crate::{
    abi::{self, Buffer, HeaderMap, Level, Map},
    host::{self, Received},
    root::Engine,
};

pub(crate) struct Stream {
    /// `None` before the first configuration: everything is closed.
    engine: Option<Rc<Engine>>,
    phase: Phase,
    /// What came of the request's body.
    body_bytes: u64,
    /// The response is to be wrapped, and so much of its body is here.
    wrapping: Option<(Wrapping, usize)>,
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
        Self { engine, phase: Phase::New, body_bytes: 0, wrapping: None }
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
    pub(crate) fn on_request_body(&mut self, size: usize) -> Action {
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        let (record, action) = match &self.phase {
            Phase::Passed(record) => {
                self.body_bytes = self.body_bytes.saturating_add(size);
                (record, Action::Continue)
            }
            // A held body is told whole every time.
            Phase::Waiting { pending, .. } => {
                self.body_bytes = self.body_bytes.max(size);
                (pending.record(), Action::Pause)
            }
            Phase::New | Phase::Answered(_) => return Action::Pause,
        };
        match self.engine.clone() {
            Some(engine) if engine.suite.is_body_too_large(record, self.body_bytes) => {
                let reply = engine.suite.refuse_body(record.clone());
                self.answer(&engine, reply)
            }
            Some(_) | None => action,
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
        match self.phase {
            Phase::Passed(_) => Action::Continue,
            Phase::New | Phase::Waiting { .. } | Phase::Answered(_) => Action::Pause,
        }
    }

    pub(crate) fn on_response_headers(&mut self, ended: bool) -> Action {
        if let Phase::Waiting { pending, .. } = &self.phase {
            // The host answered by itself; whatever the call-out brings now comes too late.
            self.phase = Phase::Answered(Some(pending.record().clone()));
        }
        let passed = matches!(self.phase, Phase::Passed(_));
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
            // What we answer ourselves has its own form.
            if passed
                && !ended
                && let Some(wrapping) = engine.suite.wrapping(record, &headers)
            {
                let holds = wrapping.holds_headers();
                if !holds {
                    host::apply(Map::Response, wrapping.edits());
                }
                self.wrapping = Some((wrapping, 0));
                return if holds { Action::Pause } else { Action::Continue };
            }
        }
        Action::Continue
    }

    /// A body that is not to be wrapped is not looked at. One that is, is held until it is whole, unless it grows too
    /// large: then it goes on as it came. A held body is told whole every time.
    pub(crate) fn on_response_body(&mut self, size: usize, ended: bool) -> Action {
        let Some((wrapping, held)) = &mut self.wrapping else { return Action::Continue };
        if wrapping.is_too_large(size) {
            self.wrapping = None;
            return Action::Continue;
        }
        *held = size;
        if ended { self.wrap() } else { Action::Pause }
    }

    /// Trailers end a body, too.
    pub(crate) fn on_response_trailers(&mut self) -> Action {
        self.wrap()
    }

    fn wrap(&mut self) -> Action {
        let Some((wrapping, size)) = self.wrapping.take() else { return Action::Continue };
        let (Some(engine), Phase::Passed(record)) = (self.engine.clone(), &self.phase) else {
            return Action::Continue;
        };
        let body = abi::buffer(Buffer::ResponseBody, size).unwrap_or_default();
        match wrapping.wrap(record, &body) {
            Some(Wrapped { before, after }) => {
                if wrapping.holds_headers() {
                    host::apply(Map::Response, wrapping.edits());
                }
                // Behind first: what stands there does not move then.
                let done = abi::insert(Buffer::ResponseBody, size, after.as_bytes())
                    && abi::insert(Buffer::ResponseBody, 0, before.as_bytes());
                // Half an envelope is for nobody.
                if done { Action::Continue } else { self.close() }
            }
            None if wrapping.holds_headers() => {
                let reply = engine.suite.refuse_broken(record.clone());
                self.answer(&engine, reply)
            }
            None => Action::Continue,
        }
    }

    /// Does what `step` says until the request passes, is answered, or waits.
    fn perform(&mut self, engine: &Engine, mut step: Step) -> Action {
        loop {
            match step {
                Step::Continue { edits, mut record } => {
                    log(&mut record);
                    note(engine, &record, None);
                    if !host::apply(Map::Request, &edits) || !hand_over(engine, &record) {
                        return self.close();
                    }
                    self.phase = Phase::Passed(record);
                    return Action::Continue;
                }
                Step::Reply(reply) => return self.answer(engine, reply),
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

    fn answer(&mut self, engine: &Engine, mut reply: Reply) -> Action {
        log(&mut reply.record);
        note(engine, &reply.record, reply.reason);
        if let (Host::Envoy, Some(reason)) = (engine.suite.host(), reply.reason) {
            host::note_reason(reason.code());
        }
        host::reply(&reply);
        self.phase = Phase::Answered(Some(reply.record));
        Action::Pause
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

/// What the access log is to say, where the document asks for it.
fn note(engine: &Engine, record: &RequestRecord, reason: Option<Reason>) {
    if let Some(line) = engine.suite.access_line(record, reason) {
        host::note_access(engine.suite.host(), &line);
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
    let view = RequestView::of(&headers)
        .with_client(&host::client)
        .with_peer(&host::peer)
        .with_caller(&host::caller);
    Some(engine.suite.on_request(&mut vm, &view, host::now(), verifier))
}
