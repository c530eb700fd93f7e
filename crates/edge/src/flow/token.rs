//! From a token to its caller: keys, signature, claims, the issuer's reach, the record.
//! Knows neither routes nor limits.

use std::{rc::Rc, time::Duration};

use gatehouse_authn::{KeySet, Refusal as TokenRefusal, Verifier, claims, jws};
use gatehouse_contract::{
    AuthMethod, Reason, Roles,
    sidecar::{JwksAnswer, PrincipalAsk, PrincipalFacts},
};

use super::{Request, WaitsFor, caller::Caller};
use crate::{
    config::{Issuer, KeySource, Suite, Tenants},
    feed::Standing,
    prepared::{NoHeader, Prepared},
    reply::{Challenge, Refusal},
    state::{Asked, FreshKeys, Identity, KeyIdAnswer, Principal, VmState},
    step::{Answer, Step},
};

/// What was asked for a token's sake.
pub(super) struct KeyQuestion {
    pub(super) issuer: usize,
    pub(super) token: Box<[u8]>,
    pub(super) key_id_asked: bool,
}

/// A token that is good by its signature and claims.
#[derive(Debug)]
pub(super) struct Verified {
    identity: Rc<Identity>,
    /// Whether it was remembered: then it goes on for a while when nobody answers (design §3.1).
    remembered: bool,
    /// Whether its principal was asked for a second time, as the first answer was overtaken by a change.
    again: bool,
}

impl Verified {
    fn new(identity: Rc<Identity>, remembered: bool) -> Self {
        Self { identity, remembered, again: false }
    }
}

impl Suite {
    pub(super) fn authenticate(
        &self,
        vm: &mut VmState,
        request: Request,
        token: &[u8],
        now: Duration,
        verifier: &dyn Verifier,
    ) -> Step {
        if let Some(identity) = vm.token(token, now) {
            return self.with_token(vm, request, Verified::new(identity, true), now);
        }
        let parsed = match jws::parse_among(&mut vm.headers, token) {
            Ok(parsed) => parsed,
            Err(refused) => return self.refuse_token(request, refused),
        };
        let claimed = parsed.claimed_issuer();
        let known = self
            .issuers
            .iter()
            .enumerate()
            .find(|(_, issuer)| claimed == Some(&*issuer.rules.issuer));
        let Some((index, issuer)) = known else {
            return self.refuse_token(request, TokenRefusal::IssuerUnknown);
        };
        let keys = vm.keys(index, now).or_else(|| self.keys_at_hand(vm, index, now));
        let Some(keys) = keys else { return self.ask_keys(vm, request, index, token, None, now) };
        match judge(&parsed, issuer, &keys, now, verifier) {
            Ok(claims) => {
                let identity = vm.store_token(token, (index, &claims), now);
                self.with_token(vm, request, Verified::new(identity, false), now)
            }
            Err(TokenRefusal::KeyUnknown) => match &parsed.header().key_id {
                Some(key_id) if issuer.keys.may_change() => match vm.key_id_cool_down(index, now) {
                    Some(KeyIdAnswer::Answered) => {
                        self.refuse_token(request, TokenRefusal::KeyUnknown)
                    }
                    Some(KeyIdAnswer::Unavailable) => self.no_identity(request),
                    None => self.ask_keys(vm, request, index, token, Some(key_id), now),
                },
                Some(_) | None => self.refuse_token(request, TokenRefusal::KeyUnknown),
            },
            Err(TokenRefusal::ScopeInsufficient) => {
                let needed = issuer.rules.required_scopes.join(" ");
                let refusal = Refusal::new(Reason::ScopeInsufficient).challenge_scope(&needed);
                self.refuse(request, refusal)
            }
            Err(refused) => self.refuse_token(request, refused),
        }
    }

    /// Keys that stand in the document. They are remembered as others are, so that one rule says when a token
    /// that they verified is forgotten.
    fn keys_at_hand(&self, vm: &mut VmState, index: usize, now: Duration) -> Option<Rc<KeySet>> {
        let KeySource::Inline(set) = &self.issuers.get(index)?.keys else { return None };
        let set = set.as_ref().clone();
        let fresh = FreshKeys { set, generation: 0, max_age: Duration::MAX };
        Some(vm.store_keys(index, fresh, now))
    }

    fn ask_keys(
        &self,
        vm: &mut VmState,
        request: Request,
        index: usize,
        token: &[u8],
        key_id: Option<&str>,
        now: Duration,
    ) -> Step {
        let Some(issuer) = self.issuers.get(index) else { return self.no_identity(request) };
        match issuer.keys {
            KeySource::Sidecar => {
                let Some(sidecar) = &self.sidecar else { return self.no_identity(request) };
                let call = sidecar.keys(&issuer.rules.issuer, key_id);
                let key_id_asked = key_id.is_some();
                request
                    .wait(call, WaitsFor::Keys { issuer: index, token: token.into(), key_id_asked })
            }
            // The first set is on its way, or nobody has it.
            KeySource::Direct(_) if key_id.is_none() => self.no_identity(request),
            KeySource::Direct(_) => match self.remote_key_unknown(vm, index, now) {
                KeyIdAnswer::Answered => self.refuse_token(request, TokenRefusal::KeyUnknown),
                KeyIdAnswer::Unavailable => self.no_identity(request),
            },
            KeySource::Inline(_) => self.no_identity(request),
        }
    }

    pub(super) fn with_keys_answer(
        &self,
        vm: &mut VmState,
        request: Request,
        question: KeyQuestion,
        answer: Answer<'_>,
        now: Duration,
        verifier: &dyn Verifier,
    ) -> Step {
        let KeyQuestion { issuer, token, key_id_asked } = question;
        let fresh = read_keys(answer);
        if key_id_asked {
            let answered =
                if fresh.is_some() { KeyIdAnswer::Answered } else { KeyIdAnswer::Unavailable };
            vm.key_id_answered(issuer, answered, now);
        }
        let Some(fresh) = fresh else {
            return match self.goes_on(vm, &token, answer, now) {
                Some(identity) => self.with_token(vm, request, Verified::new(identity, true), now),
                None => self.no_identity(request),
            };
        };
        // A set that may not be kept at all would be asked for again and again within this request.
        let fresh = FreshKeys { max_age: fresh.max_age.max(Duration::from_millis(1)), ..fresh };
        vm.store_keys(issuer, fresh, now);
        self.authenticate(vm, request, &token, now, verifier)
    }

    /// A token that is remembered goes on while nobody answers for its keys: silence is not a withdrawal. A sidecar
    /// that answers and has no keys means it.
    fn goes_on(
        &self,
        vm: &mut VmState,
        token: &[u8],
        answer: Answer<'_>,
        now: Duration,
    ) -> Option<Rc<Identity>> {
        match (answer, self.standing(vm, now)) {
            (Answer::Unavailable, Standing::Live | Standing::AskFirst) => vm.last_token(token, now),
            (Answer::Unavailable, Standing::Lost) | (Answer::Sidecar { .. }, _) => None,
        }
    }

    /// The tenants that an issuer speaks for bound what its tokens claim (design §3.1).
    fn with_token(
        &self,
        vm: &mut VmState,
        request: Request,
        verified: Verified,
        now: Duration,
    ) -> Step {
        let Identity { caller, .. } = verified.identity.as_ref();
        let Some(issuer) = self.issuers.get(caller.issuer) else {
            return self.no_identity(request);
        };
        let in_reach = match &issuer.tenants {
            Tenants::Any | Tenants::FromRecord => true,
            Tenants::Listed(tenants) => tenants.contains(&caller.tenant),
        };
        if !in_reach {
            return self.refuse(request, Refusal::new(Reason::TenantInvalid));
        }
        if self.sidecar.is_none() {
            return self.without_record(vm, request, &verified.identity, now);
        }
        if self.standing(vm, now) == Standing::Live
            && let Some(principal) = vm.principal(caller, now)
        {
            return self.with_principal(vm, request, &verified.identity, principal, now);
        }
        self.ask_principal(vm, request, verified)
    }

    fn ask_principal(&self, vm: &VmState, request: Request, verified: Verified) -> Step {
        let Identity { caller, issued_at, .. } = verified.identity.as_ref();
        let (Some(issuer), Some(sidecar)) = (self.issuers.get(caller.issuer), &self.sidecar) else {
            return self.no_identity(request);
        };
        let call = sidecar.principal(&PrincipalAsk::Subject {
            issuer: issuer.rules.issuer.to_string(),
            tenant: caller.tenant,
            subject: caller.subject.clone(),
            token: verified.identity.mark().map(str::to_owned),
            issued_at_s: issued_at.map(|issued_at| issued_at.as_secs()),
            // Whom the record does not know, an issuer vouches for within tenants that the document names alone.
            vouched: issuer.rules.roles.is_some() && issuer.tenants != Tenants::FromRecord,
        });
        request.wait(call, WaitsFor::Principal { verified, asked: vm.asked() })
    }

    pub(super) fn with_principal_answer(
        &self,
        vm: &mut VmState,
        request: Request,
        (verified, asked): (Verified, Asked),
        answer: Answer<'_>,
        now: Duration,
    ) -> Step {
        let Verified { identity, remembered, again } = verified;
        match answer {
            Answer::Sidecar { status: 200, body } => {
                let Ok(facts) = serde_json::from_slice::<PrincipalFacts>(body) else {
                    return self.no_identity(request);
                };
                if facts.tenant != identity.caller.tenant {
                    return self.no_identity(request);
                }
                let caller = identity.caller.clone();
                match vm.store_principal(caller, facts, self.principal_ttl, now, asked) {
                    Some(principal) => self.with_principal(vm, request, &identity, principal, now),
                    // A change touched these facts while they were on their way.
                    None if again => self.no_identity(request),
                    None => {
                        let verified = Verified { identity, remembered, again: true };
                        self.ask_principal(vm, request, verified)
                    }
                }
            }
            // The token is worth nothing any more.
            Answer::Sidecar { status: 401, .. } => self.refuse(request, worthless()),
            // The record knows no such member of this tenant, or no such tenant: never remembered.
            Answer::Sidecar { status: 404, .. } => {
                vm.forget_principal(&identity.caller);
                self.refuse(request, Refusal::new(Reason::TenantInvalid))
            }
            Answer::Sidecar { .. } | Answer::Unavailable => {
                let goes_on = remembered && self.standing(vm, now) != Standing::Lost;
                match goes_on.then(|| vm.last_principal(&identity.caller)).flatten() {
                    Some(principal) => self.with_principal(vm, request, &identity, principal, now),
                    None => self.no_identity(request),
                }
            }
        }
    }

    fn with_principal(
        &self,
        vm: &mut VmState,
        request: Request,
        identity: &Identity,
        principal: Rc<Principal>,
        now: Duration,
    ) -> Step {
        if vm.denied(identity, &principal.facts) {
            return self.refuse(request, worthless());
        }
        match self.token_caller(identity, principal) {
            Ok(caller) => self.with_caller(vm, request, caller, now),
            Err(NoHeader) => self.refuse(request, Refusal::new(Reason::PermissionDenied)),
        }
    }

    /// Who calls, made ready once: with the principal where the record says the roles, else with the token.
    fn token_caller(
        &self,
        identity: &Identity,
        principal: Rc<Principal>,
    ) -> Result<Caller, NoHeader> {
        let prepare = |roles: Roles| {
            let issuer = self.issuers.get(identity.caller.issuer);
            let highest = issuer.and_then(|issuer| issuer.max_role);
            let roles = highest.map_or(Roles::NONE, |highest| roles.up_to(highest));
            let platform = principal.facts.platform && issuer.is_some_and(|issuer| issuer.platform);
            self.prepare(&principal.facts, roles, platform, AuthMethod::Jwt).map(Rc::new)
        };
        let prepared: Rc<Prepared> = match identity.roles {
            None => match principal.prepared.get() {
                Some(prepared) => Rc::clone(prepared),
                None => {
                    let prepared = prepare(principal.facts.roles)?;
                    Rc::clone(principal.prepared.get_or_init(|| prepared))
                }
            },
            Some(claimed) => {
                let mut known = identity.prepared.borrow_mut();
                match known.as_ref() {
                    Some((of, prepared)) if Rc::ptr_eq(of, &principal) => Rc::clone(prepared),
                    Some(_) | None => {
                        let prepared = principal.for_claimed(claimed, prepare)?;
                        *known = Some((Rc::clone(&principal), Rc::clone(&prepared)));
                        prepared
                    }
                }
            }
        };
        Ok(Caller { principal, prepared })
    }

    /// Where no record stands behind the gateway the token says it all, but for status and tier, which no token
    /// can: every tenant is active, on the lowest tier.
    fn without_record(
        &self,
        vm: &mut VmState,
        request: Request,
        identity: &Identity,
        now: Duration,
    ) -> Step {
        let known = identity.prepared.borrow().clone();
        let caller = match known {
            Some((principal, prepared)) => Ok(Caller { principal, prepared }),
            None => self.token_caller(identity, vm.member(&identity.caller, now)),
        };
        match caller {
            Ok(caller) => self.with_caller(vm, request, caller, now),
            Err(NoHeader) => self.refuse(request, Refusal::new(Reason::PermissionDenied)),
        }
    }
}

/// Good by its form, and worth nothing: revoked, unknown or ended.
pub(super) fn worthless() -> Refusal {
    Refusal::new(Reason::TokenInvalid).challenge(Challenge::InvalidToken)
}

fn judge(
    token: &jws::Parsed<'_>,
    issuer: &Issuer,
    keys: &KeySet,
    now: Duration,
    verifier: &dyn Verifier,
) -> Result<gatehouse_authn::Claims, TokenRefusal> {
    let verified = jws::verify_with(token, keys, &issuer.algorithms, verifier)?;
    claims::judge(&verified, &issuer.rules, now)
}

fn read_keys(answer: Answer<'_>) -> Option<FreshKeys> {
    let Answer::Sidecar { status: 200, body } = answer else { return None };
    let JwksAnswer { generation, jwks, max_age_ms } = serde_json::from_slice(body).ok()?;
    let set = KeySet::parse(jwks.as_bytes()).ok()?;
    Some(FreshKeys { set, generation, max_age: Duration::from_millis(max_age_ms) })
}
