//! Browser sessions: the cookie, whom it stands for, and that an unsafe request comes from our own pages.
//! Knows nothing of how a session came to be.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use gatehouse_contract::{Reason, sidecar::PrincipalFacts};
use gatehouse_service::{Reply, exit::chain};
use gatehouse_store::{Actor, Error, OffsetDateTime, OpCtx, sessions::Session};
use time::Duration;
use tracing::warn;

use crate::{clock, oidc::SignIn, principal::Verdict, random, routes::Api};

/// The session's cookie. The prefix makes a browser refuse it without Secure, with a Domain or under another path, so
/// that no neighbouring host can set it (RFC 6265bis §4.1.3.2).
pub const COOKIE: &str = "__Host-gatehouse";

/// 256 bits as base64url.
const SECRET_CHARS: usize = 43;
/// A session's end is put off at most this often: not every request is a write.
const TOUCH_AFTER: Duration = Duration::seconds(60);

/// The one value of the cookie `name`.
///
/// # Errors
/// 400 where it stands twice: which one counts would be a guess (RFC 6265 §4.2.2).
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Reply> {
    let mut found = None;
    // Bytes that are no text belong to somebody else's cookie.
    let lists = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    for pair in lists.flat_map(|list| list.split(';')) {
        let Some((known, value)) = pair.trim_matches([' ', '\t']).split_once('=') else { continue };
        if known == name && found.replace(value).is_some() {
            return Err(Reply::new(Reason::CredentialMalformed)
                .detail(format!("the cookie {name} stands twice")));
        }
    }
    Ok(found)
}

/// The cookie's value as a `Set-Cookie` for `max_age` seconds; 0 removes it.
pub fn set_cookie(name: &str, value: &str, max_age_s: u64) -> Result<HeaderValue, Reply> {
    let text =
        format!("{name}={value}; Path=/; Max-Age={max_age_s}; Secure; HttpOnly; SameSite=Lax");
    HeaderValue::from_str(&text).map_err(|_| Reason::Internal.into())
}

/// What is stored of a cookie's value; `None` for what cannot be one.
pub fn hash(value: &str) -> Option<[u8; 32]> {
    let sound = value.len() == SECRET_CHARS && URL_SAFE_NO_PAD.decode(value).is_ok();
    sound.then(|| random::sha256(value.as_bytes()))
}

/// Whom a session stands for. Its issuer bounds its roles, and no provider gives the platform membership.
pub async fn verdict(api: &Api, value: &str) -> Result<Verdict, Error> {
    match find(api, value).await? {
        Some(session) => of(api, &session).await,
        None => Ok(Verdict::Worthless),
    }
}

/// As [`verdict`], for a request to this service: it counts as use and puts the session's end off.
pub async fn used(api: &Api, value: &str) -> Result<Verdict, Error> {
    let Some(session) = find(api, value).await? else { return Ok(Verdict::Worthless) };
    let verdict = of(api, &session).await?;
    let now = clock::now();
    if now - session.last_seen_at > TOUCH_AFTER
        && let Err(error) = touch(api, &session, now).await
    {
        warn!(error = %chain(&error), "a session's end could not be put off");
    }
    Ok(verdict)
}

/// The session with this secret, while it lives.
pub async fn find(api: &Api, value: &str) -> Result<Option<Session>, Error> {
    match (&api.sign_in, hash(value)) {
        (Some(_), Some(hash)) => api.store.lookup().session(hash).await,
        (None, _) | (_, None) => Ok(None),
    }
}

async fn of(api: &Api, session: &Session) -> Result<Verdict, Error> {
    let user = session.user.as_uuid();
    let Some(facts) = api.store.lookup().principal(session.tenant, user).await? else {
        return Ok(Verdict::Worthless);
    };
    Ok(Verdict::Known(Box::new(PrincipalFacts {
        roles: facts.roles.up_to(session.max_role),
        platform: false,
        credential: Some(session.id.to_string()),
        expires_at_s: Some(clock::since_epoch(session.ends_at).as_secs()),
        ..facts
    })))
}

async fn touch(api: &Api, session: &Session, now: OffsetDateTime) -> Result<(), Error> {
    let op = OpCtx {
        tenant: session.tenant,
        subject: session.user.to_string(),
        actor: Actor::User,
        request_id: "session".to_owned(),
        traceparent: None,
        now,
    };
    let mut tx = api.store.tenant(&op).await?;
    tx.within().touch_session(session.id).await?;
    tx.commit().await
}

/// A session goes with every request that a browser makes to us, whoever wrote the page: what changes something must
/// come from our own pages (design §3.1).
///
/// # Errors
/// 403 where `Origin` is not ours.
pub fn of_our_pages(sign_in: &SignIn, method: &Method, headers: &HeaderMap) -> Result<(), Reply> {
    if method.is_safe() {
        return Ok(());
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (Some(origin), None) if origin.as_bytes() == sign_in.public_origin.as_bytes() => Ok(()),
        _ => Err(Reply::new(Reason::PermissionDenied)
            .detail("with a session, a request that changes something names our own Origin")),
    }
}

/// For answers that set cookies or depend on them.
pub const NO_STORE: (HeaderName, HeaderValue) =
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lists: &[&str], expected: Result<Option<&str>, u16>) {
        let mut headers = HeaderMap::new();
        for list in lists {
            headers.append(header::COOKIE, HeaderValue::from_str(list).unwrap());
        }
        let got = cookie(&headers, COOKIE).map_err(|reply| reply.problem().status);
        assert_eq!(got, expected, "{lists:?}");
    }

    #[test]
    fn the_cookie_is_found_by_its_exact_name_and_once() {
        check(&[], Ok(None));
        check(&["a=b"], Ok(None));
        check(&["a=b; __Host-gatehouse=x=y; c"], Ok(Some("x=y")));
        check(&["a=b", "__Host-gatehouse=x"], Ok(Some("x")));
        check(&["__Host-gatehouse="], Ok(Some("")));
        check(&["__host-gatehouse=x; __Host-gatehouse2=y; x__Host-gatehouse=z"], Ok(None));
        check(&["__Host-gatehouse=x; __Host-gatehouse=x"], Err(400));
        check(&["__Host-gatehouse=x", "__Host-gatehouse=y"], Err(400));
        check(&[";;=;__Host-gatehouse"], Ok(None));
    }

    #[test]
    fn what_is_no_secret_is_not_even_looked_up() {
        assert!(hash(&"A".repeat(43)).is_some());
        for bad in
            ["", &"A".repeat(42), &"A".repeat(44), &"=".repeat(43), &format!("{}B", "A".repeat(42))]
        {
            assert!(hash(bad).is_none(), "{bad}");
        }
    }
}
