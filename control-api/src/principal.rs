//! Whom a credential stands for, as the record has it: the same answer for our own guard and for the sidecars.
//! Knows nothing of routes and of what the answer is used for.

use gatehouse_authn::api_key::{ApiKey, Mark};
use gatehouse_contract::{TenantId, sidecar::PrincipalFacts};
use gatehouse_service::Reply;
use gatehouse_store::{
    Error,
    lookup::{ApiKey as Stored, Standing},
};
use uuid::Uuid;

use crate::routes::Api;

/// What the record says of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This one; its tenant may still be closed and it may still be suspended.
    Known(Box<PrincipalFacts>),
    /// The credential is worth nothing: unknown, ended, revoked.
    Worthless,
    /// The credential is good, and its subject is nobody in this tenant.
    Stranger,
}

/// A verified token.
#[derive(Debug, Clone, Copy)]
pub struct Token<'a> {
    /// The tenant that it names.
    pub tenant: TenantId,
    /// Its subject.
    pub subject: &'a str,
    /// Its mark in the deny list, where it has a `jti`.
    pub mark: Option<&'a str>,
    /// Its `iat`, since the Unix epoch.
    pub issued_at_s: Option<u64>,
}

/// Whom a token of our own stands for: its subject is a user's or a client's id.
pub async fn of_own_token(api: &Api, token: Token<'_>) -> Result<Verdict, Error> {
    match token.subject.parse() {
        Ok(subject) => of_member(api, subject, token).await,
        Err(_) => Ok(Verdict::Stranger),
    }
}

/// As [`of_own_token`], as it may be remembered: for our own guard, never for what others remember in turn.
pub async fn remembered_own_token(
    api: &Api,
    token: Token<'_>,
    away: impl Fn(Error) -> Reply,
) -> Result<Verdict, Reply> {
    let Ok(subject) = token.subject.parse() else { return Ok(Verdict::Stranger) };
    let record = async {
        let lookup = api.store.lookup();
        lookup.standing(token.tenant, subject, token.mark).await.map_err(away)
    };
    let found = api.cache.member((token.tenant, subject, token.mark), record).await?;
    Ok(of_standing(found.as_deref(), token))
}

/// Whom a token stands for whose subject was mapped to this member of the tenant.
pub async fn of_member(api: &Api, member: Uuid, token: Token<'_>) -> Result<Verdict, Error> {
    let found = api.store.lookup().standing(token.tenant, member, token.mark).await?;
    Ok(of_standing(found.as_ref(), token))
}

fn of_standing(found: Option<&Standing>, token: Token<'_>) -> Verdict {
    match found {
        None => Verdict::Stranger,
        Some(standing) if standing.denies(token.issued_at_s) => Verdict::Worthless,
        Some(standing) => Verdict::Known(Box::new(standing.facts.clone())),
    }
}

/// Whom an API key stands for.
pub async fn of_api_key(api: &Api, text: &str) -> Result<Verdict, Error> {
    let Ok(key) = ApiKey::parse(text) else { return Ok(Verdict::Worthless) };
    let found = api.store.lookup().api_key(key.id()).await?;
    Ok(of_found(api, key, found.as_ref()))
}

/// As [`of_api_key`], as it may be remembered: for our own guard alone.
pub async fn remembered_api_key(
    api: &Api,
    text: &str,
    away: impl Fn(Error) -> Reply,
) -> Result<Verdict, Reply> {
    let Ok(key) = ApiKey::parse(text) else { return Ok(Verdict::Worthless) };
    let record = async { api.store.lookup().api_key(key.id()).await.map_err(away) };
    let found = api.cache.api_key(key.id(), record).await?;
    Ok(of_found(api, key, found.as_deref()))
}

fn of_found(api: &Api, key: ApiKey<'_>, found: Option<&Stored>) -> Verdict {
    let Some(found) = found else { return Verdict::Worthless };
    let mark = Mark { pepper_id: found.mark.pepper_id.clone(), hmac: found.mark.hmac };
    if found.alive && api.peppers.knows(key, &mark) {
        return Verdict::Known(Box::new(found.facts.clone()));
    }
    Verdict::Worthless
}
