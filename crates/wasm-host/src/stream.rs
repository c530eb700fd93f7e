//! One request: performs the policy's steps. Whatever happens, a request is either waiting for one call-out, or
//! passed, or answered; what falls between is closed.

use std::rc::Rc;

use gatehouse_edge::{
    Answer, Edit, Host, Pending, RequestRecord, RequestView, Step, protected_names,
};
use proxy_wasm::{
    traits::{Context, HttpContext},
    types::{Action, MapType},
};

use crate::{abi::HeaderMap, host, root::Engine};

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

    /// Does what `step` says until the request passes, is answered, or waits.
    fn perform(&mut self, engine: &Engine, mut step: Step) -> Action {
        loop {
            match step {
                Step::Continue { edits, record } => {
                    if !host::apply(MapType::HttpRequestHeaders, &edits) {
                        return self.close();
                    }
                    self.phase = Phase::Passed(record);
                    return Action::Continue;
                }
                Step::Reply(reply) => {
                    if engine.suite.host() == Host::Envoy {
                        host::note_reason(reply.reason.code());
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
        host::reply_closed();
        self.phase = Phase::Answered(None);
        Action::Pause
    }
}

/// `None` only if the VM's state is in use, which one thread cannot bring about.
fn answered(engine: &Engine, pending: Pending, answer: Answer<'_>) -> Option<Step> {
    let mut vm = engine.vm.try_borrow_mut().ok()?;
    let verifier = engine.verifier.as_ref();
    Some(engine.suite.on_answer(&mut vm, pending, answer, host::now(), verifier))
}

fn judged(engine: &Engine) -> Option<Step> {
    let headers = HeaderMap::read(MapType::HttpRequestHeaders)?;
    let headers = headers.pairs()?;
    let mut vm = engine.vm.try_borrow_mut().ok()?;
    let verifier = engine.verifier.as_ref();
    let view = RequestView::new(&headers);
    Some(engine.suite.on_request(&mut vm, &view, host::now(), verifier))
}

impl Context for Stream {
    fn on_http_call_response(
        &mut self,
        token_id: u32,
        num_headers: usize,
        body_size: usize,
        _num_trailers: usize,
    ) {
        let Phase::Waiting { token, .. } = &self.phase else { return };
        if *token != token_id {
            return;
        }
        let Some(engine) = self.engine.clone() else { return };
        let Phase::Waiting { pending, .. } =
            std::mem::replace(&mut self.phase, Phase::Answered(None))
        else {
            return;
        };
        // No headers: nobody answered, and asking for them is an error in some hosts.
        let headers = match num_headers {
            0 => None,
            _ => HeaderMap::read(MapType::HttpCallResponseHeaders),
        };
        let body = host::answer_body(body_size);
        let answer = match (headers.as_ref().and_then(HeaderMap::pairs), &body) {
            (Some(headers), Some(body)) => Answer::read(&headers, body),
            _ => Answer::Unavailable,
        };
        let action = match answered(&engine, *pending, answer) {
            Some(step) => self.perform(&engine, step),
            None => self.close(),
        };
        if action == Action::Continue {
            host::resume();
        }
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        let Some(engine) = self.engine.clone() else { return self.close() };
        match judged(&engine) {
            Some(step) => self.perform(&engine, step),
            None => self.close(),
        }
    }

    /// Where the host lets bodies run ahead of paused headers (Envoy's `allow_on_headers_stop_iteration`), going on
    /// here would let the request pass unjudged.
    fn on_http_request_body(&mut self, _body_size: usize, _end_of_stream: bool) -> Action {
        match self.phase {
            Phase::Passed(_) => Action::Continue,
            Phase::New | Phase::Waiting { .. } | Phase::Answered(_) => Action::Pause,
        }
    }

    /// Protected names in trailers are dropped (acceptance T5).
    fn on_http_request_trailers(&mut self, _num_trailers: usize) -> Action {
        let trailers = HeaderMap::read(MapType::HttpRequestTrailers);
        let trailers = trailers.as_ref().and_then(HeaderMap::pairs).unwrap_or_default();
        let edits: Vec<_> = protected_names(&trailers)
            .into_iter()
            .map(|name| Edit::Remove(name.to_owned().into()))
            .collect();
        host::apply(MapType::HttpRequestTrailers, &edits);
        match self.phase {
            Phase::Passed(_) => Action::Continue,
            Phase::New | Phase::Waiting { .. } | Phase::Answered(_) => Action::Pause,
        }
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        if let Phase::Waiting { pending, .. } = &self.phase {
            // The host answered by itself; whatever the call-out brings now comes too late.
            self.phase = Phase::Answered(Some(pending.record().clone()));
        }
        let (Phase::Passed(record) | Phase::Answered(Some(record))) = &self.phase else {
            return Action::Continue;
        };
        if let Some(engine) = &self.engine {
            let edits = engine.suite.on_response(record, host::response_status());
            host::apply(MapType::HttpResponseHeaders, &edits);
        }
        Action::Continue
    }
}
