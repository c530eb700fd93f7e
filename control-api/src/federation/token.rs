//! Bearer tokens of registered issuers: whom one stands for. The issuer that speaks is the tenant's own registration of
//! that name, so that A's provider cannot sign for B, and a name that B registered with other keys opens B alone.
//! Knows nothing of routes.

use std::time::Duration;

use gatehouse_authn::{
    Algorithm, Portable, Refusal, Rules,
    claims::{self, Claims, RolesClaim},
    jws::{self, Parsed, Verified},
    revocation,
};
use gatehouse_contract::{Reason, Roles, TenantId, sidecar::PrincipalFacts};
use gatehouse_service::{Reply, exit::chain};
use gatehouse_store::{
    Error,
    identities::{Identity, Standing},
    issuers::{Issuer, RolesSource, Settings},
};
use serde_json::Value;
use tracing::{error, info, warn};

use crate::{
    access::credential::refused,
    clock,
    federation::provider,
    oidc::SignIn,
    principal::{self, Token, Verdict},
    routes::Api,
};

/// Whom a token of another issuer than us stands for, once its keys, claims and tenant were judged here.
pub async fn verdict(api: &Api, token: &Parsed<'_>) -> Result<Verdict, Reply> {
    let unknown = || refused(Refusal::IssuerUnknown);
    let sign_in = api.sign_in.as_ref().ok_or_else(unknown)?;
    let name = token.claimed_issuer().ok_or_else(unknown)?;
    // What it claims chooses whose keys judge it, and nothing else; where it names no tenant of ours, any
    // registration's keys tell a good token from a forged one.
    let claimed = claimed_tenant(token).unwrap_or(TenantId::new(uuid::Uuid::nil()));
    let found = api.store.lookup().token_issuer(name, claimed).await.map_err(away)?;
    let issuer = found.ok_or_else(unknown)?;
    let keys = keys(sign_in, &issuer, token).await?;
    let allowed = algorithms(&issuer.settings);
    let verified = jws::verify_with(token, &keys, &allowed, &Portable).map_err(refused)?;
    let claims = judged(&verified, &issuer, clock::since_epoch(clock::now()))?;
    of_claims(api, &issuer, &claims).await.map_err(away)
}

/// What a token says whose signature is good, once its claims and its tenant are.
fn judged(verified: &Verified<'_>, issuer: &Issuer, now: Duration) -> Result<Claims, Reply> {
    let rules = rules(&issuer.settings).map_err(|_| Reply::new(Reason::Internal))?;
    let claims = claims::judge(verified, &rules, now).map_err(refused)?;
    if !issuer.settings.access_tokens_only && is_of_a_sign_in(verified, &issuer.settings.client_id)
    {
        return Err(refused(Refusal::TypeNotAllowed));
    }
    if claims.tenant != issuer.tenant {
        info!(issuer.id = %issuer.id, "a token for a tenant that its issuer does not speak for");
        return Err(Reason::TenantInvalid.into());
    }
    if !has_required(verified, &issuer.settings) {
        info!(issuer.id = %issuer.id, "a token without a claim that is required");
        return Err(Reason::TenantInvalid.into());
    }
    Ok(claims)
}

async fn of_claims(api: &Api, issuer: &Issuer, claims: &Claims) -> Result<Verdict, Error> {
    let mark = claims.mark();
    let token = Token {
        tenant: claims.tenant,
        subject: &claims.subject,
        mark: mark.as_deref(),
        issued_at_s: claims.issued_at.map(|at| at.as_secs()),
    };
    let vouched = claims.roles.is_some();
    let verdict = of_subject(api, &claims.issuer, token, vouched).await?;
    Ok(match (verdict, claims.roles) {
        (Verdict::Known(facts), Some(roles)) => Verdict::Known(Box::new(PrincipalFacts {
            roles: roles.up_to(issuer.settings.max_role),
            ..*facts
        })),
        (verdict, _) => verdict,
    })
}

/// Whom the subject of a foreign token stands for, whose signature and claims were judged by whoever asks. `vouched`:
/// its issuer answers for its roles (`PrincipalAsk::Subject`).
pub async fn of_subject(
    api: &Api,
    issuer: &str,
    token: Token<'_>,
    vouched: bool,
) -> Result<Verdict, Error> {
    let found = api.store.lookup().identity(token.tenant, issuer, token.subject).await?;
    let Identity { user, issuer: standing } = found;
    let highest = match standing {
        // The tenant does not take its tokens.
        Standing::Refused => return Ok(Verdict::Stranger),
        // Others registered it, and this tenant did not: it does not speak here.
        Standing::Elsewhere => return Ok(Verdict::Stranger),
        Standing::Taken(highest) => Some(highest),
        // Nobody's: the asker's own configuration names it, and what that says about roles is all there is.
        Standing::Unknown if vouched => None,
        Standing::Unknown => return Ok(Verdict::Stranger),
    };
    if let Some(user) = user {
        let verdict = principal::of_member(api, user.as_uuid(), token).await?;
        return Ok(match verdict {
            Verdict::Known(facts) => Verdict::Known(Box::new(PrincipalFacts {
                roles: highest.map_or(Roles::NONE, |highest| facts.roles.up_to(highest)),
                // Only our own issuer asserts it (design §3.1).
                platform: false,
                ..*facts
            })),
            verdict => verdict,
        });
    }
    if !vouched {
        return Ok(Verdict::Stranger);
    }
    // Its name within the tenant: never one that a member could have.
    let name = format!("ext:{}", revocation::mark(issuer, token.subject));
    let revoked = match token.mark {
        Some(mark) => api.store.lookup().is_revoked(token.tenant, mark).await?,
        None => false,
    };
    if revoked {
        return Ok(Verdict::Worthless);
    }
    let facts = api.store.lookup().outsider(token.tenant, &name).await?;
    Ok(facts.map_or(Verdict::Stranger, |facts| Verdict::Known(Box::new(facts))))
}

/// The keys that may have signed `token`.
pub async fn keys(
    sign_in: &SignIn,
    issuer: &Issuer,
    token: &Parsed<'_>,
) -> Result<std::sync::Arc<gatehouse_authn::KeySet>, Reply> {
    let wanted = token.header().key_id.as_deref();
    let guard = sign_in.guard_for(issuer);
    let keys = sign_in.providers.keys(issuer, guard, wanted).await;
    keys.map_err(|error| unavailable(issuer, &error))
}

/// Its provider cannot be asked: nothing is known of the caller, and trying again may help.
pub fn unavailable(issuer: &Issuer, error: &provider::Error) -> Reply {
    warn!(issuer.id = %issuer.id, error = %chain(error), "an identity provider cannot be used");
    Reply::new(Reason::IdentityUnavailable)
        .detail("the identity provider cannot be reached, or does not answer as it should")
        .header(axum::http::header::RETRY_AFTER, axum::http::HeaderValue::from_static("5"))
}

/// The algorithms as the verifier names them; what it does not know was never stored.
pub fn algorithms(settings: &Settings) -> Vec<Algorithm> {
    settings.algorithms.iter().filter_map(|name| name.parse().ok()).collect()
}

/// Whether the token says all that it must (a domain, a directory).
pub fn has_required(token: &Verified<'_>, settings: &Settings) -> bool {
    let claims: Value = serde_json::from_slice(token.payload()).unwrap_or_default();
    settings.required_claims.iter().all(|(pointer, expected)| {
        claims.pointer(pointer).and_then(Value::as_str) == Some(expected)
    })
}

/// Whether a token that need not say what it is has the marks of an ID token (OpenID Connect Core §2, §3.1.3.6): what
/// proves a sign-in to us opens nothing (RFC 8725 §2.8).
fn is_of_a_sign_in(token: &Verified<'_>, client_id: &str) -> bool {
    let claims: Value = serde_json::from_slice(token.payload()).unwrap_or_default();
    let has = |name| claims.get(name).is_some_and(|value| !value.is_null());
    let is_for_client = match claims.get("aud") {
        Some(Value::String(name)) => name == client_id,
        Some(Value::Array(names)) => names.iter().any(|name| name == client_id),
        _ => false,
    };
    has("nonce") || has("at_hash") || is_for_client
}

fn rules(settings: &Settings) -> Result<Rules, claims::NotAPointer> {
    let roles = match (settings.roles_source, &settings.groups_claim) {
        (RolesSource::Token, Some(claim)) => {
            Some(RolesClaim { claim: claim.parse()?, map: settings.role_map.clone() })
        }
        (RolesSource::Token, None) | (RolesSource::Record, _) => None,
    };
    Ok(Rules {
        audiences: settings.audiences.clone(),
        subject_claim: settings.subject_claim.parse()?,
        access_tokens_only: settings.access_tokens_only,
        roles,
        ..Rules::new(settings.issuer.clone())
    })
}

fn claimed_tenant(token: &Parsed<'_>) -> Option<TenantId> {
    token.claimed_tenant()?.parse().ok()
}

fn away(error: Error) -> Reply {
    error!(error = %chain(&error), "the principal cannot be looked up");
    Reply::new(Reason::IdentityUnavailable)
}

#[cfg(test)]
mod tests;
