//! What a request shows to say who calls: exactly one credential, else 400.
//! Knows nothing of whether it is worth anything.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use gatehouse_authn::{Refusal, bearer};
use gatehouse_contract::{Reason, header as names};
use gatehouse_service::Reply;
use tracing::info;

use crate::session;

/// A credential as it was presented.
pub enum Credential<'h> {
    /// A token (RFC 6750).
    Bearer(&'h [u8]),
    /// An API key.
    ApiKey(&'h str),
    /// A browser session's cookie.
    Session(&'h str),
}

/// The one credential of a request.
///
/// # Errors
/// 401 where there is none, 400 where there is more than one.
pub fn of(headers: &HeaderMap) -> Result<Credential<'_>, Reply> {
    let bearer = match single(headers, &header::AUTHORIZATION)? {
        Some(value) => bearer::token(value.as_bytes()).map_err(refused)?,
        None => None,
    };
    let key = single(headers, &HeaderName::from_static(names::API_KEY))?;
    let session = session::cookie(headers, session::COOKIE)?;
    match (bearer, key, session) {
        (Some(token), None, None) => Ok(Credential::Bearer(token)),
        // What is no text is no key.
        (None, Some(value), None) => Ok(Credential::ApiKey(value.to_str().unwrap_or_default())),
        (None, None, Some(value)) => Ok(Credential::Session(value)),
        (None, None, None) => Err(challenge(Reason::CredentialMissing, None)),
        _ => Err(Reply::new(Reason::CredentialMalformed)
            .detail("show one credential: a bearer token, an API key or a session")),
    }
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, Reply> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Reason::CredentialMalformed.into()),
    }
}

/// A token that was refused.
pub fn refused(refusal: Refusal) -> Reply {
    info!(refusal = refusal.word(), "token refused");
    challenge(refusal.reason(), refusal.challenge())
}

/// A credential that is in order and worth nothing.
pub fn worthless() -> Reply {
    challenge(Reason::TokenInvalid, Some("invalid_token"))
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
