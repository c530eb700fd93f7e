//! What a provider publishes: its discovery document and its keys, fetched when they are needed, kept for minutes, and
//! used on while it is down. One fetch at a time and issuer; strangers' key ids do not make us ask more.
//! Knows nothing of tokens' contents and of who signs in.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use gatehouse_authn::KeySet;
use gatehouse_contract::IssuerId;
use gatehouse_outbound::{Answer, Bounds, Client, Guard};
use gatehouse_store::issuers::Issuer;
use serde::Deserialize;
use tokio::sync::Mutex;
use tracing::warn;

use gatehouse_service::exit::chain;

/// Kept for this long before the provider is asked again, where it does not say (`Cache-Control`).
const FRESH: Duration = Duration::from_secs(300);
/// What it says of its keys counts within these, as for the sidecars' key sets.
const FRESH_MIN: Duration = Duration::from_secs(60);
const FRESH_MAX: Duration = Duration::from_secs(900);
/// Used for this long while the provider cannot be asked.
const STALE: Duration = Duration::from_secs(3600);
/// An unknown key id makes us ask again, at most this often; so does a failure.
const COOL_DOWN: Duration = Duration::from_secs(30);
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// For one exchange.
pub const BOUNDS: Bounds = Bounds { deadline: Duration::from_secs(5), body_bytes: 64 * 1024 };
/// Most issuers that are remembered; registered ones only are.
const MAX_REMEMBERED: usize = 4096;

/// OpenID Connect Discovery §3, as far as we look.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Discovery {
    issuer: String,
    pub authorization_endpoint: String,
    pub token_endpoint: String,
    jwks_uri: String,
    /// Whether its answers name it (RFC 9207).
    #[serde(default, rename = "authorization_response_iss_parameter_supported")]
    pub names_itself: bool,
}

/// Why a provider's documents cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("asking the provider")]
    Outbound(#[from] gatehouse_outbound::Error),
    #[error("the provider answered {0}")]
    Status(u16),
    #[error("the provider's document is not what it should be")]
    Document,
    /// OpenID Connect Discovery §4.3: else one provider could speak as another.
    #[error("the discovery document is of another issuer")]
    OtherIssuer,
    #[error("the provider's keys are no key set")]
    Keys(#[from] gatehouse_authn::jwks::BadSet),
    /// It failed a moment ago.
    #[error("the provider could not be asked a moment ago")]
    CoolDown,
}

/// A document and when it came.
struct Kept<T> {
    value: Arc<T>,
    at: Instant,
    /// For so long.
    fresh: Duration,
}

#[derive(Default)]
struct Entry {
    /// Which registration it was fetched for: another is another provider.
    epoch: i64,
    discovery: Option<Kept<Discovery>>,
    keys: Option<Kept<KeySet>>,
    failed_at: Option<Instant>,
}

/// Every provider that was asked.
pub struct Providers {
    client: Client,
    entries: Mutex<HashMap<IssuerId, Arc<Mutex<Entry>>>>,
}

impl Providers {
    pub fn new(client: Client) -> Self {
        Self { client, entries: Mutex::default() }
    }

    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// The provider's discovery document.
    pub async fn discovery(&self, issuer: &Issuer, guard: &Guard) -> Result<Arc<Discovery>, Error> {
        let entry = self.entry(issuer).await;
        let mut entry = entry.lock().await;
        entry.discovery(&self.client, issuer, guard).await
    }

    /// The provider's keys; where `wanted` is not among them they are fetched again, but not often.
    pub async fn keys(
        &self,
        issuer: &Issuer,
        guard: &Guard,
        wanted: Option<&str>,
    ) -> Result<Arc<KeySet>, Error> {
        let entry = self.entry(issuer).await;
        let mut entry = entry.lock().await;
        entry.be(issuer);
        let (have, old, fresh) = match &entry.keys {
            None => (None, Duration::MAX, Duration::ZERO),
            Some(kept) => (Some(Arc::clone(&kept.value)), kept.at.elapsed(), kept.fresh),
        };
        let missing = |keys: &KeySet| wanted.is_some_and(|kid| !keys.has(kid));
        if let Some(keys) = &have
            && old < if missing(keys) { COOL_DOWN } else { fresh }
        {
            return Ok(Arc::clone(keys));
        }
        match entry.fetch_keys(&self.client, issuer, guard).await {
            Ok(keys) => Ok(keys),
            Err(error) => match have {
                Some(keys) if old < STALE => {
                    warn!(issuer.id = %issuer.id, error = %chain(&error), "going on with a provider's old keys");
                    Ok(keys)
                }
                _ => Err(error),
            },
        }
    }

    async fn entry(&self, issuer: &Issuer) -> Arc<Mutex<Entry>> {
        let mut entries = self.entries.lock().await;
        if entries.len() >= MAX_REMEMBERED && !entries.contains_key(&issuer.id) {
            entries.clear();
        }
        Arc::clone(entries.entry(issuer.id).or_default())
    }
}

impl Entry {
    /// Forgets what was fetched for the issuer as it was.
    fn be(&mut self, issuer: &Issuer) {
        if self.epoch != issuer.epoch {
            *self = Self { epoch: issuer.epoch, ..Self::default() };
        }
    }

    async fn discovery(
        &mut self,
        client: &Client,
        issuer: &Issuer,
        guard: &Guard,
    ) -> Result<Arc<Discovery>, Error> {
        self.be(issuer);
        if let Some(kept) = &self.discovery
            && kept.at.elapsed() < kept.fresh
        {
            return Ok(Arc::clone(&kept.value));
        }
        let name = &issuer.settings.issuer;
        let base = name.strip_suffix('/').unwrap_or(name);
        let url = format!("{base}/.well-known/openid-configuration");
        let answer = self.get(client, guard, &url).await?;
        let document: Discovery =
            serde_json::from_slice(&answer.body).map_err(|_| Error::Document)?;
        if document.issuer != *name {
            return Err(Error::OtherIssuer);
        }
        let value = Arc::new(document);
        let kept = Kept { value: Arc::clone(&value), at: Instant::now(), fresh: FRESH };
        self.discovery = Some(kept);
        Ok(value)
    }

    async fn fetch_keys(
        &mut self,
        client: &Client,
        issuer: &Issuer,
        guard: &Guard,
    ) -> Result<Arc<KeySet>, Error> {
        self.be(issuer);
        let uri = match &issuer.settings.jwks_uri {
            Some(uri) => uri.clone(),
            None => self.discovery(client, issuer, guard).await?.jwks_uri.clone(),
        };
        let answer = self.get(client, guard, &uri).await?;
        let value = Arc::new(KeySet::parse(&answer.body)?);
        let fresh = fresh_for(answer.max_age());
        self.keys = Some(Kept { value: Arc::clone(&value), at: Instant::now(), fresh });
        Ok(value)
    }

    async fn get(&mut self, client: &Client, guard: &Guard, url: &str) -> Result<Answer, Error> {
        if self.failed_at.is_some_and(|at| at.elapsed() < AFTER_FAILURE) {
            return Err(Error::CoolDown);
        }
        match client.get(guard, url, BOUNDS).await.map_err(Error::from).and_then(success) {
            Ok(answer) => {
                self.failed_at = None;
                Ok(answer)
            }
            Err(error) => {
                self.failed_at = Some(Instant::now());
                Err(error)
            }
        }
    }
}

fn success(answer: Answer) -> Result<Answer, Error> {
    if answer.status == 200 { Ok(answer) } else { Err(Error::Status(answer.status)) }
}

/// How long keys are kept of which the provider says this.
fn fresh_for(said: Option<Duration>) -> Duration {
    said.map_or(FRESH, |said| said.clamp(FRESH_MIN, FRESH_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j17_a_provider_says_how_long_its_keys_are_fresh_within_bounds() {
        for (said, expected) in [(None, 300), (Some(0), 60), (Some(61), 61), (Some(86_400), 900)] {
            assert_eq!(fresh_for(said.map(Duration::from_secs)), Duration::from_secs(expected));
        }
    }
}
