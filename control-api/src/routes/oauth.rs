//! Tokens for clients (RFC 6749 §4.4) and their end (RFC 7009), the keys that verify them, and their rotation.

mod client;

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use gatehouse_authn::{claims::MAX_LEEWAY, revocation};
use gatehouse_contract::{Reason, TenantStatus};
use gatehouse_service::{Reply, RequestId, exit::chain};
use gatehouse_store::{Actor, OffsetDateTime, OpCtx};
use serde_json::{Value, json};
use tracing::{error, info};

use self::client::{Form, OauthError};
use crate::{
    access::{self, Caller},
    clock, keyring,
    once::Once,
    random,
    routes::{Api, door, refused, timestamp},
    token::Grant,
};

/// The longest and the shortest time for which verifiers may keep the key set.
const JWKS_MAX_AGE_S: u64 = 60;
const JWKS_MIN_AGE_S: u64 = 5;

/// `POST /oauth2/token`.
pub async fn token(State(api): State<Api>, request: Request) -> Result<Response, Reply> {
    let (headers, form) = client::form(request).await?;
    let shown = match form.client(&headers).and_then(|shown| granted(&form).map(|()| shown)) {
        Ok(shown) => shown,
        Err(error) => return Ok(error.into_response()),
    };
    let Some((id, row)) = client::authenticate(&api, &shown).await? else {
        return Ok(OauthError::InvalidClient.into_response());
    };
    if row.status != TenantStatus::Active || row.suspended {
        let why = "the client or its tenant is not active";
        return Ok(OauthError::UnauthorizedClient(why).into_response());
    }
    let keys = api.keyring.keys().await.map_err(away)?;
    let grant = Grant {
        tenant: row.tenant,
        client: id,
        id: random::id(),
        now: clock::since_epoch(clock::now()),
    };
    let token = keys.signer.issue(&api.tokens, &grant).map_err(|_| {
        error!("signing failed");
        Reply::new(Reason::Internal)
    })?;
    info!(client.id = %id, token.id = %grant.id, "token issued");
    let answer = json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": api.tokens.ttl.as_secs(),
    });
    Ok(([(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")], Json(answer))
        .into_response())
}

/// Whether what is asked for is what we grant.
fn granted(form: &Form) -> Result<(), OauthError> {
    match form.field("grant_type")?.as_deref() {
        Some("client_credentials") => {}
        Some(_) => return Err(OauthError::UnsupportedGrantType),
        None => return Err(OauthError::InvalidRequest("grant_type is missing")),
    }
    // An answer without `scope` means that all of what was asked for is granted (RFC 6749 §5.1).
    if form.field("scope")?.is_some_and(|scope| !scope.is_empty()) {
        return Err(OauthError::InvalidScope);
    }
    Ok(())
}

/// `POST /oauth2/revoke` (RFC 7009): a client ends a token of its own. A token that is worth nothing is as good as
/// revoked.
pub async fn revoke(State(api): State<Api>, request: Request) -> Result<Response, Reply> {
    let request_id = request.extensions().get::<RequestId>().map(ToString::to_string);
    let (headers, form) = client::form(request).await?;
    let asked = form.client(&headers).and_then(|shown| {
        let token = form.field("token")?.ok_or(OauthError::InvalidRequest("token is missing"))?;
        Ok((shown, token))
    });
    let (shown, token) = match asked {
        Ok(asked) => asked,
        Err(error) => return Ok(error.into_response()),
    };
    // A client that was suspended may still end what it has.
    let Some((id, row)) = client::authenticate(&api, &shown).await? else {
        return Ok(OauthError::InvalidClient.into_response());
    };
    let done = || [(header::CACHE_CONTROL, "no-store")].into_response();
    let Some(claims) = access::read_token(&api, token.as_bytes()).await? else {
        return Ok(done());
    };
    if claims.tenant != row.tenant || claims.subject != id.to_string() {
        let why = "the token was issued to another client";
        return Ok(OauthError::UnauthorizedClient(why).into_response());
    }
    let (Some(token_id), now) = (claims.token_id, clock::now()) else { return Ok(done()) };
    let mark = revocation::mark(&claims.issuer, &token_id);
    let until = OffsetDateTime::UNIX_EPOCH + claims.expires_at + MAX_LEEWAY;
    let request_id = request_id.unwrap_or_default();
    let (subject, actor) = (id.to_string(), Actor::Client);
    let op = OpCtx { tenant: row.tenant, subject, actor, request_id, traceparent: None, now };
    let mut tx = api.store.tenant(&op).await.map_err(refused)?;
    tx.within().revoke_token(&mark, until).await.map_err(refused)?;
    tx.commit().await.map_err(refused)?;
    api.cache.forget_credential(&mark);
    info!(client.id = %id, token.id = token_id, "token revoked");
    Ok(done())
}

/// `GET /.well-known/jwks.json`.
pub async fn jwks(State(api): State<Api>) -> Result<Response, Reply> {
    // As fresh as can be: it is asked for when a key was published.
    let keys = api.keyring.look_again().await.map_err(away)?;
    let kind = HeaderValue::from_static("application/jwk-set+json");
    let mut response = Json(&keys.jwks).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    // Whoever keeps it that long still learns a new key before it signs.
    let age_s = (api.tokens.key_publish_ahead.as_secs() / 2).clamp(JWKS_MIN_AGE_S, JWKS_MAX_AGE_S);
    if let Ok(value) = HeaderValue::from_str(&format!("public, max-age={age_s}")) {
        response.headers_mut().insert(header::CACHE_CONTROL, value);
    }
    Ok(response)
}

/// `GET /.well-known/openid-configuration` (RFC 8414 §2).
pub async fn discovery(State(api): State<Api>) -> Response {
    let issuer = &api.tokens.issuer;
    let document: Value = json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/oauth2/token"),
        "revocation_endpoint": format!("{issuer}/oauth2/revoke"),
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
    });
    ([(header::CACHE_CONTROL, "public, max-age=3600")], Json(document)).into_response()
}

/// `POST /api/v1/factory/signing-keys`.
pub async fn rotate(State(api): State<Api>, caller: Caller, once: Once) -> Result<Response, Reply> {
    let reason = caller.reason_or("rotation of the signing key");
    let op = caller.op();
    // The keyring has a transaction of its own: only a crash between the two could lose the answer.
    let mut tx = door::own(&api, &op).await?;
    once.begin(&mut tx).await?;
    let (kid, signs_from) = match api.keyring.rotate(&op, &reason, api.tokens.ttl).await {
        Ok(kid) => kid,
        Err(keyring::Error::Store(error)) => return Err(refused(error)),
        Err(error) => return Err(away(error)),
    };
    let answer = json!({"kid": kid, "signs_from": timestamp(signs_from)});
    once.end(&api, tx, (StatusCode::CREATED, Json(answer)).into_response()).await
}

fn away(error: keyring::Error) -> Reply {
    error!(error = %chain(&error), "the signing keys cannot be had");
    Reason::DependencyUnavailable.into()
}
