//! Who calls and whether it may: one credential, a bearer token that our own keys verify or an API key; the principal
//! from the record; the role matrix. Headers that the gateway set are not looked at (design §3.2: the context alone
//! opens nothing here).
//! Knows no operation.

pub mod credential;

use axum::{
    extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State},
    http::{HeaderMap, HeaderName, Method, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use gatehouse_authn::{
    Algorithm, Claims, Portable, Refusal, claims,
    jws::{self, Parsed},
    revocation,
};
use gatehouse_contract::{
    Reason, Role, Roles, TenantId, TenantStatus, header as names, rbac::Access,
};
use gatehouse_service::{Reply, RequestId, Trace, exit::chain};
use gatehouse_store::{Actor, OpCtx};
use tracing::{Span, error};

use self::credential::{Credential, refused};
use crate::{
    clock, federation,
    principal::{self, Token, Verdict},
    routes::Api,
    session,
};

/// Most characters of a reason.
const MAX_REASON_CHARS: usize = 500;

/// A verified caller whose roles, or platform membership, allow this route.
#[derive(Debug, Clone)]
pub struct Caller {
    pub tenant: TenantId,
    pub subject: String,
    /// What kind of one that is, for the audit.
    actor: Actor,
    /// Whether it holds the platform membership.
    pub platform: bool,
    /// What it may do in its own tenant.
    pub roles: Roles,
    /// Whether it showed an API key.
    pub is_key: bool,
    /// Whether the roles alone allow this route, within the caller's own tenant.
    by_role: bool,
    /// Why it acts for others.
    reason: Option<String>,
    request_id: String,
    trace: Trace,
}

/// Which door leads to a tenant.
#[derive(Debug, Clone)]
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

/// Stands behind the guard where a tenant is in the path: whose it is not learns nothing of what a request should be.
pub async fn tenant_in_path(
    params: RawPathParams,
    caller: Caller,
    request: Request,
    next: Next,
) -> Response {
    let named = params.iter().find(|(name, _)| *name == "tenant");
    let tenant = named.and_then(|(_, value)| value.parse().ok());
    if tenant.is_some_and(|tenant| caller.sees(tenant)) {
        return next.run(request).await;
    }
    Reply::new(Reason::NotFound).into_response()
}

/// Whether the caller of a request that goes on for long may still do what it does.
pub async fn still(api: &Api, parts: &Parts) -> Result<(), Reply> {
    check(api, parts).await.map(drop)
}

async fn check(api: &Api, parts: &Parts) -> Result<Caller, Reply> {
    let shown = credential::of(&parts.headers)?;
    let (actor, verdict) = match shown {
        Credential::Bearer(token) => by_token(api, token).await?,
        Credential::ApiKey(key) => {
            (Actor::ApiKey, principal::remembered_api_key(api, key, away).await?)
        }
        Credential::Session(value) => {
            let sign_in = api.sign_in.as_ref().ok_or_else(credential::worthless)?;
            session::of_our_pages(sign_in, &parts.method, &parts.headers)?;
            (Actor::User, session::used(api, value).await.map_err(away)?)
        }
    };
    let facts = match verdict {
        Verdict::Known(facts) => facts,
        Verdict::Worthless => return Err(credential::worthless()),
        // A subject that the record does not know in this tenant has nothing to say here.
        Verdict::Stranger => return Err(Reason::TenantInvalid.into()),
    };
    Span::current().record("tenant.id", tracing::field::display(facts.tenant));
    match facts.status {
        TenantStatus::Active => {}
        TenantStatus::Provisioning | TenantStatus::Suspended | TenantStatus::Deleting => {
            return Err(Reason::TenantInactive.into());
        }
    }
    if facts.suspended {
        return Err(Reason::PrincipalInactive.into());
    }
    let access = access(api, &parts.method, parts.extensions.get());
    let within_scope = access.is_some_and(|access| in_scope(access, facts.scopes.as_deref()));
    if !within_scope || !access.is_some_and(|access| access.allows(facts.roles, facts.platform)) {
        return Err(Reason::PermissionDenied.into());
    }
    let request_id = parts
        .extensions
        .get()
        .map_or_else(|| RequestId::of(&parts.headers).to_string(), |id: &RequestId| id.to_string());
    let trace = parts.extensions.get().cloned().unwrap_or_else(|| Trace::of(&parts.headers));
    Ok(Caller {
        tenant: facts.tenant,
        platform: facts.platform,
        roles: facts.roles,
        is_key: matches!(shown, Credential::ApiKey(_)),
        by_role: access.is_some_and(|access| access.allows(facts.roles, false)),
        reason: reason(&parts.headers)?,
        request_id,
        trace,
        subject: facts.subject,
        actor,
    })
}

/// A key's scopes narrow what its roles hold.
fn in_scope(access: &Access, scopes: Option<&[String]>) -> bool {
    match (access, scopes) {
        (Access::Public, _) | (_, None) => true,
        (Access::Held { permission, .. }, Some(scopes)) => scopes.contains(permission),
    }
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

/// What a token of our own says, if it is good; the reply is for keys that cannot be had.
pub async fn read_token(api: &Api, token: &[u8]) -> Result<Option<Claims>, Reply> {
    match jws::parse(token) {
        Ok(parsed) => Ok(judge(api, &parsed).await?.ok()),
        Err(_) => Ok(None),
    }
}

/// Our own tokens are for clients alone (client credentials); people come from elsewhere.
async fn by_token(api: &Api, token: &[u8]) -> Result<(Actor, Verdict), Reply> {
    let parsed = jws::parse(token).map_err(refused)?;
    if parsed.claimed_issuer().is_some_and(|issuer| issuer != api.tokens.issuer) {
        return Ok((Actor::User, federation::token::verdict(api, &parsed).await?));
    }
    let claims = judge(api, &parsed).await?.map_err(refused)?;
    let mark = claims.token_id.as_deref().map(|id| revocation::mark(&claims.issuer, id));
    let token = Token {
        tenant: claims.tenant,
        subject: &claims.subject,
        mark: mark.as_deref(),
        issued_at_s: claims.issued_at.map(|at| at.as_secs()),
    };
    Ok((Actor::Client, principal::remembered_own_token(api, token, away).await?))
}

async fn judge(api: &Api, parsed: &Parsed<'_>) -> Result<Result<Claims, Refusal>, Reply> {
    let away = |error: crate::keyring::Error| {
        error!(error = %chain(&error), "the signing keys cannot be had");
        Reply::new(Reason::IdentityUnavailable)
    };
    let mut keys = api.keyring.keys().await.map_err(away)?;
    if parsed.header().key_id.as_deref().is_some_and(|kid| !keys.set.has(kid)) {
        keys = api.keyring.look_again().await.map_err(away)?;
    }
    let verified = jws::verify_with(parsed, &keys.set, &[Algorithm::Rs256], &Portable);
    let now = clock::since_epoch(clock::now());
    Ok(verified.and_then(|verified| claims::judge(&verified, &api.rules, now)))
}

fn away(error: gatehouse_store::Error) -> Reply {
    error!(error = %chain(&error), "the principal cannot be looked up");
    Reply::new(Reason::IdentityUnavailable)
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
            actor: self.actor,
            request_id: self.request_id.clone(),
            traceparent: Some(self.trace.as_str().to_owned()),
            now: clock::now(),
        }
    }

    /// Its reason, or `default` where the operation says enough.
    pub fn reason_or(&self, default: &str) -> String {
        self.reason.clone().unwrap_or_else(|| default.to_owned())
    }

    /// Whether it may give this role to others: nobody grants what is above their own.
    pub fn may_grant(&self, role: Role) -> bool {
        self.platform || self.roles.iter().last().is_some_and(|highest| role <= highest)
    }

    /// Whether `target` exists for it: another tenant's is the same 404 as a missing one.
    pub fn sees(&self, target: TenantId) -> bool {
        self.platform || (self.by_role && target == self.tenant)
    }

    /// Which door leads it to `target`. Another tenant's is the same 404 as a missing one.
    pub fn door_to(&self, target: TenantId) -> Result<Door, Reply> {
        if self.by_role && target == self.tenant {
            return Ok(Door::Own);
        }
        if !self.sees(target) {
            return Err(Reason::NotFound.into());
        }
        self.platform_reason().map(Door::Platform)
    }

    /// Why it acts for another tenant; without a reason it does not.
    pub fn platform_reason(&self) -> Result<String, Reply> {
        self.reason.clone().ok_or_else(|| {
            Reply::new(Reason::HeaderInvalid)
                .detail("say why in X-Gatehouse-Reason: acting for another tenant is audited")
        })
    }
}

/// There is one behind [`guard`] and nowhere else.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Reply;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Reply> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Reason::PermissionDenied.into())
    }
}
