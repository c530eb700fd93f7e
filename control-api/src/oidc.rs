//! Sign-in of humans through a registered issuer: authorization code with PKCE (OpenID Connect Core §3.1, RFC 7636,
//! RFC 9207, RFC 9700), and the session that comes of it. What travels through the provider is bound to the browser that
//! began: nobody can be signed in as somebody else by a link.
//! Knows nothing of roles and users but where to ask.

mod account;
pub mod config;
mod exchange;
mod query;

use std::net::SocketAddr;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use gatehouse_contract::{IssuerId, Reason};
use gatehouse_outbound::{Client, Guard};
use gatehouse_service::{Reply, RequestId};
use gatehouse_store::{
    Actor, OpCtx,
    issuers::Issuer,
    sessions::{Attempt, NewSession},
};
use time::Duration;
use tracing::{error, info, warn};

use self::query::Query;
use crate::{
    clock,
    federation::{provider::Providers, token::unavailable},
    random,
    routes::{Api, refused},
    session,
};

/// Binds a sign-in to the browser that began it.
const LOGIN_COOKIE: &str = "__Host-gatehouse-login";
/// How long a person may take at the provider.
const LOGIN_LIFE: Duration = Duration::minutes(10);
const LOGIN_LIFE_S: u64 = 600;
const CALLBACK: &str = "/oauth2/callback";
/// What we call ourselves to strangers.
pub const AGENT: &str = concat!("gatehouse/", env!("CARGO_PKG_VERSION"));

/// What sign-in works with.
pub struct SignIn {
    /// Scheme, host and port under which browsers reach us.
    pub public_origin: String,
    pub providers: Providers,
    /// For addresses that a tenant named.
    pub strict: Guard,
    /// For addresses that the platform named: with the operator's exceptions.
    pub named: Guard,
    idle: std::time::Duration,
    absolute: std::time::Duration,
}

impl SignIn {
    /// `own` are our internal listeners, which no provider's document may lead to.
    pub fn new(settings: config::Settings, own: Vec<SocketAddr>) -> Self {
        let config::Settings { public_origin, idle, absolute, allow, trust } = settings;
        for origin in &allow {
            warn!(%origin, "EXCEPTION: issuers that the platform registers may lead to this address, which need not be of the public internet");
        }
        Self {
            public_origin,
            providers: Providers::new(Client::new(trust, AGENT)),
            strict: Guard::new([], own.clone()),
            named: Guard::new(allow, own),
            idle,
            absolute,
        }
    }

    /// Which addresses may be asked for an issuer (design §3.3).
    pub const fn guard_for(&self, issuer: &Issuer) -> &Guard {
        if issuer.by_platform { &self.named } else { &self.strict }
    }

    fn redirect_uri(&self) -> String {
        format!("{}{CALLBACK}", self.public_origin)
    }
}

/// `GET /oauth2/login?issuer=ID&return_to=/path`: 303 to the provider.
pub async fn login(State(api): State<Api>, request: Parts) -> Result<Response, Reply> {
    let sign_in = api.sign_in.as_ref().ok_or(Reason::NotFound)?;
    let query = Query::read(request.uri.query())?;
    let id: IssuerId =
        query.get("issuer").and_then(|id| id.parse().ok()).ok_or(Reason::NotFound)?;
    let return_to = query.get("return_to").unwrap_or("/");
    if !is_local_path(return_to) {
        return Err(Reply::new(Reason::PathInvalid).detail("return_to is a path of this host"));
    }
    let issuer = usable(api.store.lookup().issuer(id).await.map_err(refused)?)?;
    let guard = sign_in.guard_for(&issuer);
    let discovery = sign_in.providers.discovery(&issuer, guard).await;
    let discovery = discovery.map_err(|error| unavailable(&issuer, &error))?;
    let [state, browser, nonce, verifier] = [secret()?, secret()?, secret()?, secret()?];
    let name = verifier_name(&state);
    let attempt = Attempt {
        state_sha256: random::sha256(state.as_bytes()),
        browser_sha256: random::sha256(browser.as_bytes()),
        issuer: id,
        nonce: nonce.clone(),
        sealed_verifier: api.sealer.seal(&name, verifier.as_bytes()).map_err(|_| internal())?,
        return_to: return_to.to_owned(),
        expires_at: clock::now() + LOGIN_LIFE,
    };
    let op = op(&issuer, &request);
    let mut tx = api.store.tenant(&op).await.map_err(refused)?;
    tx.within().begin_login(&attempt).await.map_err(refused)?;
    tx.commit().await.map_err(refused)?;
    let challenge = URL_SAFE_NO_PAD.encode(random::sha256(verifier.as_bytes()));
    let scope = issuer.settings.scopes.join(" ");
    let asked = form_urlencoded::Serializer::new(String::new())
        .append_pair("response_type", "code")
        .append_pair("client_id", &issuer.settings.client_id)
        .append_pair("redirect_uri", &sign_in.redirect_uri())
        .append_pair("scope", &scope)
        .append_pair("state", &state)
        .append_pair("nonce", &nonce)
        .append_pair("code_challenge", &challenge)
        .append_pair("code_challenge_method", "S256")
        .finish();
    let endpoint = &discovery.authorization_endpoint;
    // The endpoint may carry a query of its own (RFC 6749 §3.1), and it is where we send people: judged like any other.
    guard.check(endpoint).map_err(|refused| {
        unavailable(&issuer, &gatehouse_outbound::Error::from(refused).into())
    })?;
    let join = if endpoint.contains('?') { '&' } else { '?' };
    let cookie = session::set_cookie(LOGIN_COOKIE, &browser, LOGIN_LIFE_S)?;
    see_other(&format!("{endpoint}{join}{asked}"), [cookie])
}

/// `GET /oauth2/callback`: what the provider sends the browser back with.
pub async fn callback(State(api): State<Api>, request: Parts) -> Result<Response, Reply> {
    let sign_in = api.sign_in.as_ref().ok_or(Reason::NotFound)?;
    let query = Query::read(request.uri.query())?;
    let (state, attempt, op) = take(&api, &query, &request).await?;
    let issuer = usable(api.store.lookup().issuer(attempt.issuer).await.map_err(refused)?)?;
    let guard = sign_in.guard_for(&issuer);
    let discovery = sign_in.providers.discovery(&issuer, guard).await;
    let discovery = discovery.map_err(|error| unavailable(&issuer, &error))?;
    // RFC 9207 §2.4: an answer of another provider, mixed into this sign-in.
    match query.get("iss") {
        Some(iss) if iss == issuer.settings.issuer => {}
        None if !discovery.names_itself => {}
        _ => return Err(begin_again("the answer is not of the provider that was asked")),
    }
    if query.get("error").is_some() {
        info!(issuer.id = %issuer.id, "the provider refused a sign-in");
        return Err(Reply::new(Reason::PermissionDenied)
            .detail("the identity provider did not let you sign in"));
    }
    let code = query.get("code").ok_or_else(|| begin_again("the answer carries no code"))?;
    let verifier = api.sealer.open(&verifier_name(state), &attempt.sealed_verifier);
    let verifier = verifier.map_err(|_| internal())?;
    let code = exchange::Code {
        code,
        verifier: std::str::from_utf8(&verifier).map_err(|_| internal())?,
        nonce: &attempt.nonce,
        redirect_uri: &sign_in.redirect_uri(),
    };
    let said = exchange::redeem(&api, sign_in, &issuer, &discovery, &code).await?;
    let mut tx = api.store.tenant(&op).await.map_err(refused)?;
    tx.in_one_row();
    let user = account::settle(&mut tx, &issuer, &said).await?;
    // Another id after every sign-in: what somebody planted before is worth nothing.
    if let Some(before) = session::cookie(&request.headers, session::COOKIE)?
        && let Some(before) = session::find(&api, before).await.map_err(refused)?
        && before.tenant == issuer.tenant
    {
        tx.within().revoke_session(before.id).await.map_err(refused)?;
    }
    let cookie = secret()?;
    let new = NewSession {
        id: random::id(),
        secret_sha256: random::sha256(cookie.as_bytes()),
        user,
        issuer: issuer.id,
        idle: sign_in.idle,
        expires_at: clock::now() + sign_in.absolute,
    };
    tx.within().create_session(&new).await.map_err(refused)?;
    tx.commit().await.map_err(refused)?;
    info!(issuer.id = %issuer.id, user.id = %user, session.id = %new.id, "signed in");
    let cookies = [
        session::set_cookie(session::COOKIE, &cookie, sign_in.absolute.as_secs())?,
        session::set_cookie(LOGIN_COOKIE, "", 0)?,
    ];
    see_other(&attempt.return_to, cookies)
}

/// `POST /oauth2/logout`: ends the session. Twice is once.
pub async fn logout(State(api): State<Api>, request: Parts) -> Result<Response, Reply> {
    let sign_in = api.sign_in.as_ref().ok_or(Reason::NotFound)?;
    session::of_our_pages(sign_in, &request.method, &request.headers)?;
    let found = match session::cookie(&request.headers, session::COOKIE)? {
        Some(value) => session::find(&api, value).await.map_err(refused)?,
        None => None,
    };
    if let Some(found) = found {
        let op = OpCtx {
            tenant: found.tenant,
            subject: found.user.to_string(),
            actor: Actor::User,
            request_id: request_id(&request),
            traceparent: None,
            now: clock::now(),
        };
        let mut tx = api.store.tenant(&op).await.map_err(refused)?;
        tx.within().revoke_session(found.id).await.map_err(refused)?;
        tx.commit().await.map_err(refused)?;
    }
    let gone =
        [(header::SET_COOKIE, session::set_cookie(session::COOKIE, "", 0)?), session::NO_STORE];
    Ok((StatusCode::NO_CONTENT, gone).into_response())
}

/// The sign-in that this answer belongs to, taken for good; its state, and the circumstances of what follows.
async fn take<'q>(
    api: &Api,
    query: &'q Query,
    request: &Parts,
) -> Result<(&'q str, Attempt, OpCtx), Reply> {
    let unknown = || begin_again("this sign-in was not begun here, or it is too old or done");
    let state = query.get("state").ok_or_else(unknown)?;
    let browser = session::cookie(&request.headers, LOGIN_COOKIE)?.ok_or_else(unknown)?;
    let (state_hash, browser) =
        session::hash(state).zip(session::hash(browser)).ok_or_else(unknown)?;
    let tenant =
        api.store.lookup().login(state_hash).await.map_err(refused)?.ok_or_else(unknown)?;
    let op = OpCtx {
        tenant,
        subject: "sign-in".to_owned(),
        actor: Actor::System,
        request_id: request_id(request),
        traceparent: None,
        now: clock::now(),
    };
    let mut tx = api.store.tenant(&op).await.map_err(refused)?;
    let attempt = tx.within().take_login(state_hash, browser).await.map_err(refused)?;
    tx.commit().await.map_err(refused)?;
    Ok((state, attempt.ok_or_else(unknown)?, op))
}

fn usable(issuer: Option<Issuer>) -> Result<Issuer, Reply> {
    let usable = |issuer: &Issuer| issuer.settings.enabled && issuer.settings.allow_sign_in;
    issuer.filter(usable).ok_or_else(|| Reason::NotFound.into())
}

/// A path of our own origin, so that nobody is sent elsewhere (CWE-601): `//host` and `/\host` are other hosts to a
/// browser, which drops tabs and line ends before it reads.
fn is_local_path(path: &str) -> bool {
    path.len() <= 2048
        && path.starts_with('/')
        && !path.starts_with("//")
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
}

fn verifier_name(state: &str) -> String {
    format!("gatehouse/login/{state}")
}

/// 256 random bits as text.
fn secret() -> Result<String, Reply> {
    random::secret().map(|bytes| URL_SAFE_NO_PAD.encode(bytes)).map_err(|_| internal())
}

fn op(issuer: &Issuer, request: &Parts) -> OpCtx {
    OpCtx {
        tenant: issuer.tenant,
        subject: "sign-in".to_owned(),
        actor: Actor::System,
        request_id: request_id(request),
        traceparent: None,
        now: clock::now(),
    }
}

fn request_id(request: &Parts) -> String {
    let made = |headers: &HeaderMap| RequestId::of(headers).to_string();
    request.extensions.get().map_or_else(|| made(&request.headers), |id: &RequestId| id.to_string())
}

/// 303 with these cookies; kept by nobody, and the next host is not told where it came from.
fn see_other<const N: usize>(place: &str, cookies: [HeaderValue; N]) -> Result<Response, Reply> {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_str(place).map_err(|_| internal())?);
    headers.insert(session::NO_STORE.0, session::NO_STORE.1);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

fn begin_again(why: &str) -> Reply {
    Reply::new(Reason::CredentialMalformed).detail(format!("{why}; begin again at /oauth2/login"))
}

fn internal() -> Reply {
    error!("sign-in failed on our side");
    Reason::Internal.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_another_host() {
        for good in ["/", "/app", "/a/b?c=d#e", "/%2f%2fevil.example"] {
            assert!(is_local_path(good), "{good}");
        }
        for bad in [
            "",
            "app",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "https://evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            " /app",
            "/a b",
            "/\u{e9}",
            "javascript:alert(1)",
            &format!("/{}", "a".repeat(2048)),
        ] {
            assert!(!is_local_path(bad), "{bad}");
        }
    }
}
