//! From a token to a principal: keys, signature, claims, the issuer's reach, the record.
//! Knows neither routes nor limits.

use std::{rc::Rc, time::Duration};

use gatehouse_authn::{KeySet, Refusal as TokenRefusal, Verifier, claims, jws};
use gatehouse_contract::{
    Reason, TenantStatus,
    sidecar::{JwksAnswer, PrincipalAsk, PrincipalFacts},
};

use super::{Request, WaitsFor};
use crate::{
    config::{Issuer, Suite, Tenants},
    reply::Refusal,
    state::{Asked, FreshKeys, Identity, KeyIdAnswer, PrincipalKey, VmState},
    step::{Answer, Step},
};

/// What was asked for a token's sake.
pub(super) struct KeyQuestion {
    pub(super) issuer: usize,
    pub(super) token: String,
    pub(super) key_id_asked: bool,
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
        if let Some(known) = vm.token(token, now) {
            return self.with_claims(vm, request, known, now);
        }
        let parsed = match jws::parse(token) {
            Ok(parsed) => parsed,
            Err(refused) => return self.refuse_token(request, refused),
        };
        let claimed = parsed.claimed_issuer();
        let known = self
            .issuers
            .iter()
            .enumerate()
            .find(|(_, issuer)| claimed == Some(issuer.rules.issuer.as_str()));
        let Some((index, issuer)) = known else {
            return self.refuse_token(request, TokenRefusal::IssuerUnknown);
        };
        // The token alphabet is ASCII, so that this is the token as it came.
        let text = || String::from_utf8_lossy(token).into_owned();
        let Some(keys) = vm.keys(index, now) else {
            let Some(sidecar) = &self.sidecar else { return self.no_identity(request) };
            let call = sidecar.keys(&issuer.rules.issuer, None);
            let waits_for = WaitsFor::Keys { issuer: index, token: text(), key_id_asked: false };
            return request.wait(call, waits_for);
        };
        match judge(&parsed, issuer, &keys, now, verifier) {
            Ok(claims) => {
                let known = Rc::new(Identity::new(index, claims));
                vm.store_token(token, Rc::clone(&known), now);
                self.with_claims(vm, request, known, now)
            }
            Err(TokenRefusal::KeyUnknown) => {
                let Some(key_id) = &parsed.header().key_id else {
                    return self.refuse_token(request, TokenRefusal::KeyUnknown);
                };
                match vm.key_id_cool_down(index, now) {
                    Some(KeyIdAnswer::Answered) => {
                        self.refuse_token(request, TokenRefusal::KeyUnknown)
                    }
                    Some(KeyIdAnswer::Unavailable) => self.no_identity(request),
                    None => {
                        let Some(sidecar) = &self.sidecar else {
                            return self.no_identity(request);
                        };
                        let call = sidecar.keys(&issuer.rules.issuer, Some(key_id));
                        let waits_for =
                            WaitsFor::Keys { issuer: index, token: text(), key_id_asked: true };
                        request.wait(call, waits_for)
                    }
                }
            }
            Err(refused) => self.refuse_token(request, refused),
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
        let Some(fresh) = fresh else { return self.no_identity(request) };
        // A set that may not be kept at all would be asked for again and again within this request.
        let fresh = FreshKeys { max_age: fresh.max_age.max(Duration::from_millis(1)), ..fresh };
        vm.store_keys(issuer, fresh, now);
        self.authenticate(vm, request, token.as_bytes(), now, verifier)
    }

    /// The tenants that an issuer speaks for bound what its tokens claim (design §3.1).
    fn with_claims(
        &self,
        vm: &mut VmState,
        request: Request,
        known: Rc<Identity>,
        now: Duration,
    ) -> Step {
        let Identity { caller, claims, .. } = known.as_ref();
        let Some(issuer) = self.issuers.get(caller.issuer) else {
            return self.no_identity(request);
        };
        let in_reach = match &issuer.tenants {
            Tenants::Any | Tenants::FromRecord => true,
            Tenants::Listed(tenants) => tenants.contains(&claims.tenant),
        };
        if !in_reach {
            return self.refuse(request, Refusal::new(Reason::TenantInvalid));
        }
        if let Some(principal) = vm.principal(caller, now) {
            return self.with_facts(request, caller.clone(), principal.facts.clone());
        }
        let Some(sidecar) = &self.sidecar else { return self.no_identity(request) };
        let call = sidecar.principal(&PrincipalAsk::Subject {
            issuer: issuer.rules.issuer.clone(),
            tenant: caller.tenant,
            subject: caller.subject.clone(),
            token: None,
            issued_at_s: None,
            vouched: false,
        });
        let asked = vm.asked();
        request.wait(call, WaitsFor::Principal { caller: caller.clone(), asked })
    }

    pub(super) fn with_principal_answer(
        &self,
        vm: &mut VmState,
        request: Request,
        (caller, asked): (PrincipalKey, Asked),
        answer: Answer<'_>,
        now: Duration,
    ) -> Step {
        match answer {
            Answer::Sidecar { status: 200, body } => {
                let Ok(facts) = serde_json::from_slice::<PrincipalFacts>(body) else {
                    return self.no_identity(request);
                };
                let ttl = self.principal_ttl;
                match vm.store_principal(caller.clone(), facts.clone(), ttl, now, asked) {
                    Some(_) => self.with_facts(request, caller, facts),
                    // Something touched these facts while they were on their way.
                    None => self.no_identity(request),
                }
            }
            // The record knows no such member of this tenant, or no such tenant: never remembered.
            Answer::Sidecar { status: 404, .. } => {
                self.refuse(request, Refusal::new(Reason::TenantInvalid))
            }
            Answer::Sidecar { .. } | Answer::Unavailable => self.no_identity(request),
        }
    }

    fn with_facts(&self, request: Request, caller: PrincipalKey, facts: PrincipalFacts) -> Step {
        match facts.status {
            TenantStatus::Active => self.authorise(request, caller, facts),
            TenantStatus::Provisioning | TenantStatus::Suspended | TenantStatus::Deleting => {
                self.refuse(request, Refusal::new(Reason::TenantInactive))
            }
        }
    }

    /// Nobody could say who this is: 503, never 401 (acceptance J13).
    fn no_identity(&self, request: Request) -> Step {
        self.refuse(request, Refusal::new(Reason::IdentityUnavailable))
    }
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
