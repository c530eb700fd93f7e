//! From memory to the record by way of Redis. Of all processes that miss the same document at once one reads the record; the
//! others look for what it found, and read the record themselves where that does not come soon.
//! Redis that is away, or slow, is no reason not to answer.

use std::time::Duration;

use axum::body::Bytes;
use gatehouse_redis_kit::{
    cache::{Place, Version},
    link,
};
use gatehouse_service::{Reply, exit::chain};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::{Entity, Inner};

/// How long whoever has no turn waits for what another process reads, and how often it looks.
const TURN: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_millis(10);

/// The document in Redis, or in the record and then in Redis.
pub(super) async fn through(
    inner: &Inner,
    place: &Place<'_>,
    entity: Entity,
    record: impl Future<Output = Result<Value, Reply>>,
) -> Result<Bytes, Reply> {
    let version = match inner.shared.version(place.tenant).await {
        Ok(version) => version,
        Err(error) => {
            debug!(error = %chain(&error), "Redis is not asked");
            None
        }
    };
    if let Some(version) = &version {
        match remembered(inner, place, version).await {
            Ok(Some(document)) => {
                inner.counts.redis(entity, true);
                return Ok(document.into());
            }
            Ok(None) => inner.counts.redis(entity, false),
            Err(error) => debug!(error = %chain(&error), "Redis did not say what it remembers"),
        }
    }
    inner.counts.record(entity);
    let document = record.await?.to_string();
    if let Some(version) = &version
        && let Err(error) = inner.shared.put(place, version, &document).await
    {
        debug!(error = %chain(&error), "Redis does not remember what was read");
    }
    Ok(document.into())
}

/// What Redis has, or gets while it is another process's turn; `None` where it is ours, or the other one is slow.
async fn remembered(
    inner: &Inner,
    place: &Place<'_>,
    version: &Version,
) -> Result<Option<String>, link::Error> {
    let began = Instant::now();
    loop {
        if let Some(document) = inner.shared.get(place, version).await? {
            return Ok(Some(document));
        }
        if began.elapsed() >= TURN || inner.shared.take_turn(place, version).await? {
            return Ok(None);
        }
        sleep(LOOK).await;
    }
}
