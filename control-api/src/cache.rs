//! What this process and Redis remember of the record (specification ADR-003, ADR 0039), so that what is read again and
//! again is read once. Level one is memory, level two Redis; the record is PostgreSQL's, always.
//!
//! Nothing is remembered unless this process hears the change feed: a change makes what was read before it unfindable,
//! in memory within the follower's poll, in Redis with the change itself. Whoever changes something through this process
//! finds its own change at once. Standings of callers stay in memory and for less than half a second, so that no failure
//! stretches the promise of revocation; nothing in Redis can let anybody in. Knows no document and no route.

mod counts;
pub mod follower;
mod memory;
mod shared;
mod stamps;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequestParts, Request, State},
    http::{HeaderValue, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use gatehouse_contract::{ApiKeyId, TenantId};
use gatehouse_redis_kit::{
    Address,
    cache::{Documents, Place},
    feed::Reader,
    link,
};
use gatehouse_service::{Reply, Shutdown, exit::chain};
use gatehouse_store::lookup::{ApiKey, Standing};
use serde_json::Value;
use tracing::debug;
use uuid::Uuid;

use self::{
    counts::Counts,
    follower::Follower,
    memory::{Key, Memory},
    stamps::Stamps,
};
use crate::{access::Caller, clock, random, routes::Api};

/// How long a document is found in memory at most, and a standing.
const DOCUMENT: Duration = Duration::from_secs(5);
const STANDING: Duration = Duration::from_millis(400);
/// How much memory each may take.
const DOCUMENT_BYTES: u64 = 16 * 1024 * 1024;
const STANDING_BYTES: u64 = 8 * 1024 * 1024;
/// Of how many API keys it is known whose they are.
const OWNERS: usize = 10_000;
/// How long Redis has for one operation: longer than the record takes is no help.
const PATIENCE: Duration = Duration::from_millis(50);

/// What is remembered: a word in keys and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entity {
    /// A tenant's record.
    Tenant,
    /// Its limits.
    Limits,
    /// The version that it is pinned to.
    VersionPin,
    /// Its configuration.
    Config,
    /// What a member may do; in memory alone.
    Member,
    /// What an API key may do; in memory alone.
    ApiKey,
}

/// The caches of this process; without Redis there is none, and every read is the record's.
#[derive(Clone, Default)]
pub struct Cache(Option<Arc<Inner>>);

struct Inner {
    follower: Follower,
    stamps: Stamps,
    documents: Memory<Result<Bytes, Reply>>,
    members: Memory<Result<Option<Arc<Standing>>, Reply>>,
    keys: Memory<Result<Option<Arc<ApiKey>>, Reply>>,
    /// Whose an API key is.
    owners: quick_cache::sync::Cache<ApiKeyId, TenantId>,
    shared: Documents,
    counts: Counts,
}

/// Whether the caller wants what the record says now: `Cache-Control: no-cache` (RFC 9111 §5.2.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fresh(bool);

// === impl Entity ===

impl Entity {
    const ALL: [Self; 6] =
        [Self::Tenant, Self::Limits, Self::VersionPin, Self::Config, Self::Member, Self::ApiKey];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Limits => "limits",
            Self::VersionPin => "version_pin",
            Self::Config => "config",
            Self::Member => "member",
            Self::ApiKey => "api_key",
        }
    }
}

// === impl Fresh ===

impl<S: Sync> FromRequestParts<S> for Fresh {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let values = parts.headers.get_all(header::CACHE_CONTROL).iter();
        let mut words = values.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
        Ok(Self(words.any(|word| word.trim().eq_ignore_ascii_case("no-cache"))))
    }
}

// === impl Cache ===

impl Cache {
    /// The caches, over the Redis at `address`.
    pub fn new(address: &Address) -> Result<Self, link::Error> {
        let reader = Reader::new(address, follower::PATIENCE)?;
        Ok(Self(Some(Arc::new(Inner {
            follower: Follower::new(reader),
            stamps: Stamps::default(),
            documents: Memory::new(DOCUMENT, DOCUMENT_BYTES),
            members: Memory::new(STANDING, STANDING_BYTES),
            keys: Memory::new(STANDING, STANDING_BYTES),
            owners: quick_cache::sync::Cache::new(OWNERS),
            shared: Documents::new(address, PATIENCE)?,
            counts: Counts::default(),
        }))))
    }

    /// The caches, while nothing that changed can be missed.
    fn open(&self, Fresh(fresh): Fresh) -> Option<&Inner> {
        self.0.as_deref().filter(|inner| !fresh && inner.follower.hears())
    }

    /// One of a tenant's own documents as JSON, remembered or as `record` reads it. Whoever asks has shown that it may
    /// read it.
    pub async fn document(
        &self,
        (tenant, entity): (TenantId, Entity),
        fresh: Fresh,
        record: impl Future<Output = Result<Value, Reply>>,
    ) -> Result<Response, Reply> {
        let Some(inner) = self.open(fresh) else {
            self.counted(entity);
            return Ok(json(record.await?.to_string().into()));
        };
        // Before the record is read: what is forgotten meanwhile is not found again.
        let key = Key::new(tenant, entity, "-", inner.stamps.of(tenant, None));
        let seek = async {
            let place = Place { tenant, entity: entity.as_str(), id: "-" };
            shared::through(inner, &place, entity, record).await
        };
        let found = inner.documents.read(key, &inner.counts, Result::is_ok, seek).await;
        found.map(json)
    }

    /// What the record says of a member that shows a token with this mark.
    pub async fn member(
        &self,
        (tenant, subject, mark): (TenantId, Uuid, Option<&str>),
        record: impl Future<Output = Result<Option<Standing>, Reply>>,
    ) -> Result<Option<Arc<Standing>>, Reply> {
        let seek = async {
            self.counted(Entity::Member);
            record.await.map(|found| found.map(Arc::new))
        };
        let Some(inner) = self.open(Fresh(false)) else { return seek.await };
        let id = format!("{subject}/{}", mark.unwrap_or_default());
        let key = Key::new(tenant, Entity::Member, &id, inner.stamps.of(tenant, mark));
        let found = inner.members.read(key, &inner.counts, is_somebody, seek).await?;
        // The key says so already; were it another's, it would be nobody's.
        Ok(found.filter(|standing| standing.facts.tenant == tenant))
    }

    /// What the record says of an API key. Its mark is compared by whoever asks, every time.
    pub async fn api_key(
        &self,
        id: ApiKeyId,
        record: impl Future<Output = Result<Option<ApiKey>, Reply>>,
    ) -> Result<Option<Arc<ApiKey>>, Reply> {
        let seek = async {
            self.counted(Entity::ApiKey);
            record.await.map(|found| found.map(Arc::new))
        };
        let Some(inner) = self.open(Fresh(false)) else { return seek.await };
        // A change of its tenant makes it old, too: whose it is is learnt once and never changes.
        let credential = id.to_string();
        let Some(tenant) = inner.owners.get(&id) else {
            // Of many that come at once one reads; what it finds is not kept.
            let nobody = TenantId::new(Uuid::nil());
            let stamp = inner.stamps.of(nobody, Some(&credential));
            let key = Key::new(nobody, Entity::ApiKey, &credential, stamp);
            let found = inner.keys.read(key, &inner.counts, |_| false, seek).await?;
            if let Some(found) = &found {
                inner.owners.insert(id, found.facts.tenant);
            }
            return Ok(found);
        };
        let stamp = inner.stamps.of(tenant, Some(&credential));
        let key = Key::new(tenant, Entity::ApiKey, &credential, stamp);
        let found = inner.keys.read(key, &inner.counts, is_somebody, seek).await?;
        let now_s = clock::since_epoch(clock::now()).as_secs();
        let lives = |key: &Arc<ApiKey>| {
            key.facts.tenant == tenant && key.facts.expires_at_s.is_none_or(|at_s| now_s < at_s)
        };
        Ok(found.filter(lives))
    }

    /// Forgets what is remembered of a tenant, here and in Redis: something of it was changed through this process.
    pub async fn forget(&self, tenant: TenantId) {
        let Some(inner) = &self.0 else { return };
        // Redis first: what is read there after this process forgot is of after the change.
        let voided = inner.shared.void(tenant, &random::id().to_string()).await;
        inner.stamps.forget(tenant);
        inner.counts.forgot("tenant");
        if let Err(error) = voided {
            debug!(error = %chain(&error), "what Redis remembers may be old: nothing is read there");
            inner.follower.rest();
        }
    }

    /// Forgets everything in this process; the feed has everybody else do so.
    pub fn forget_all(&self) {
        if let Some(inner) = &self.0 {
            inner.stamps.forget_all();
            inner.counts.forgot("all");
        }
    }

    /// Forgets what a credential may do, in this process.
    pub fn forget_credential(&self, credential: &str) {
        if let Some(inner) = &self.0 {
            inner.stamps.forget_credential(credential);
        }
    }

    /// Takes away what Redis remembers of a tenant that is erased.
    pub async fn erase(&self, tenant: TenantId) -> Result<u64, link::Error> {
        let Some(inner) = &self.0 else { return Ok(0) };
        inner.stamps.forget(tenant);
        inner.shared.remove_all(tenant).await
    }

    /// Follows the change feed until the shutdown.
    pub async fn follow(&self, shutdown: Shutdown) {
        if let Some(inner) = &self.0 {
            inner.follower.run(&inner.stamps, &inner.counts, shutdown).await;
        }
    }

    /// A word for readiness: whether reads are remembered.
    pub fn word(&self) -> &'static str {
        if self.open(Fresh(false)).is_some() { "used" } else { "unused" }
    }

    /// The text form of Prometheus.
    pub fn render(&self) -> String {
        let Some(inner) = &self.0 else { return String::new() };
        let held = inner.documents.held() + inner.members.held() + inner.keys.held();
        inner.counts.render(self.open(Fresh(false)).is_some(), held)
    }

    fn counted(&self, entity: Entity) {
        if let Some(inner) = &self.0 {
            inner.counts.record(entity);
        }
    }
}

/// Stands around what changes tenants, their members and their configuration: whoever was told that it is done reads it so.
pub async fn forgotten_after(
    State(api): State<Api>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Response {
    let named = request.uri().path().split('/').nth(5).and_then(|part| part.parse().ok());
    let response = next.run(request).await;
    if !response.status().is_client_error() {
        api.cache.forget(caller.tenant).await;
        if let Some(named) = named.filter(|named| *named != caller.tenant) {
            api.cache.forget(named).await;
        }
    }
    response
}

impl memory::Bytes for Result<Bytes, Reply> {
    fn bytes(&self) -> usize {
        self.as_ref().map_or(0, Bytes::len)
    }
}

/// What a principal's facts take, with roles, scopes and limits.
const FACTS_BYTES: usize = 1024;

impl<T> memory::Bytes for Result<Option<Arc<T>>, Reply> {
    fn bytes(&self) -> usize {
        FACTS_BYTES
    }
}

/// As a handler's `Json` would be.
fn json(document: Bytes) -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], document).into_response()
}

/// Who is not known, and what could not be read, is asked for again.
fn is_somebody<T>(read: &Result<Option<T>, Reply>) -> bool {
    matches!(read, Ok(Some(_)))
}
