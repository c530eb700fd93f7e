//! What a credential comes down to: made once, shared by every request that shows it.
//! Knows neither where it is remembered nor what is decided by it.

use std::{
    cell::{OnceCell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use gatehouse_authn::{Claims, revocation};
use gatehouse_contract::{Roles, TenantId, sidecar::PrincipalFacts};

use crate::prepared::Prepared;

/// Who a token speaks of: the issuer by its place in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PrincipalKey {
    pub(crate) issuer: usize,
    pub(crate) tenant: TenantId,
    pub(crate) subject: String,
}

/// A token that was verified and judged.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Where its principal is remembered.
    pub(crate) caller: PrincipalKey,
    issuer: Arc<str>,
    token_id: Option<Box<str>>,
    pub(crate) issued_at: Option<Duration>,
    /// The roles that the token says, where its issuer's do.
    pub(crate) roles: Option<Roles>,
    /// What was made of it where the token says its roles: for these facts and no others.
    pub(crate) prepared: RefCell<Option<(Rc<Principal>, Rc<Prepared>)>>,
    mark: OnceCell<Option<String>>,
}

/// What the record says of a caller, and what was made of it.
#[derive(Debug)]
pub(crate) struct Principal {
    pub(crate) facts: PrincipalFacts,
    /// Made at first use, dropped with the facts.
    pub(crate) prepared: OnceCell<Rc<Prepared>>,
    /// The same for the roles that a token said last: most of a caller's tokens say the same.
    claimed: RefCell<Option<(Roles, Rc<Prepared>)>>,
}

/// The kinds of credentials that only the record can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    ApiKey,
    Session,
}

// === impl Identity ===

impl Identity {
    /// `issuer` is the issuer's place in the configuration.
    pub(crate) fn new(issuer: usize, claims: &Claims) -> Self {
        let subject = claims.subject.clone();
        Self {
            caller: PrincipalKey { issuer, tenant: claims.tenant, subject },
            issuer: Arc::clone(&claims.issuer),
            token_id: claims.token_id.as_deref().map(Box::from),
            issued_at: claims.issued_at,
            roles: claims.roles,
            prepared: RefCell::default(),
            mark: OnceCell::new(),
        }
    }

    /// Its name in a deny list; `None` for a token without `jti`.
    pub(crate) fn mark(&self) -> Option<&str> {
        let mark = || self.token_id.as_ref().map(|id| revocation::mark(&self.issuer, id));
        self.mark.get_or_init(mark).as_deref()
    }

    /// About what it takes in memory for these claims.
    pub(super) fn bytes(claims: &Claims) -> usize {
        let token_id = claims.token_id.as_ref().map_or(0, String::len);
        let texts = [claims.subject.len(), token_id, MARK_BYTES];
        texts.into_iter().fold(size_of::<Self>(), usize::saturating_add)
    }
}

/// A mark's text and its allocation.
const MARK_BYTES: usize = 32;

// === impl Principal ===

impl Principal {
    /// What was made for these roles of a token, or what `prepare` makes now.
    pub(crate) fn for_claimed<E>(
        &self,
        roles: Roles,
        prepare: impl FnOnce(Roles) -> Result<Rc<Prepared>, E>,
    ) -> Result<Rc<Prepared>, E> {
        let mut known = self.claimed.borrow_mut();
        match known.as_ref() {
            Some((of, prepared)) if *of == roles => Ok(Rc::clone(prepared)),
            Some(_) | None => {
                let prepared = prepare(roles)?;
                *known = Some((roles, Rc::clone(&prepared)));
                Ok(prepared)
            }
        }
    }
}

impl From<PrincipalFacts> for Principal {
    fn from(facts: PrincipalFacts) -> Self {
        Self { facts, prepared: OnceCell::new(), claimed: RefCell::default() }
    }
}
