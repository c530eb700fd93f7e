//! What Redis remembers of credentials: the projection of API keys, and the permission cache (design §3.1).
//! Only the control API writes either; a sidecar reads. Never the truth: PostgreSQL is.
//!
//! Facts are cached under the feed's epoch and a generation that the feed's writer changes, in the transaction that
//! publishes a change of them. Whoever fills the cache reads both *before* the record, so that facts that were read
//! before a change and written after it are never served. Generations live longer than the facts under them and
//! never repeat, so that they need not be kept for ever.
//! Knows no pepper and no policy.

use std::time::Duration;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use gatehouse_contract::{
    ApiKeyId, TenantId,
    sidecar::{Change, PrincipalFacts},
};
use redis::{Pipeline, pipe};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::{
    cache, feed,
    link::{Address, Error, Link},
};

/// The epoch under which every key was projected.
pub(crate) const COMPLETE: &str = "cred:complete";
/// How long facts are kept.
const KEEP_S: u64 = 300;
/// How long a generation is kept: longer than any facts that were read before it changed.
const GENERATION_S: u64 = 2 * KEEP_S;
/// How long after reading the generation facts may still be written.
const FRESH: Duration = Duration::from_secs(60);

/// What is projected of an API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projected {
    /// Whose it is.
    pub tenant: TenantId,
    /// Which pepper made the mark.
    pub pepper_id: String,
    /// The key's mark.
    pub hmac: [u8; 32],
    /// When it ends by itself, in seconds since the Unix epoch.
    pub expires_at_s: Option<u64>,
}

/// What the projection says of a key's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The key, if it is there.
    pub key: Option<Projected>,
    /// The epoch under which the projection is complete: when it is that of a feed that is alive, a key that is not
    /// there does not exist.
    pub complete: Option<String>,
}

/// The projection of API keys.
#[derive(Clone)]
pub struct Keys(Link);

/// Whose facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder<'a> {
    /// The subject of a token.
    Subject {
        /// The token's `iss`.
        issuer: &'a str,
        /// The token's `sub`.
        subject: &'a str,
        /// `PrincipalAsk::Subject::vouched`: what is answered depends on it.
        vouched: bool,
    },
    /// An API key.
    Key(ApiKeyId),
}

/// The permission cache.
#[derive(Clone)]
pub struct Permissions(Link);

/// What facts must be read under to be cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    epoch: Option<String>,
    /// Of the tenant, and of the key.
    marks: (Option<String>, Option<String>),
    now_s: u64,
    read: Instant,
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    tenant: TenantId,
    pepper_id: String,
    hmac: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_s: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct StoredFacts<F> {
    epoch: String,
    #[serde(rename = "gen")]
    marks: (Option<String>, Option<String>),
    facts: F,
}

fn key_key(id: ApiKeyId) -> String {
    format!("cred:key:{id}")
}

pub(crate) fn tenant_mark_key(tenant: TenantId) -> String {
    format!("cred:gen:{{{tenant}}}")
}

/// What names the facts that are cached of a tenant.
pub(crate) fn facts_index_key(tenant: TenantId) -> String {
    format!("cred:index:{{{tenant}}}")
}

fn credential_mark_key(credential: &str) -> String {
    format!("cred:gen:credential:{credential}")
}

fn facts_key(tenant: TenantId, holder: Holder<'_>) -> String {
    let name = match holder {
        Holder::Subject { issuer, subject, vouched } => {
            let mut hash = Sha256::new();
            hash.update([u8::from(vouched)]);
            hash.update(issuer);
            hash.update([0]);
            hash.update(subject);
            URL_SAFE_NO_PAD.encode(hash.finalize())
        }
        Holder::Key(id) => format!("key:{id}"),
    };
    format!("cred:perm:{{{tenant}}}:{name}")
}

/// Makes what is cached of a tenant void; `mark` was never used before.
pub(crate) fn void_tenant(pipe: &mut Pipeline, tenant: TenantId, mark: &str) {
    pipe.cmd("SET").arg(tenant_mark_key(tenant)).arg(mark).arg("EX").arg(GENERATION_S).ignore();
}

/// Makes what is cached of a change's subject void; `mark` was never used before.
pub(crate) fn void(pipe: &mut Pipeline, change: &Change, mark: &str) {
    let key = match change {
        Change::Tenant { tenant } | Change::Subject { tenant, .. } => tenant_mark_key(*tenant),
        Change::Credential { credential } => credential_mark_key(credential),
        Change::Keys { .. } | Change::Deny(_) => return,
    };
    pipe.cmd("SET").arg(key).arg(mark).arg("EX").arg(GENERATION_S).ignore();
}

// === impl Keys ===

impl Keys {
    /// The projection in the Redis at `address`; every operation waits at most `deadline`. Connects on first use.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn new(address: &Address, deadline: Duration) -> Result<Self, Error> {
        Ok(Self(Link::new(address, deadline)?))
    }

    /// Projects a key, in the place of what was there. Before the change that names it is published.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put(&self, id: ApiKeyId, key: &Projected) -> Result<(), Error> {
        self.put_all(&[(id, key.clone())]).await
    }

    /// As [`Self::put`], some hundreds at once.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put_all(&self, keys: &[(ApiKeyId, Projected)]) -> Result<(), Error> {
        let mut write = pipe();
        for (id, key) in keys {
            let stored = StoredKey {
                tenant: key.tenant,
                pepper_id: key.pepper_id.clone(),
                hmac: STANDARD.encode(key.hmac),
                expires_at_s: key.expires_at_s,
            };
            let text = serde_json::to_string(&stored).map_err(|_| Error::Foreign)?;
            let set = write.cmd("SET").arg(key_key(*id)).arg(text);
            if let Some(at_s) = key.expires_at_s {
                set.arg("EXAT").arg(at_s.max(1));
            }
            set.ignore();
        }
        if keys.is_empty() { Ok(()) } else { self.0.pipe(&write).await }
    }

    /// Takes a key out. Before the change that names it is published.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove(&self, id: ApiKeyId) -> Result<(), Error> {
        self.0.query(redis::cmd("DEL").arg(key_key(id))).await
    }

    /// Says that every key is projected under the feed's `epoch`: from then on a key that is not there does not
    /// exist. Beginning another epoch takes it back.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn complete(&self, epoch: &str) -> Result<(), Error> {
        self.0.query(redis::cmd("SET").arg(COMPLETE).arg(epoch)).await
    }

    /// What the projection says of a key's id.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Foreign`] when the projection is not in our form.
    pub async fn find(&self, id: ApiKeyId) -> Result<Found, Error> {
        let mut ask = redis::cmd("MGET");
        ask.arg(key_key(id)).arg(COMPLETE);
        let (text, complete): (Option<String>, Option<String>) = self.0.query(&ask).await?;
        let key = text.map(|text| {
            let stored: StoredKey = serde_json::from_str(&text).ok()?;
            let hmac = STANDARD.decode(stored.hmac).ok()?.try_into().ok()?;
            let StoredKey { tenant, pepper_id, expires_at_s, .. } = stored;
            Some(Projected { tenant, pepper_id, hmac, expires_at_s })
        });
        match key {
            Some(None) => Err(Error::Foreign),
            Some(key) => Ok(Found { key, complete }),
            None => Ok(Found { key: None, complete }),
        }
    }
}

// === impl Permissions ===

impl Permissions {
    /// The cache in the Redis at `address`; every operation waits at most `deadline`. Connects on first use.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn new(address: &Address, deadline: Duration) -> Result<Self, Error> {
        Ok(Self(Link::new(address, deadline)?))
    }

    /// What a holder's facts must be read under. To be read before the record is.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn generation(
        &self,
        tenant: TenantId,
        holder: Holder<'_>,
    ) -> Result<Generation, Error> {
        let mut ask = pipe();
        ask.cmd("MGET").arg(feed::EPOCH).arg(&mark_keys(tenant, holder)).cmd("TIME");
        let read = Instant::now();
        type Answer = ((Option<String>, Option<String>, Option<String>), (u64, u64));
        let ((epoch, one, other), (now_s, _)): Answer = self.0.pipe(&ask).await?;
        Ok(Generation { epoch, marks: (one, other), now_s, read })
    }

    /// Remembers facts that were read after `generation`, for five minutes. Without a feed, or when that was long
    /// ago, nothing is remembered.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put(
        &self,
        tenant: TenantId,
        holder: Holder<'_>,
        generation: &Generation,
        facts: &PrincipalFacts,
    ) -> Result<(), Error> {
        let Some(epoch) = generation.epoch.clone() else { return Ok(()) };
        if generation.read.elapsed() > FRESH {
            return Ok(());
        }
        let stored = StoredFacts { epoch, marks: generation.marks.clone(), facts };
        let text = serde_json::to_string(&stored).map_err(|_| Error::Foreign)?;
        let key = facts_key(tenant, holder);
        let mut write = pipe();
        write.atomic().cmd("SET").arg(&key).arg(text).arg("EX").arg(KEEP_S).ignore();
        // Named, so that a tenant's end takes them away at once.
        let times = (generation.now_s, KEEP_S);
        cache::name_in(&mut write, &facts_index_key(tenant), &key, times);
        self.0.pipe(&write).await
    }

    /// A holder's facts as they were remembered under `epoch`, if nothing has changed since as far as Redis knows.
    /// Whoever asks brings the epoch of a feed that is alive.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(
        &self,
        tenant: TenantId,
        holder: Holder<'_>,
        epoch: &str,
    ) -> Result<Option<PrincipalFacts>, Error> {
        let mut ask = redis::cmd("MGET");
        ask.arg(feed::EPOCH).arg(&mark_keys(tenant, holder)).arg(facts_key(tenant, holder));
        type Answer = (Option<String>, Option<String>, Option<String>, Option<String>);
        let (found, one, other, text): Answer = self.0.query(&ask).await?;
        // What cannot be read is another version's: the record is asked.
        let stored = text.and_then(|text| serde_json::from_str(&text).ok());
        let valid = |stored: &StoredFacts<PrincipalFacts>| {
            found.as_deref() == Some(epoch) && stored.epoch == epoch && stored.marks == (one, other)
        };
        Ok(stored.filter(valid).map(|stored| stored.facts))
    }
}

/// Of the tenant and of the key; a subject has its tenant's only, twice.
fn mark_keys(tenant: TenantId, holder: Holder<'_>) -> [String; 2] {
    let of_tenant = tenant_mark_key(tenant);
    match holder {
        Holder::Subject { .. } => [of_tenant.clone(), of_tenant],
        Holder::Key(id) => [of_tenant, credential_mark_key(&id.to_string())],
    }
}
