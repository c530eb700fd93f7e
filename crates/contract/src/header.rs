//! Names of the headers that Gatehouse reads, sets and removes, in lower case.
//! Knows nothing of how a host spells or stores them.

/// The tenant's canonical UUID (specification TCP-001).
pub const TENANT_ID: &str = "x-tenant-id";
/// The tenant's tier.
pub const TENANT_TIER: &str = "x-tenant-tier";
/// The caller within the tenant.
pub const USER_ID: &str = "x-user-id";
/// The caller's roles, comma-separated.
pub const USER_ROLES: &str = "x-user-roles";
/// How the caller proved itself.
pub const AUTH_METHOD: &str = "x-auth-method";
/// An API key (specification GAA-003).
pub const API_KEY: &str = "x-api-key";
/// The signed context (design §3.2).
pub const CONTEXT: &str = "x-gatehouse-context";
/// The request's id, made at the edge unless a valid one came in.
pub const REQUEST_ID: &str = "x-request-id";
/// W3C baggage; its `tenant.id` member is ours.
pub const BAGGAGE: &str = "baggage";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// Why a platform member acts for another tenant (acceptance T8); sent by the client, audited by the control API.
pub const IMPERSONATION_REASON: &str = "x-gatehouse-reason";
/// Set by the sidecar on every answer of its own; anything without it is "unavailable".
pub const SIDECAR_MARKER: &str = "x-gatehouse-sidecar";
/// The API version that answered.
pub const API_VERSION: &str = "api-version";
/// The limit of the tightest policy, requests per window.
pub const RATE_LIMIT: &str = "x-ratelimit-limit";
/// What is left of it.
pub const RATE_REMAINING: &str = "x-ratelimit-remaining";
/// Seconds until one more request passes, 0 while some are left.
pub const RATE_RESET: &str = "x-ratelimit-reset";

/// Identity headers that only Gatehouse may set: whatever a client sends under these names, in any spelling,
/// is gone before anything else is decided (acceptance T1, T2).
pub const IDENTITY: &[&str] = &[TENANT_ID, TENANT_TIER, USER_ID, USER_ROLES, AUTH_METHOD, CONTEXT];

/// Whether `name` spells one of [`IDENTITY`]: any case, `_` for `-`.
pub fn is_identity(name: &[u8]) -> bool {
    IDENTITY.iter().any(|ours| spells(name, ours))
}

/// Whether `name` is `ours` in any spelling that some upstream reads as the same header (CGI maps `-` to `_`).
pub fn spells(name: &[u8], ours: &str) -> bool {
    name.len() == ours.len()
        && name.iter().zip(ours.bytes()).all(|(theirs, ours)| {
            let theirs = if *theirs == b'_' { b'-' } else { theirs.to_ascii_lowercase() };
            theirs == ours
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_identity_header_is_known() {
        for name in
            ["x-tenant-id", "X-Tenant-ID", "x_tenant_id", "X-Tenant_Id", "X_GATEHOUSE-context"]
        {
            assert!(is_identity(name.as_bytes()), "{name}");
        }
        for name in ["x-tenant-idd", "tenant-id", "x-tenant", ""] {
            assert!(!is_identity(name.as_bytes()), "{name}");
        }
    }
}
