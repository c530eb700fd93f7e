//! What Redis remembers of documents that the control API shows: level two of its cache (specification ADR-003).
//!
//! Keys are `cache:{<tenant>}:<entity>:<id>:<version>`. The version stands for the feed's epoch and the tenant's
//! generation ([`crate::cred`], ADR 0012), both read *before* the record: a change makes another version, so that what
//! was read before it and written after it is never found. What is found must also say whose and what it is.
//! Beside them `cache:{<tenant>}:index` names what is there, so that a tenant's end can take all of it away at once.
//! Knows no document, and nothing of what may be remembered: no secret and nothing personal comes here.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use gatehouse_contract::TenantId;
use redis::{Pipeline, pipe};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::{
    cred, feed,
    link::{Address, Error, Link},
    logs,
};

/// How long a document is kept.
const KEEP_S: u64 = 60;
/// How long an index is kept: longer than what it names.
const INDEX_S: u64 = 2 * KEEP_S;
/// How long after reading its version a document may still be written.
const FRESH: Duration = Duration::from_secs(10);
/// How long a turn to read the record lasts where its holder does not end it.
const TURN_MS: u64 = 500;
/// How many bytes of a version's hash stand in a key.
const VERSION_BYTES: usize = 12;

/// Which document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Whose.
    pub tenant: TenantId,
    /// What kind: a word of ours.
    pub entity: &'static str,
    /// Which one of its kind: an id, or `-` where a tenant has one.
    pub id: &'a str,
}

/// What a document must be read under to be remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    text: String,
    now_s: u64,
    read: Instant,
}

/// The documents in one Redis.
#[derive(Clone)]
pub struct Documents(Link);

#[derive(Serialize, Deserialize)]
struct Stored {
    tenant: TenantId,
    entity: String,
    id: String,
    document: String,
}

// === impl Place ===

impl Place<'_> {
    fn key(&self, version: &Version) -> String {
        format!("cache:{{{}}}:{}:{}:{}", self.tenant, self.entity, self.id, version.text)
    }
}

fn index_key(tenant: TenantId) -> String {
    format!("cache:{{{tenant}}}:index")
}

// === impl Documents ===

impl Documents {
    /// The documents in the Redis at `address`; every operation waits at most `deadline`. Connects on first use.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn new(address: &Address, deadline: Duration) -> Result<Self, Error> {
        Ok(Self(Link::new(address, deadline)?))
    }

    /// What a tenant's documents must be read under now; `None` where there is no feed, and nothing is remembered.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn version(&self, tenant: TenantId) -> Result<Option<Version>, Error> {
        let mut ask = pipe();
        ask.cmd("MGET").arg(feed::EPOCH).arg(cred::tenant_mark_key(tenant)).cmd("TIME");
        let read = Instant::now();
        type Answer = ((Option<String>, Option<String>), (u64, u64));
        let ((epoch, mark), (now_s, _)): Answer = self.0.pipe(&ask).await?;
        let Some(epoch) = epoch else { return Ok(None) };
        let mut hash = Sha256::new();
        hash.update(&epoch);
        // No mark is empty.
        hash.update([0]);
        hash.update(mark.unwrap_or_default());
        let hash = hash.finalize();
        let text = URL_SAFE_NO_PAD.encode(hash.get(..VERSION_BYTES).unwrap_or_default());
        Ok(Some(Version { text, now_s, read }))
    }

    /// The document that was remembered under this version.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, place: &Place<'_>, version: &Version) -> Result<Option<String>, Error> {
        let text: Option<String> = self.0.query(redis::cmd("GET").arg(place.key(version))).await?;
        // What cannot be read is another version's of ours: the record is asked.
        let stored = text.and_then(|text| serde_json::from_str::<Stored>(&text).ok());
        let fits = |stored: &Stored| {
            stored.tenant == place.tenant && stored.entity == place.entity && stored.id == place.id
        };
        Ok(stored.filter(fits).map(|stored| stored.document))
    }

    /// Takes the turn to read the record, so that of many processes one does. It ends with [`Self::put`], or by itself.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn take_turn(&self, place: &Place<'_>, version: &Version) -> Result<bool, Error> {
        let mut set = redis::cmd("SET");
        set.arg(place.key(version) + ":turn").arg(1).arg("NX").arg("PX").arg(TURN_MS);
        let done: Option<String> = self.0.query(&set).await?;
        Ok(done.is_some())
    }

    /// Remembers a document that was read after `version`, for a minute. When that was long ago nothing is remembered.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put(
        &self,
        place: &Place<'_>,
        version: &Version,
        document: &str,
    ) -> Result<(), Error> {
        if version.read.elapsed() > FRESH {
            return Ok(());
        }
        let stored = Stored {
            tenant: place.tenant,
            entity: place.entity.to_owned(),
            id: place.id.to_owned(),
            document: document.to_owned(),
        };
        let text = serde_json::to_string(&stored).map_err(|_| Error::Foreign)?;
        let key = place.key(version);
        let mut write = pipe();
        write.atomic().cmd("SET").arg(&key).arg(text).arg("EX").arg(KEEP_S).ignore();
        name_in(&mut write, &index_key(place.tenant), &key, (version.now_s, KEEP_S));
        write.cmd("DEL").arg(key + ":turn").ignore();
        self.0.pipe(&write).await
    }

    /// Makes everything that is remembered of a tenant void, here and for sidecars, before the feed says so; `mark` was
    /// never used before.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn void(&self, tenant: TenantId, mark: &str) -> Result<(), Error> {
        let mut write = pipe();
        cred::void_tenant(&mut write, tenant, mark);
        self.0.pipe(&write).await
    }

    /// Takes away what is remembered of a tenant: documents, the facts of its members and
    /// keys, and running logs. What was being read
    /// meanwhile may come once more, under a version that is never asked for; whoever must be sure repeats it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove_all(&self, tenant: TenantId) -> Result<u64, Error> {
        let indexes = [index_key(tenant), cred::facts_index_key(tenant), logs::index_key(tenant)];
        let mut ask = pipe();
        for index in &indexes {
            ask.cmd("ZRANGE").arg(index).arg(0).arg(-1);
        }
        let named: Vec<Vec<String>> = self.0.pipe(&ask).await?;
        let named = named.concat();
        let count = u64::try_from(named.len()).unwrap_or(u64::MAX);
        let mut remove = redis::cmd("DEL");
        remove.arg(&named).arg(&indexes);
        let _: u64 = self.0.query(&remove).await?;
        Ok(count)
    }
}

/// Names `key` in an index, by when it ends; `times` are now and how long it stays, in seconds.
pub(crate) fn name_in(write: &mut Pipeline, index: &str, key: &str, times: (u64, u64)) {
    let (now_s, keep_s) = times;
    write.cmd("ZADD").arg(index).arg(now_s.saturating_add(keep_s)).arg(key).ignore();
    write.cmd("ZREMRANGEBYSCORE").arg(index).arg("-inf").arg(now_s.saturating_sub(1)).ignore();
    write.cmd("EXPIRE").arg(index).arg(INDEX_S.max(2 * keep_s)).ignore();
}
