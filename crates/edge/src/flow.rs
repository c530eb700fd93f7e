//! The order of the steps (design §3): request id, protected headers, path, version, authentication, principal,
//! tenant, role matrix, rate limit, upstream. A request walks through [`Suite::on_request`] and, per call-out,
//! [`Suite::on_answer`]; nothing is read from the host in between.
//! Knows neither hosts' functions nor signatures' mathematics.

mod ask;
mod identity;
mod inbound;
mod limit;
mod outbound;

use std::{rc::Rc, time::Duration};

use gatehouse_authn::{Refusal as TokenRefusal, Verifier, bearer};
use gatehouse_contract::{Reason, rbac::Access, sidecar::PrincipalFacts};

use crate::{
    config::Suite,
    matrix::Place,
    reply::{Challenge, Refusal},
    state::{Asked, PrincipalKey, VmState},
    step::{Answer, Edit, RequestRecord, Step},
    version::Named,
    view::{Dialect, RequestView, Single, scan},
};

/// A request that waits for the sidecar. Opaque to shells.
#[derive(Debug)]
pub struct Pending {
    request: Request,
    waits_for: WaitsFor,
}

#[derive(Debug)]
enum WaitsFor {
    Keys { issuer: usize, token: String, key_id_asked: bool },
    Principal { caller: PrincipalKey, asked: Asked },
    Limit(PrincipalKey, PrincipalFacts),
}

/// What is known of a request, owned: the header map is read once.
#[derive(Debug)]
struct Request {
    record: RequestRecord,
    dialect: Dialect,
    method: String,
    place: Place,
    /// Changes that are due whoever calls.
    edits: Vec<Edit>,
    /// Names of identity headers that came in, as the client spelled them.
    identity: Vec<String>,
    /// The client's baggage without our member, if any came.
    baggage: Option<String>,
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
        let found = scan(view);
        let (mut request, target) = match self.admit(vm, &found) {
            Ok(admitted) => admitted,
            Err(refused) => return *refused,
        };
        match self.versions.of_path(&target.path) {
            Named::Served(version) => request.record.version = Some(Rc::clone(version)),
            Named::Unversioned => {}
            Named::Unknown => {
                let served = self.versions.served().iter().map(AsRef::<str>::as_ref);
                let supported = served.collect();
                let refusal = Refusal::new(Reason::VersionUnknown).with("supported", supported);
                return self.refuse(request, refusal);
            }
        }
        request.place = self.routes.place(&request.method, &target.path);
        match &request.place {
            Place::Route(index) => {
                if self.routes.get(*index).is_some_and(|route| route.access == Access::Public) {
                    return self.forward(request, None);
                }
            }
            Place::OtherMethod { allow, public: true } => {
                let refusal = other_method(allow);
                return self.refuse(request, refusal);
            }
            Place::OtherMethod { .. } | Place::Nothing => {}
        }
        let value = match found.authorization {
            Single::Absent => return self.no_credential(request),
            Single::One(value) => value,
            Single::Many => return self.two_credentials(request),
        };
        match bearer::token(value) {
            Ok(Some(token)) => self.authenticate(vm, request, token, now, verifier),
            // Another scheme is no credential of ours (acceptance J5).
            Ok(None) => self.no_credential(request),
            Err(refusal) => self.refuse_token(request, refusal),
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
        let Pending { request, waits_for } = pending;
        match waits_for {
            WaitsFor::Keys { issuer, token, key_id_asked } => {
                let question = identity::KeyQuestion { issuer, token, key_id_asked };
                self.with_keys_answer(vm, request, question, answer, now, verifier)
            }
            WaitsFor::Principal { caller, asked } => {
                self.with_principal_answer(vm, request, (caller, asked), answer, now)
            }
            WaitsFor::Limit(caller, facts) => {
                self.with_limit_answer(request, &caller, &facts, answer)
            }
        }
    }

    /// Whether the caller's roles open the place it asks for; what is unknown is closed.
    fn authorise(&self, request: Request, caller: PrincipalKey, facts: PrincipalFacts) -> Step {
        let route = match &request.place {
            Place::Route(index) => self.routes.get(*index),
            Place::OtherMethod { allow, .. } => {
                let refusal = other_method(allow);
                return self.refuse(request, refusal);
            }
            Place::Nothing => None,
        };
        let Some(route) = route else {
            return self.refuse(request, Refusal::new(Reason::NotFound));
        };
        let Some(issuer) = self.issuers.get(caller.issuer) else {
            return self.refuse(request, Refusal::new(Reason::IdentityUnavailable));
        };
        let facts = PrincipalFacts {
            roles: match issuer.max_role {
                Some(highest) => facts.roles.up_to(highest),
                None => gatehouse_contract::Roles::NONE,
            },
            platform: facts.platform && issuer.platform,
            ..facts
        };
        if !route.access.allows(facts.roles, facts.platform) {
            return self.refuse(request, Refusal::new(Reason::PermissionDenied));
        }
        self.ask_limit(request, route, caller, facts)
    }

    fn no_credential(&self, request: Request) -> Step {
        self.refuse(request, Refusal::new(Reason::CredentialMissing).challenge(Challenge::Bare))
    }

    fn two_credentials(&self, request: Request) -> Step {
        let refusal = Refusal::new(Reason::CredentialMalformed);
        self.refuse(request, refusal.challenge(Challenge::InvalidRequest))
    }

    fn refuse_token(&self, request: Request, refused: TokenRefusal) -> Step {
        let refusal = Refusal::new(refused.reason());
        let refusal = match refused.challenge() {
            Some(_) => refusal.challenge(Challenge::InvalidToken),
            None => refusal,
        };
        self.refuse(request, refusal)
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
