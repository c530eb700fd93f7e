//! The caller as one module hands it to the next: JSON in the host's filter state, which no client can write. Made by
//! the module `auth`, read by the modules behind it. Knows no requests.

use gatehouse_contract::{
    AuthMethod, Roles, TenantId, Tier,
    sidecar::{Overrides, PrincipalFacts},
};
use serde::{Deserialize, Serialize};

/// Who calls, and what counts here of what the record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Handover {
    pub(crate) tenant: TenantId,
    pub(crate) tier: Tier,
    pub(crate) subject: String,
    pub(crate) roles: Roles,
    pub(crate) platform: bool,
    pub(crate) method: AuthMethod,
    pub(crate) scopes: Option<Vec<String>>,
    pub(crate) limits: Option<Overrides>,
}

impl Handover {
    /// What the record would say of this caller: it was let pass, so that its tenant acts.
    pub(crate) fn facts(self) -> PrincipalFacts {
        PrincipalFacts {
            tier: self.tier,
            roles: self.roles,
            platform: self.platform,
            scopes: self.scopes,
            limits: self.limits,
            ..PrincipalFacts::member(self.tenant, self.subject)
        }
    }
}
