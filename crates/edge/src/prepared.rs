//! What every request of one caller shares: made once, when the record or the token is first seen, and dropped with
//! it. Knows no requests.

use std::{cell::RefCell, rc::Rc, time::Duration};

use gatehouse_authn::context::{self, Facts};
use gatehouse_contract::{AuthMethod, Roles, header, sidecar::PrincipalFacts};

use crate::{access_log, baggage, config::Suite, handover::Handover};

/// What every request of one caller shares.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Who calls; roles and membership within what the issuer may grant.
    pub(crate) facts: Facts,
    /// The tenant's id and the roles as text.
    pub(crate) tenant: Rc<str>,
    pub(crate) roles: Rc<str>,
    /// The permissions that the credential is narrowed to.
    pub(crate) scopes: Option<Vec<String>>,
    /// What the upstream is told.
    pub(crate) headers: Vec<(&'static str, Rc<str>)>,
    /// The `baggage` of a request that brought none.
    pub(crate) baggage: Rc<str>,
    /// For single modules behind this one.
    pub(crate) handover: Option<Rc<str>>,
    /// For the access log.
    pub(crate) logged: Option<Rc<str>>,
    /// By place in the configuration.
    signed: RefCell<Vec<Option<Signed>>>,
}

/// A signed context, and when it was made.
type Signed = (Duration, Rc<str>);

/// The document signs contexts and has no key yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoKey;

/// A caller's name has a byte that no header may carry (acceptance T6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoHeader;

impl Suite {
    /// Makes ready what the caller's requests share. `roles` and `platform` are what counts here, whatever the
    /// record says beyond it.
    pub(crate) fn prepare(
        &self,
        facts: &PrincipalFacts,
        roles: Roles,
        platform: bool,
        method: AuthMethod,
    ) -> Result<Prepared, NoHeader> {
        let PrincipalFacts { tenant, tier, subject, scopes, limits, .. } = facts;
        if subject.is_empty() || !subject.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NoHeader);
        }
        let tenant_text: Rc<str> = tenant.to_string().into();
        let roles_text: Rc<str> = roles.to_string().into();
        let value = |name: &str| -> Rc<str> {
            match name {
                header::TENANT_ID => Rc::clone(&tenant_text),
                header::TENANT_TIER => tier.as_str().into(),
                header::USER_ID => subject.as_str().into(),
                header::USER_ROLES => Rc::clone(&roles_text),
                _ => method.as_str().into(),
            }
        };
        let headers = self.context.headers.iter().map(|name| (*name, value(name))).collect();
        let handover = self.parts.hands_over().then(|| {
            let caller = Handover {
                tenant: *tenant,
                tier: *tier,
                subject: subject.clone(),
                roles,
                platform,
                method,
                scopes: scopes.clone(),
                limits: limits.clone(),
            };
            // Its keys are strings, so that this cannot fail; what is empty names nobody to whoever reads it.
            serde_json::to_string(&caller).unwrap_or_default().into()
        });
        Ok(Prepared {
            facts: Facts {
                tenant: *tenant,
                tier: *tier,
                subject: subject.clone(),
                roles,
                method,
                platform,
            },
            scopes: scopes.clone(),
            headers,
            baggage: baggage::with_tenant("", &tenant_text).into(),
            tenant: tenant_text,
            roles: roles_text,
            handover,
            logged: self.access_log.then(|| access_log::caller(facts, method).into()),
            signed: RefCell::new(vec![None; self.context.sign.len()]),
        })
    }

    /// Which entry of the configuration signs contexts for whoever serves `path`.
    pub(crate) fn signs(&self, path: &str) -> Option<usize> {
        self.context.sign.iter().position(|sign| path.starts_with(sign.prefix.as_str()))
    }

    /// The context that the entry at `place` signs; made again when it ages.
    pub(crate) fn signed(
        &self,
        prepared: &Prepared,
        place: usize,
        now: Duration,
    ) -> Result<Rc<str>, NoKey> {
        let signer = self.context.sign.get(place).and_then(|sign| sign.signer.as_ref());
        let mut signed = prepared.signed.borrow_mut();
        let (Some(signer), Some(slot)) = (signer, signed.get_mut(place)) else {
            return Err(NoKey);
        };
        let fresh = |made_at: &Duration| {
            now.checked_sub(*made_at).is_some_and(|age| age < context::RENEWAL)
        };
        if let Some((made_at, text)) = slot.as_ref()
            && fresh(made_at)
        {
            return Ok(Rc::clone(text));
        }
        let text: Rc<str> = signer.sign(&prepared.facts, now).into();
        *slot = Some((now, Rc::clone(&text)));
        Ok(text)
    }
}
