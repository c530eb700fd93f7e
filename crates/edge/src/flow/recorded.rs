//! API keys and browser sessions: credentials that only the record can tell. Nothing of them is concluded here but
//! their form. Knows neither tokens nor routes.

use std::{fmt, rc::Rc, time::Duration};

use gatehouse_authn::api_key::ApiKey;
use gatehouse_contract::{
    AuthMethod, Reason,
    sidecar::{PrincipalAsk, PrincipalFacts},
};

use super::{Request, WaitsFor, caller::Caller, token::worthless};
use crate::{
    config::Suite,
    feed::Standing,
    prepared::{NoHeader, Prepared},
    reply::Refusal,
    state::{Asked, Kind, Principal, VmState},
    step::{Answer, Step},
    view::RequestView,
};

/// What is asked of the record for a credential's sake.
pub(super) struct Question {
    kind: Kind,
    text: Box<str>,
    client: Option<String>,
    /// Whether this is the second time, as the first answer was overtaken by a change.
    again: bool,
}

/// 256 bits in base64url.
const SESSION_CHARS: usize = 43;

impl Suite {
    pub(super) fn look_up(
        &self,
        vm: &mut VmState,
        request: Request,
        (kind, text): (Kind, &[u8]),
        view: &RequestView<'_>,
        now: Duration,
    ) -> Step {
        // What is mistyped asks nobody, and what is not text is mistyped.
        let Some(text) = std::str::from_utf8(text).ok().filter(|text| is_well_formed(kind, text))
        else {
            return self.refuse(request, worthless());
        };
        if self.standing(vm, now) == Standing::Live
            && let Some(principal) = vm.credential(kind, text, now)
        {
            return self.with_recorded(vm, request, kind, principal, now);
        }
        let client = view.client(self.limiter.trusted_hops).map(|client| client.to_string());
        let question = Question { kind, text: text.into(), client, again: false };
        self.ask_recorded(vm, request, question)
    }

    fn ask_recorded(&self, vm: &VmState, request: Request, question: Question) -> Step {
        let Some(sidecar) = &self.sidecar else { return self.no_identity(request) };
        let call = sidecar.principal(&question.ask());
        request.wait(call, WaitsFor::Recorded { question, asked: vm.asked() })
    }

    pub(super) fn with_recorded_answer(
        &self,
        vm: &mut VmState,
        request: Request,
        (question, asked): (Question, Asked),
        answer: Answer<'_>,
        now: Duration,
    ) -> Step {
        let Question { kind, ref text, again, .. } = question;
        match answer {
            Answer::Sidecar { status: 200, body } => {
                let Ok(facts) = serde_json::from_slice::<PrincipalFacts>(body) else {
                    return self.no_identity(request);
                };
                let ends_at = facts.expires_at_s.map(Duration::from_secs);
                if ends_at.is_some_and(|ends_at| ends_at <= now) {
                    return self.refuse(request, worthless());
                }
                let ttl = self.principal_ttl;
                match vm.store_credential(kind, text, facts, ttl, now, asked) {
                    Some(principal) => self.with_recorded(vm, request, kind, principal, now),
                    // A change touched these facts while they were on their way.
                    None if again => self.no_identity(request),
                    None => self.ask_recorded(vm, request, Question { again: true, ..question }),
                }
            }
            Answer::Sidecar { status: 401 | 404, .. } => {
                vm.forget_credential(kind, text);
                self.refuse(request, worthless())
            }
            // However it was remembered: a key that cannot be asked about opens nothing (design §3.1).
            Answer::Sidecar { .. } | Answer::Unavailable => self.no_identity(request),
        }
    }

    fn with_recorded(
        &self,
        vm: &mut VmState,
        request: Request,
        kind: Kind,
        principal: Rc<Principal>,
        now: Duration,
    ) -> Step {
        let prepared = match principal.prepared.get() {
            Some(prepared) => Ok(Rc::clone(prepared)),
            None => self.prepare_recorded(kind, &principal.facts),
        };
        match prepared {
            Ok(prepared) => {
                let prepared = Rc::clone(principal.prepared.get_or_init(|| prepared));
                self.with_caller(vm, request, Caller { principal, prepared }, now)
            }
            Err(NoHeader) => self.refuse(request, Refusal::new(Reason::PermissionDenied)),
        }
    }

    /// What the record grants is not narrowed further: no issuer stands between.
    fn prepare_recorded(
        &self,
        kind: Kind,
        facts: &PrincipalFacts,
    ) -> Result<Rc<Prepared>, NoHeader> {
        let method = match kind {
            Kind::ApiKey => AuthMethod::ApiKey,
            Kind::Session => AuthMethod::Session,
        };
        self.prepare(facts, facts.roles, facts.platform, method).map(Rc::new)
    }
}

fn is_well_formed(kind: Kind, text: &str) -> bool {
    match kind {
        Kind::ApiKey => ApiKey::parse(text).is_ok(),
        Kind::Session => {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            text.len() == SESSION_CHARS && text.bytes().all(fits)
        }
    }
}

impl Question {
    fn ask(&self) -> PrincipalAsk {
        let (text, client) = (self.text.to_string(), self.client.clone());
        match self.kind {
            Kind::ApiKey => PrincipalAsk::ApiKey { key: text, client },
            Kind::Session => PrincipalAsk::Session { session: text, client },
        }
    }
}

/// A secret: only its kind is shown.
impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Question({:?}, …)", self.kind)
    }
}
