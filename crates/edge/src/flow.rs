//! The order of the steps (design §3): request id, protected headers, host, path, version, authentication, principal,
//! tenant, role matrix, rate limit, upstream. A request walks through [`Suite::on_request`] and, per call-out,
//! [`Suite::on_answer`]; nothing is read from the host in between.
//! Knows neither hosts' functions nor signatures' mathematics.

mod afterwards;
mod alone;
mod ask;
mod caller;
mod failures;
mod inbound;
mod limit;
mod outbound;
mod recorded;
mod shape;
mod token;
mod versions;

use std::time::Duration;

use gatehouse_authn::{Refusal as TokenRefusal, Verifier};
use gatehouse_contract::{Reason, TenantId, rbac::Access};

pub(crate) use self::inbound::TENANT_PARAMETER;
use self::{limit::LimitQuestion, recorded::Question, token::Verified, versions::Undecided};
use crate::{
    client::Network,
    config::Suite,
    credential::{self, Kind, Presented},
    decision::{Decision, Ruling},
    matrix::Place,
    reply::{self, Challenge, Refusal},
    state::{Asked, VmState},
    step::{Answer, Edit, RequestRecord, Step},
    transform::Found,
    version::Content,
    view::{Dialect, RequestView, Scan, scan},
};

/// A request that waits for a call-out. Opaque to shells.
#[derive(Debug)]
pub struct Pending {
    request: Request,
    waits_for: WaitsFor,
}

#[derive(Debug)]
enum WaitsFor {
    Keys { issuer: usize, token: Box<[u8]>, key_id_asked: bool },
    Principal { verified: Verified, asked: Asked },
    Recorded { question: Question, asked: Asked },
    Limit(Box<LimitQuestion>),
}

/// What is known of a request, owned: the header map is read once.
#[derive(Debug)]
struct Request {
    record: RequestRecord,
    dialect: Dialect,
    place: Place,
    /// Whether the route is open to anyone, so that only what is shown must be good (acceptance J29).
    public: bool,
    /// The tenant that path, query and host name.
    named: NamedTenant,
    /// Whether the client says why it acts for another tenant.
    impersonation_reason: bool,
    /// Which entry of the configuration signs the caller's context.
    signs: Option<usize>,
    /// Changes that are due whoever calls.
    edits: Vec<Edit>,
    /// Names of identity headers that came in, as the client spelled them.
    identity: Vec<String>,
    /// The client's baggage without our member, if any came.
    baggage: Option<String>,
    /// Whose failure it is should the credential be worth nothing; set before a question about it.
    client: Option<Network>,
    /// What it has under the names that the document changes.
    found: Found,
    /// Whether the peer proved to be one that passes unlimited (specification GRL-005).
    internal: bool,
    /// The version that the body's media type names.
    content: Content,
    /// The version that answers, by its place; `None` where the path has no place for one.
    version: Option<usize>,
    undecided: Undecided,
}

/// The tenant that a request names beside its credential (acceptance T8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NamedTenant {
    Nobody,
    One(TenantId),
    /// Something that is no tenant, or two tenants.
    Nonsense,
}

impl Pending {
    /// What the response needs, should the host answer while we wait.
    pub fn record(&self) -> &RequestRecord {
        &self.request.record
    }
}

impl Suite {
    /// Judges a request by its headers. `now` is the time since the Unix epoch.
    pub fn on_request(
        &self,
        vm: &mut VmState,
        view: &RequestView<'_>,
        now: Duration,
        verifier: &dyn Verifier,
    ) -> Step {
        let step = self.judge(vm, view, now, verifier);
        self.note_failure(vm, step, || self.network(view), now)
    }

    fn judge(
        &self,
        vm: &mut VmState,
        view: &RequestView<'_>,
        now: Duration,
        verifier: &dyn Verifier,
    ) -> Step {
        let found = scan(view);
        let (mut request, method, target) = match self.admit(vm, view, &found) {
            Ok(admitted) => admitted,
            Err(refused) => return *refused,
        };
        let presented = match self.parts.authenticates() {
            true => credential::find(&self.sources, &found, target.query),
            false => Presented::Nothing,
        };
        if presented == Presented::Several {
            let refusal = Refusal::new(Reason::CredentialMalformed);
            return self.refuse(request, refusal.challenge(Challenge::InvalidRequest));
        }
        let versioned = match self.resolve(vm, &mut request, (view, &found), &target.path, now) {
            Ok(versioned) => versioned,
            Err(refusal) => return self.refuse(request, *refusal),
        };
        let path = versioned.as_ref().map_or(&*target.path, |versioned| &versioned.path);
        request.place = self.routes.place(method, path);
        let mut query = target.query;
        let mut stripped = None;
        if self.parts.authenticates()
            && let Err(bad) = self.hand_over(&mut request, &found, &presented)
        {
            let refusal = Refusal::new(Reason::HeaderInvalid).detail(bad.0);
            return self.refuse(request, refusal);
        }
        if let Presented::One(credential) = &presented {
            stripped = self.without_credential(credential, query);
        }
        if let Some(left) = &stripped {
            query = left.as_deref();
        }
        let reshaped = self.transforms().is_some_and(|transforms| !transforms.query.is_empty());
        if target.rewritten || stripped.is_some() || versioned.is_some() || reshaped {
            request.edits.push(self.forwarded_as(path, query));
        }
        if versioned.is_some() {
            self.note_original(&mut request, &target.path, query);
        }
        if found.is_preflight() {
            // A preflight has no credential by design (Fetch §4.8); what it asks about is judged when it comes.
            if request.place != Place::Nothing {
                return match request.record.cors {
                    Some(_) => self.answer_preflight(request, &found, path),
                    None => self.forward(request, None, now),
                };
            }
        }
        if !self.parts.authenticates() {
            return self.alone(vm, request, (view, versioned.as_ref()), now);
        }
        match &request.place {
            Place::Route(index) => {
                request.public =
                    self.routes.get(*index).is_some_and(|route| route.access == Access::Public);
                if request.public {
                    let decision = Decision { route: *index, ruling: Ruling::Public };
                    request.record.decision = Some(decision);
                    if !self.verify_on_public || presented == Presented::Nothing {
                        let open = versioned.as_ref();
                        if let Err(refusal) = self.settle_anyone(vm, &mut request, open, now) {
                            return self.refuse(request, *refusal);
                        }
                        return self.forward(request, None, now);
                    }
                }
            }
            Place::OtherMethod { allow, public: true } => {
                let refusal = other_method(allow);
                return self.refuse(request, refusal);
            }
            Place::OtherMethod { .. } | Place::Nothing => {}
        }
        let outside = self.named_outside(&found, query);
        request.named = self.named_in(outside, &request.place, path);
        request.signs = self.signs(path);
        if let Some(unversioned) =
            versioned.as_ref().and_then(|versioned| versioned.unversioned(method, query, outside))
        {
            request.undecided = Undecided::Pin(Box::new(unversioned));
        }
        request.internal = self.is_internal(view);
        if let Presented::One(credential) = &presented
            && let Some(retry_after_s) = self.failed_too_often(vm, view, credential, now)
        {
            return self.refuse_failing(vm, request, retry_after_s);
        }
        match presented {
            Presented::Nothing | Presented::Several => {
                let refusal = Refusal::new(Reason::CredentialMissing);
                self.refuse(request, refusal.challenge(Challenge::Bare))
            }
            Presented::Broken(refusal) => self.refuse_token(request, refusal),
            Presented::One(credential) => match credential.kind {
                Kind::Token => self.authenticate(vm, request, &credential.text, now, verifier),
                Kind::Recorded(kind) => {
                    self.look_up(vm, request, (kind, &credential.text), view, now)
                }
            },
        }
    }

    /// Goes on with a request after its call-out ended. `now` is the time since the Unix epoch.
    pub fn on_answer(
        &self,
        vm: &mut VmState,
        pending: Pending,
        answer: Answer<'_>,
        now: Duration,
        verifier: &dyn Verifier,
    ) -> Step {
        let client = pending.request.client;
        let step = self.go_on(vm, pending, answer, now, verifier);
        self.note_failure(vm, step, || client, now)
    }

    fn go_on(
        &self,
        vm: &mut VmState,
        pending: Pending,
        answer: Answer<'_>,
        now: Duration,
        verifier: &dyn Verifier,
    ) -> Step {
        let Pending { request, waits_for } = pending;
        match waits_for {
            WaitsFor::Keys { .. } | WaitsFor::Principal { .. } | WaitsFor::Recorded { .. }
                if !self.parts.authenticates() =>
            {
                self.no_identity(request)
            }
            WaitsFor::Keys { issuer, token, key_id_asked } => {
                let question = token::KeyQuestion { issuer, token, key_id_asked };
                self.with_keys_answer(vm, request, question, answer, now, verifier)
            }
            WaitsFor::Principal { verified, asked } => {
                self.with_principal_answer(vm, request, (verified, asked), answer, now)
            }
            WaitsFor::Recorded { question, asked } => {
                self.with_recorded_answer(vm, request, (question, asked), answer, now)
            }
            WaitsFor::Limit(question) => {
                self.with_limit_answer(vm, request, *question, answer, now)
            }
        }
    }

    fn answer_preflight(&self, request: Request, found: &Scan<'_>, path: &str) -> Step {
        let mut record = request.record;
        if let Some(grant) = &mut record.cors {
            grant.preflight(&self.routes.methods(path), found.asks_for_private_network);
            record.vary.add(grant.preflight_vary());
        }
        Step::Reply(reply::preflight(record))
    }

    fn refuse_token(&self, request: Request, refused: TokenRefusal) -> Step {
        let refusal = Refusal::new(refused.reason());
        let refusal = match refused {
            TokenRefusal::CredentialTwice => refusal.challenge(Challenge::InvalidRequest),
            _ if refused.reason() == Reason::TokenInvalid => {
                refusal.challenge(Challenge::InvalidToken)
            }
            _ => refusal,
        };
        self.refuse(request, refusal)
    }

    /// Nobody could say who this is: 503, never 401 (acceptance J13).
    fn no_identity(&self, request: Request) -> Step {
        self.refuse(request, Refusal::new(Reason::IdentityUnavailable))
    }

    fn refuse(&self, request: Request, refusal: Refusal) -> Step {
        let Request { record, dialect, .. } = request;
        Step::Reply(refusal.into_reply(self.host, dialect, record))
    }
}

fn other_method(allow: &str) -> Refusal {
    Refusal::new(Reason::MethodNotAllowed).header("allow", allow.to_owned())
}

#[cfg(test)]
mod tests;
