//! Wire types between a filter and its sidecar, and between the sidecar and the control API's internal
//! listener. JSON bodies; both sides of each call use these types, so that they cannot drift.
//! Knows nothing of transport. Every answer carries [`crate::header::SIDECAR_MARKER`]: `1`.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    id::TenantId,
    identity::{Roles, TenantStatus, Tier},
};

/// `GET /v1/jwks?issuer=NAME[&kid=KID]` → the issuer's key set as it was fetched, with the generation that
/// changes when the set does. `kid` asks for a refetch when that key is not in the set (bounded, acceptance J13).
pub const JWKS_PATH: &str = "/v1/jwks";
/// `POST /v1/principal` with [`PrincipalAsk`] → [`PrincipalFacts`], or 404 when the record knows no such one.
pub const PRINCIPAL_PATH: &str = "/v1/principal";
/// `POST /v1/check` with [`CheckAsk`] → [`CheckAnswer`].
pub const CHECK_PATH: &str = "/v1/check";
/// `POST /v1/lease` with [`LeaseAsk`] → [`LeaseAnswer`].
pub const LEASE_PATH: &str = "/v1/lease";
/// `GET /v1/changes?epoch=EPOCH&after=SEQUENCE` → [`ChangesAnswer`]; without a query, from nothing.
pub const CHANGES_PATH: &str = "/v1/changes";
/// The control API's internal listener: `POST` with [`PrincipalAsk`] → [`PrincipalFacts`], 401 or 404.
pub const INTERNAL_PRINCIPAL_PATH: &str = "/internal/v1/principal";
/// The control API's internal listener: `POST` with [`LastUsed`] → 204.
pub const INTERNAL_LAST_USED_PATH: &str = "/internal/v1/last-used";
/// The control API's internal listener: `POST` with [`QuotaWarning`] → 204.
pub const INTERNAL_QUOTA_WARNING_PATH: &str = "/internal/v1/quota-warning";

/// The answer of [`JWKS_PATH`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwksAnswer {
    /// Changes whenever the keys do.
    pub generation: u64,
    /// The key set document (RFC 7517 §5) as JSON text.
    pub jwks: String,
    /// Milliseconds for which the filter may use it without asking again.
    pub max_age_ms: u64,
}

/// Asks for the record behind a credential: a verified token's subject, or a credential that only the record can
/// tell. A credential goes in the body and never in a URL (design §3.1).
///
/// Answers: 200 with [`PrincipalFacts`]; 401 where the credential itself is worth nothing (an unknown, expired or
/// revoked key or session, a revoked token); 404 where the token is good and the record knows no such member of this
/// tenant, or no such tenant.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PrincipalAsk {
    /// The subject of a token whose signature and claims were judged.
    Subject {
        /// The token's `iss`, byte for byte.
        issuer: String,
        /// The tenant that the token names.
        tenant: TenantId,
        /// The token's `sub`.
        subject: String,
        /// The token's mark in the deny list (`authn::revocation::mark`), where it has a `jti`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
        /// The token's `iat` in seconds since the Unix epoch, where it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        issued_at_s: Option<u64>,
        /// Whether its issuer says which roles its subjects hold (`roles: token`): then a subject that the record
        /// does not know is answered with its tenant's standing and no roles. A subject that the record knows is
        /// answered as ever, so that its suspension acts.
        #[serde(default)]
        vouched: bool,
    },
    /// An API key as it was presented.
    ApiKey {
        /// The whole key.
        key: String,
        /// The client's address, for the budget of unknown keys.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<String>,
    },
    /// A browser session's cookie as it was presented.
    Session {
        /// The cookie's value.
        session: String,
        /// The client's address, for the budget of unknown sessions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<String>,
    },
}

/// A key or a session is a secret: only its kind is shown.
impl fmt::Debug for PrincipalAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject { issuer, tenant, subject, .. } => {
                write!(f, "Subject({issuer:?}, {tenant}, {subject:?})")
            }
            Self::ApiKey { .. } => f.write_str("ApiKey(…)"),
            Self::Session { .. } => f.write_str("Session(…)"),
        }
    }
}

/// What the record says (design §3.1: the record wins over claims).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrincipalFacts {
    /// The tenant that the credential acts for.
    pub tenant: TenantId,
    /// The caller's id within the tenant, the same whatever credential it shows: a user's, client's or key's id.
    pub subject: String,
    /// Whether the tenant may act.
    pub status: TenantStatus,
    /// Whether this caller was suspended within its tenant.
    #[serde(default)]
    pub suspended: bool,
    /// The tenant's tier.
    pub tier: Tier,
    /// The subject's roles in this tenant.
    pub roles: Roles,
    /// Whether the subject holds the platform membership.
    pub platform: bool,
    /// The permissions of the role matrix that the credential is narrowed to; `None` is all that the roles hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// What [`Change::Credential`] names this key or session by; `None` for a token's subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// When the key or session ends, in seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_s: Option<u64>,
    /// The API version that the tenant is pinned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_pin: Option<String>,
    /// Where the tenant's limits differ from its tier's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Overrides>,
    /// Grows with every change of these facts.
    pub epoch: u64,
}

impl PrincipalFacts {
    /// A member of an active tenant of the lowest tier with no role, to be filled in by struct update.
    pub fn member(tenant: TenantId, subject: impl Into<String>) -> Self {
        Self {
            tenant,
            subject: subject.into(),
            status: TenantStatus::Active,
            suspended: false,
            tier: Tier::Free,
            roles: Roles::NONE,
            platform: false,
            scopes: None,
            credential: None,
            expires_at_s: None,
            version_pin: None,
            limits: None,
            epoch: 0,
        }
    }
}

/// One change of what a VM or a sidecar may remember. Idempotent: a change may come twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// Everything that is remembered of this tenant is old: its status, its tier, any of its members.
    Tenant {
        /// Which.
        tenant: TenantId,
    },
    /// What is remembered of this member is old, whatever credential it showed.
    Subject {
        /// In which tenant.
        tenant: TenantId,
        /// [`PrincipalFacts::subject`].
        subject: String,
    },
    /// What is remembered of this key or session is old.
    Credential {
        /// [`PrincipalFacts::credential`].
        credential: String,
    },
    /// This issuer published other keys: a sidecar fetches them. For VMs [`ChangesAnswer::keys`] says when it has.
    Keys {
        /// The issuer's `iss`.
        issuer: String,
    },
    /// A token is denied from now on.
    Deny(Denied),
}

/// An entry of the deny list: what signatures alone cannot tell.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "deny", rename_all = "snake_case")]
pub enum Denied {
    /// One token.
    Token {
        /// `authn::revocation::mark` of its issuer and `jti`.
        token: String,
        /// When it expires by itself and may be forgotten, in seconds since the Unix epoch.
        until_s: u64,
    },
    /// Every token of this subject that was issued before a time, or that does not say when.
    IssuedBefore {
        /// In which tenant.
        tenant: TenantId,
        /// [`PrincipalFacts::subject`].
        subject: String,
        /// Seconds since the Unix epoch.
        before_s: u64,
        /// When the last such token has expired, in seconds since the Unix epoch.
        until_s: u64,
    },
}

/// The answer of [`CHANGES_PATH`] (design §3.1, change feed).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangesAnswer {
    /// Names one unbroken run of the feed: sequences of different epochs have nothing to do with each other.
    pub epoch: String,
    /// The last change that this answer knows of.
    pub sequence: u64,
    /// Whether the relay's heartbeat is at most 5 s old. Without it this answer is silence: what it says may be
    /// old, and nothing may be concluded from what it does not say.
    pub alive: bool,
    /// The changes after the asked sequence, in order; empty when `snapshot` is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// The whole deny list: the asked epoch is another, or the asked sequence too long ago, so that everything that
    /// is remembered must be asked for again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Vec<Denied>>,
    /// The generation of every issuer's key set that the sidecar holds, by `iss`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, u64>,
}

/// When credentials were last seen, in batches ([`INTERNAL_LAST_USED_PATH`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastUsed {
    /// Seconds since the Unix epoch, by [`PrincipalFacts::credential`].
    pub seen_at_s: BTreeMap<String, u64>,
}

/// A tenant's limits where they differ from its tier's (specification GRL-002, MTD-003). What is absent is the tier's;
/// 0 blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    /// Requests per window of the whole tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_window: Option<u32>,
    /// At most this many times the tenant's limit ÷ window seconds in any second; 0 is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst_multiplier: Option<u32>,
    /// Requests of the whole tenant per UTC day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_day: Option<u32>,
    /// Endpoints with limits of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointOverride>,
}

/// The limit of one endpoint for one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointOverride {
    /// Upper case.
    pub method: String,
    /// The route's template.
    pub route: String,
    /// Requests per window.
    pub per_window: u32,
}

/// Asks whether a request may pass its limits; a pass is charged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckAsk {
    /// Whose limits.
    pub tenant: TenantId,
    /// From the record.
    pub tier: Tier,
    /// From the record, where the tenant has limits of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Overrides>,
    /// The caller within the tenant, where subjects have a limit of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The request's method, upper case.
    pub method: String,
    /// The route's template (never the raw path), e.g. `/api/v1/registry/agents/{id}`.
    pub route: String,
    /// What the request costs; 0 asks without charging.
    pub cost: u32,
    /// Charge even what does not fit: a cost that is known only after the response (acceptance R24), or a caller that
    /// is let pass and metered all the same (R15). What is then above a limit delays who comes next.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
}

/// One limit's standing after the decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitState {
    /// `tenant`, `endpoint`, `subject`, `burst` or `day`.
    pub name: String,
    /// Requests per window.
    pub limit: u32,
    /// The window in seconds.
    pub window_s: u32,
    /// What is left.
    pub remaining: u32,
    /// Seconds until at least one more passes (0 when some are left now), rounded up.
    pub reset_s: u32,
}

/// The verdict and the standing of every limit that was weighed, the tightest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckAnswer {
    /// Whether the request may pass. A denial charges nothing.
    pub allowed: bool,
    /// Seconds after which a retry passes, at least 1; only on a denial.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_s: Option<u32>,
    /// Whether it was decided without the shared store: by the policy for an outage.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub degraded: bool,
    /// The part of the day's quota that is used, in percent, from 80 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day_used_percent: Option<u8>,
    /// Every limit that applied; what clients see in `X-RateLimit-*` is the first.
    pub limits: Vec<LimitState>,
}

/// Asks for a decision, and for further ones to take along (design §3.4, leases); hands back what was not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseAsk {
    /// Names one VM for its lifetime: a lease is handed back by its holder alone.
    pub holder: String,
    /// The request that waits; `None` for returns alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckAsk>,
    /// How many passes of the check's cost may be taken along; 0 for none.
    #[serde(default)]
    pub want: u32,
    /// Leases that have ended. Sent once and never again, whatever becomes of the call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub returns: Vec<LeaseReturn>,
}

/// A lease that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseReturn {
    /// [`Lease::id`].
    pub lease: u64,
    /// Passes that nobody used; the sidecar credits no more than its own ledger says.
    pub unused: u32,
}

/// The answer of [`LEASE_PATH`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAnswer {
    /// The verdict on [`LeaseAsk::check`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckAnswer>,
    /// What may be taken along; it is counted as left in the check's [`LimitState::remaining`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// What this VM may let pass of the check's tenant per window while the sidecar is away: the tenant's limit ÷ the
    /// live sidecars ÷ this sidecar's VMs, rounded down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<u32>,
}

/// Passes that are charged already, for requests of the same tenant, tier, limits, subject, method, route and cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// To hand back what is unused.
    pub id: u64,
    /// How many requests may pass.
    pub passes: u32,
    /// Until how many milliseconds after the *sending* of the ask they may; by a monotonic clock.
    pub ttl_ms: u32,
}

/// A tenant has used most of its day's quota ([`INTERNAL_QUOTA_WARNING_PATH`]): told once per tenant and day by each
/// sidecar that sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaWarning {
    /// Whose quota.
    pub tenant: TenantId,
    /// The UTC day, days since the Unix epoch.
    pub day: u32,
    /// Requests that were charged.
    pub used: u32,
    /// Requests per day.
    pub limit: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_forms_are_these() {
        let tenant: TenantId = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap();
        fn json(value: &impl Serialize) -> String {
            serde_json::to_string(value).unwrap()
        }
        let ask = PrincipalAsk::ApiKey { key: "gk_live_x".to_owned(), client: None };
        assert_eq!(json(&ask), r#"{"kind":"api_key","key":"gk_live_x"}"#);
        assert_eq!(format!("{ask:?}"), "ApiKey(…)");
        let change = Change::Deny(Denied::Token { token: "m".to_owned(), until_s: 7 });
        assert_eq!(json(&change), r#"{"kind":"deny","deny":"token","token":"m","until_s":7}"#);
        assert_eq!(serde_json::from_str::<Change>(&json(&change)).unwrap(), change);
        let change = Change::Subject { tenant, subject: "u".to_owned() };
        assert_eq!(
            json(&change),
            r#"{"kind":"subject","tenant":"0191d6b0-7c3e-7aaa-8bbb-0123456789ab","subject":"u"}"#
        );
    }
}
