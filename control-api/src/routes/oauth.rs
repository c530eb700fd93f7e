//! Tokens for clients (RFC 6749 §4.4), the keys that verify them, and their rotation.

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use gatehouse_contract::{ClientId, Reason, TenantStatus};
use gatehouse_service::{Reply, app::Verbatim, body, exit::chain};
use serde_json::{Value, json};
use tracing::{Span, error, info};

use crate::{
    access::Caller,
    clock, keyring, random,
    routes::{Api, refused, timestamp},
    token::Grant,
};

/// The longest and the shortest time for which verifiers may keep the key set.
const JWKS_MAX_AGE_S: u64 = 60;
const JWKS_MIN_AGE_S: u64 = 5;

/// A refusal of the token endpoint (RFC 6749 §5.2): its own JSON, not a problem.
enum TokenError {
    InvalidRequest(&'static str),
    InvalidClient,
    UnauthorizedClient,
    UnsupportedGrantType,
    InvalidScope,
}

impl TokenError {
    const fn parts(&self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::InvalidRequest(why) => ("invalid_request", Some(why)),
            Self::InvalidClient => ("invalid_client", None),
            Self::UnauthorizedClient => {
                ("unauthorized_client", Some("the client or its tenant is not active"))
            }
            Self::UnsupportedGrantType => {
                ("unsupported_grant_type", Some("use client_credentials"))
            }
            Self::InvalidScope => ("invalid_scope", Some("tokens have no scopes")),
        }
    }
}

impl IntoResponse for TokenError {
    fn into_response(self) -> Response {
        let (error, description) = self.parts();
        info!(oauth.error = error, "no token issued");
        let mut body = json!({"error": error});
        if let (Some(text), Some(members)) = (description, body.as_object_mut()) {
            members.insert("error_description".to_owned(), text.into());
        }
        let status = match self {
            Self::InvalidClient => StatusCode::UNAUTHORIZED,
            _ => StatusCode::BAD_REQUEST,
        };
        let mut response = (status, Extension(Verbatim), Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            let basic = HeaderValue::from_static(r#"Basic realm="gatehouse", charset="UTF-8""#);
            headers.insert(header::WWW_AUTHENTICATE, basic);
        }
        response
    }
}

/// `POST /oauth2/token`.
pub async fn token(State(api): State<Api>, request: Request) -> Result<Response, Reply> {
    let headers = request.headers().clone();
    if body::media_type(&headers).as_deref() != Some("application/x-www-form-urlencoded") {
        return Err(Reply::new(Reason::MediaTypeUnsupported)
            .detail("send the body as application/x-www-form-urlencoded"));
    }
    let body = body::bytes(request, &()).await?;
    let ask = match read(&headers, &body) {
        Ok(ask) => ask,
        Err(error) => return Ok(error.into_response()),
    };
    let client = match ask.id.parse::<ClientId>() {
        Ok(id) => api.store.lookup().oauth_client(id).await.map_err(refused)?.map(|row| (id, row)),
        Err(_) => None,
    };
    // An unknown client costs a comparison, too.
    let stored = client.as_ref().map_or([0; 32], |(_, row)| row.secret_sha256);
    let known = random::is_secret(&ask.secret, &stored);
    let (Some((id, row)), true) = (client, known) else {
        return Ok(TokenError::InvalidClient.into_response());
    };
    Span::current().record("tenant.id", tracing::field::display(row.tenant));
    if row.status != TenantStatus::Active || row.suspended {
        return Ok(TokenError::UnauthorizedClient.into_response());
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

struct Ask {
    id: String,
    secret: Vec<u8>,
}

/// Reads the form and the client's credentials: from the header or from the form, never from both (RFC 6749 §2.3).
fn read(headers: &HeaderMap, body: &Bytes) -> Result<Ask, TokenError> {
    let (mut grant, mut id, mut secret, mut scope) = (None, None, None, None);
    for (name, value) in form_urlencoded::parse(body) {
        let slot = match name.as_ref() {
            "grant_type" => &mut grant,
            "client_id" => &mut id,
            "client_secret" => &mut secret,
            "scope" => &mut scope,
            // RFC 6749 §3.2: parameters that we do not know are ignored.
            _ => continue,
        };
        if slot.replace(value.into_owned()).is_some() {
            return Err(TokenError::InvalidRequest("a parameter stands twice"));
        }
    }
    let mut credentials = headers.get_all(header::AUTHORIZATION).iter();
    let basic = match (credentials.next(), credentials.next()) {
        (None, _) => None,
        (Some(value), None) => Some(basic(value).ok_or(TokenError::InvalidClient)?),
        (Some(_), Some(_)) => {
            return Err(TokenError::InvalidRequest("Authorization stands twice"));
        }
    };
    let ask = match (basic, id, secret) {
        (Some(_), _, Some(_)) => {
            return Err(TokenError::InvalidRequest("two ways of client authentication"));
        }
        (Some((id, _)), Some(other), None) if id != other => {
            return Err(TokenError::InvalidRequest("two client ids"));
        }
        (Some((id, secret)), _, None) => Ask { id, secret: secret.into_bytes() },
        (None, Some(id), Some(secret)) => Ask { id, secret: secret.into_bytes() },
        (None, ..) => return Err(TokenError::InvalidClient),
    };
    match grant.as_deref() {
        Some("client_credentials") => {}
        Some(_) => return Err(TokenError::UnsupportedGrantType),
        None => return Err(TokenError::InvalidRequest("grant_type is missing")),
    }
    // An answer without `scope` means that all of what was asked for is granted (RFC 6749 §5.1).
    if scope.is_some_and(|scope| !scope.is_empty()) {
        return Err(TokenError::InvalidScope);
    }
    Ok(ask)
}

/// RFC 6749 §2.3.1: both parts are form-encoded before they are joined.
fn basic(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let joined = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (id, secret) = joined.split_once(':')?;
    let plain = |text: &str| {
        // `text=` makes the whole text one name, decoded as a form's.
        form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned())
    };
    Some((plain(id)?, plain(secret)?))
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
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
    });
    ([(header::CACHE_CONTROL, "public, max-age=3600")], Json(document)).into_response()
}

/// `POST /api/v1/factory/signing-keys`.
pub async fn rotate(State(api): State<Api>, caller: Caller) -> Result<Response, Reply> {
    let reason = caller.reason_or("rotation of the signing key");
    let (kid, signs_from) = match api.keyring.rotate(&caller.op(), &reason, api.tokens.ttl).await {
        Ok(kid) => kid,
        Err(keyring::Error::Store(error)) => return Err(refused(error)),
        Err(error) => return Err(away(error)),
    };
    let answer = json!({"kid": kid, "signs_from": timestamp(signs_from)});
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

fn away(error: keyring::Error) -> Reply {
    error!(error = %chain(&error), "the signing keys cannot be had");
    Reason::DependencyUnavailable.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(authorization: &[&str], body: &str, expected: Result<(&str, &str), &str>) {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        let got = read(&headers, &Bytes::from(body.to_owned()));
        let got = got.map(|ask| (ask.id, String::from_utf8(ask.secret).unwrap()));
        let got = got.map_err(|error| error.parts().0);
        let expected = expected.map(|(id, secret)| (id.to_owned(), secret.to_owned()));
        assert_eq!(got, expected, "{authorization:?} {body}");
    }

    fn basic_of(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn credentials_come_from_the_header_or_the_form_and_never_from_both() {
        let grant = "grant_type=client_credentials";
        let header = basic_of("a:b");
        check(&[&header], grant, Ok(("a", "b")));
        check(&[&basic_of("a%3A:b%25+c")], grant, Ok(("a:", "b% c")));
        check(&[&header], &format!("{grant}&client_id=a"), Ok(("a", "b")));
        check(&[], &format!("{grant}&client_id=a&client_secret=b"), Ok(("a", "b")));
        let both = format!("{grant}&client_secret=b");
        check(&[&header], &both, Err("invalid_request"));
        check(&[&header], &format!("{grant}&client_id=x"), Err("invalid_request"));
        check(&[&header, &header], grant, Err("invalid_request"));
        check(&[], grant, Err("invalid_client"));
        check(&[], &format!("{grant}&client_id=a"), Err("invalid_client"));
        for bad in ["Bearer x", "Basic !", "Basic", &basic_of("no colon")] {
            check(&[bad], grant, Err("invalid_client"));
        }
    }

    #[test]
    fn the_grant_and_the_form_are_checked() {
        let header = basic_of("a:b");
        check(&[&header], "", Err("invalid_request"));
        check(&[&header], "grant_type=password", Err("unsupported_grant_type"));
        let twice = "grant_type=client_credentials&grant_type=client_credentials";
        check(&[&header], twice, Err("invalid_request"));
        let scope = "grant_type=client_credentials&scope=";
        check(&[&header], scope, Ok(("a", "b")));
        check(&[&header], &format!("{scope}x"), Err("invalid_scope"));
        check(&[&header], "grant_type=client_credentials&resource=x", Ok(("a", "b")));
    }
}
