//! Who calls and whether it may: verifies the bearer token with our own keys, takes the principal from the record,
//! and applies the role matrix. Headers that the gateway set are not looked at (design §3.2: the context alone
//! opens nothing here).
//! Knows no operation.

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use gatehouse_authn::{Algorithm, Portable, Refusal, bearer, claims, jws};
use gatehouse_contract::{
    Reason, TenantId, TenantStatus, header as names, rbac::Access, sidecar::PrincipalFacts,
};
use gatehouse_service::{Reply, RequestId, exit::chain};
use gatehouse_store::OpCtx;
use tracing::{Span, error, info};
use uuid::Uuid;

use crate::{clock, routes::Api};

/// Most characters of a reason.
const MAX_REASON_CHARS: usize = 500;

/// A verified caller whose roles, or platform membership, allow this route.
#[derive(Debug, Clone)]
pub struct Caller {
    pub tenant: TenantId,
    pub subject: String,
    /// Whether it holds the platform membership.
    pub platform: bool,
    /// Whether the roles alone allow this route, within the caller's own tenant.
    by_role: bool,
    /// Why it acts for others.
    reason: Option<String>,
    request_id: String,
}

/// Which door leads to a tenant.
pub enum Door {
    /// The caller's own tenant.
    Own,
    /// Another tenant, by the platform membership and for this reason.
    Platform(String),
}

/// Stands before every route but the public ones.
pub async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match check(&api, &parts).await {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(reply) => reply.into_response(),
    }
}

async fn check(api: &Api, parts: &Parts) -> Result<Caller, Reply> {
    let claims = verify(api, &parts.headers).await?;
    Span::current().record("tenant.id", tracing::field::display(claims.tenant));
    let facts = principal(api, claims.tenant, &claims.subject).await?;
    let access = access(api, &parts.method, parts.extensions.get());
    if !access.is_some_and(|access| access.allows(facts.roles, facts.platform)) {
        return Err(Reason::PermissionDenied.into());
    }
    let request_id = parts
        .extensions
        .get()
        .map_or_else(|| RequestId::of(&parts.headers).to_string(), |id: &RequestId| id.to_string());
    Ok(Caller {
        tenant: claims.tenant,
        subject: claims.subject,
        platform: facts.platform,
        by_role: access.is_some_and(|access| access.allows(facts.roles, false)),
        reason: reason(&parts.headers)?,
        request_id,
    })
}

/// The matrix knows routes by their template; what it does not list is denied.
fn access<'a>(api: &'a Api, method: &Method, matched: Option<&MatchedPath>) -> Option<&'a Access> {
    // The framework answers HEAD by a route's GET.
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let template = matched?.as_str();
    let mut routes = api.matrix.routes().iter();
    let found =
        routes.find(|route| route.method == method.as_str() && route.template == template)?;
    Some(&found.access)
}

async fn verify(api: &Api, headers: &HeaderMap) -> Result<claims::Claims, Reply> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (Some(value), None) => value,
        (None, _) => return Err(challenge(Reason::CredentialMissing, None)),
        (Some(_), Some(_)) => return Err(Reason::CredentialMalformed.into()),
    };
    let refused = |refusal: Refusal| {
        info!(refusal = refusal.word(), "token refused");
        challenge(refusal.reason(), refusal.challenge())
    };
    let token = bearer::token(value.as_bytes()).map_err(refused)?;
    let token = token.ok_or_else(|| challenge(Reason::CredentialMissing, None))?;
    let parsed = jws::parse(token).map_err(refused)?;
    let away = |error: crate::keyring::Error| {
        error!(error = %chain(&error), "the signing keys cannot be had");
        Reply::new(Reason::IdentityUnavailable)
    };
    let mut keys = api.keyring.keys().await.map_err(away)?;
    if parsed.header().key_id.as_deref().is_some_and(|kid| !keys.set.has(kid)) {
        keys = api.keyring.look_again().await.map_err(away)?;
    }
    let verified =
        jws::verify_with(&parsed, &keys.set, &[Algorithm::Rs256], &Portable).map_err(refused)?;
    claims::judge(&verified, &api.rules, clock::since_epoch(clock::now())).map_err(refused)
}

/// What the record says; a subject that it does not know in this tenant has nothing to say here.
async fn principal(api: &Api, tenant: TenantId, subject: &str) -> Result<PrincipalFacts, Reply> {
    let unknown = || Reply::new(Reason::TenantInvalid);
    let subject: Uuid = subject.parse().map_err(|_| unknown())?;
    let facts = api.store.lookup().principal(tenant, subject).await;
    let facts = facts.map_err(|error| {
        error!(error = %chain(&error), "the principal cannot be looked up");
        Reply::new(Reason::IdentityUnavailable)
    })?;
    let facts = facts.ok_or_else(unknown)?;
    match facts.status {
        TenantStatus::Active => Ok(facts),
        TenantStatus::Provisioning | TenantStatus::Suspended | TenantStatus::Deleting => {
            Err(Reason::TenantInactive.into())
        }
    }
}

/// RFC 6750 §3.
fn challenge(reason: Reason, error: Option<&'static str>) -> Reply {
    let reply = Reply::new(reason);
    if reason.status() != 401 {
        return reply;
    }
    let value = match error {
        Some("invalid_token") => r#"Bearer realm="gatehouse", error="invalid_token""#,
        _ => r#"Bearer realm="gatehouse""#,
    };
    reply.header(header::WWW_AUTHENTICATE, HeaderValue::from_static(value))
}

fn reason(headers: &HeaderMap) -> Result<Option<String>, Reply> {
    let mut values = headers.get_all(HeaderName::from_static(names::IMPERSONATION_REASON)).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(Reason::HeaderInvalid.into()),
    };
    let text = value.to_str().map(str::trim).unwrap_or_default();
    if text.is_empty() || text.chars().count() > MAX_REASON_CHARS {
        return Err(Reply::new(Reason::HeaderInvalid)
            .detail("X-Gatehouse-Reason has 1 to 500 visible ASCII characters"));
    }
    Ok(Some(text.to_owned()))
}

impl Caller {
    /// The circumstances of what it does.
    pub fn op(&self) -> OpCtx {
        OpCtx {
            tenant: self.tenant,
            subject: self.subject.clone(),
            request_id: self.request_id.clone(),
            now: clock::now(),
        }
    }

    /// Its reason, or `default` where the operation says enough.
    pub fn reason_or(&self, default: &str) -> String {
        self.reason.clone().unwrap_or_else(|| default.to_owned())
    }

    /// Which door leads it to `target`. Another tenant's is the same 404 as a missing one.
    pub fn door_to(&self, target: TenantId) -> Result<Door, Reply> {
        if self.by_role && target == self.tenant {
            return Ok(Door::Own);
        }
        if !self.platform {
            return Err(Reason::NotFound.into());
        }
        match &self.reason {
            Some(reason) => Ok(Door::Platform(reason.clone())),
            None => Err(Reply::new(Reason::HeaderInvalid)
                .detail("say why in X-Gatehouse-Reason: acting for another tenant is audited")),
        }
    }
}

/// There is one behind [`guard`] and nowhere else.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Reply;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Reply> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Reason::PermissionDenied.into())
    }
}
