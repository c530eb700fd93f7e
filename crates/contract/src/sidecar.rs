//! Wire types between a filter and its sidecar, and between the sidecar and the control API's internal
//! listener. JSON bodies; both sides of each call use these types, so that they cannot drift.
//! Knows nothing of transport. Every answer carries [`crate::header::SIDECAR_MARKER`]: `1`.

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
/// The control API's internal listener: `POST` with [`PrincipalAsk`] → [`PrincipalFacts`] or 404.
pub const INTERNAL_PRINCIPAL_PATH: &str = "/internal/v1/principal";

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

/// Asks for the record of a verified (issuer, tenant, subject).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrincipalAsk {
    /// The token's `iss`, byte for byte.
    pub issuer: String,
    /// The tenant that the token names.
    pub tenant: TenantId,
    /// The token's `sub`.
    pub subject: String,
}

/// What the record says (design §3.1: the record wins over claims).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrincipalFacts {
    /// Whether the tenant may act.
    pub status: TenantStatus,
    /// The tenant's tier.
    pub tier: Tier,
    /// The subject's roles in this tenant.
    pub roles: Roles,
    /// Whether the subject holds the platform membership.
    pub platform: bool,
    /// Grows with every change of these facts.
    pub epoch: u64,
}

/// Asks whether a request may pass its limits; a pass is charged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckAsk {
    /// Whose limits.
    pub tenant: TenantId,
    /// From the record.
    pub tier: Tier,
    /// The request's method, upper case.
    pub method: String,
    /// The route's template (never the raw path), e.g. `/api/v1/registry/agents/{id}`.
    pub route: String,
    /// What the request costs; 0 asks without charging.
    pub cost: u32,
}

/// One limit's standing after the decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitState {
    /// `tenant` or `endpoint`.
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
    /// Every limit that applied; what clients see in `X-RateLimit-*` is the first.
    pub limits: Vec<LimitState>,
}
