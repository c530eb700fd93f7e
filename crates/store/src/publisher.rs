//! The publisher's job: takes events out of their outbox, in order, and gives them opened to whoever publishes them. One
//! process leads; two that believe so wait for one another at the rows.
//! Knows nothing of Kafka: what was taken is published by the caller, before it commits.

use std::time::Duration;

use gatehouse_contract::TenantId;
use gatehouse_events::{Aggregate, Kind};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Error, Job, Store, SystemTx, data_keys::Keys, events::PUBLISHED, relay::Leadership};

/// Who leads holds this advisory lock.
const LEADER_LOCK: i64 = 0x6761_7465_0004;
/// Up to here what waits is counted; beyond it is told by the distance of the numbers.
const COUNTED: i64 = 10_000;

/// An event that waits to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsent {
    /// Whose.
    pub tenant: TenantId,
    /// Its id: the same however often it is published.
    pub id: Uuid,
    /// About what.
    pub aggregate: Aggregate,
    /// About which.
    pub aggregate_id: Uuid,
    /// 1 is the aggregate's first; 0 where it is not numbered.
    pub seq: u64,
    /// When it was told.
    pub at: OffsetDateTime,
    /// What it is.
    pub what: What,
    /// The trace of the request that made it (W3C Trace Context).
    pub traceparent: Option<String>,
}

/// What is to be published.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// An event.
    Told {
        /// Its kind.
        kind: Kind,
        /// Of the schema that wrote it.
        schema_version: u16,
        /// What it says, without what is kept back.
        payload: Value,
    },
    /// Nothing, in the place of all that was told of the aggregate.
    Tombstone,
}

#[derive(sqlx::FromRow)]
struct Row {
    tenant_id: Uuid,
    event_id: Uuid,
    aggregate_kind: String,
    aggregate_id: Uuid,
    seq: i64,
    at: OffsetDateTime,
    kind: Option<String>,
    schema_version: i32,
    payload: Option<Value>,
    sealed_payload: Option<Vec<u8>>,
    traceparent: Option<String>,
}

/// An open transaction of the publisher.
pub struct Publishing {
    tx: SystemTx,
    keys: Keys,
}

impl Store {
    /// Takes the lead; `None` while another process has it.
    pub async fn lead_publisher(&self) -> Result<Option<Leadership>, Error> {
        self.lead(LEADER_LOCK).await
    }

    /// Opens a transaction of the publisher.
    pub async fn publishing(&self) -> Result<Publishing, Error> {
        let tx = self.system(Job::Publisher).await?;
        Ok(Publishing { tx, keys: Keys::new(self.vault.clone()) })
    }
}

impl Publishing {
    /// Takes out up to `limit` events that wait, in the order in which each aggregate's were told. Publish them, then
    /// [`Self::commit`]: a crash in between leaves them waiting, and they are published again under the same ids. What
    /// commits late is taken by the next call, whatever its number.
    ///
    /// # Errors
    /// [`Error::Unreadable`] for an event of a later build: it waits for one that knows it.
    pub async fn take(&mut self, limit: u32) -> Result<Vec<Unsent>, Error> {
        let rows: Vec<Row> = sqlx::query_as(
            "WITH taken AS (
                DELETE FROM event_outbox WHERE (tenant_id, id) IN
                    (SELECT tenant_id, id FROM event_outbox ORDER BY event_outbox.id LIMIT $1)
                RETURNING *)
             SELECT tenant_id, event_id, aggregate_kind, aggregate_id, seq, at, kind, schema_version, payload,
                sealed_payload, traceparent
             FROM taken ORDER BY id",
        )
        .bind(i64::from(limit))
        .fetch_all(self.tx.connection())
        .await?;
        let mut unsent = Vec::with_capacity(rows.len());
        for row in rows {
            match self.open(row).await {
                Ok(one) => unsent.push(one),
                // Its tenant was erased: what can no longer be read is told to nobody.
                Err(Error::Erased) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(unsent)
    }

    async fn open(&mut self, row: Row) -> Result<Unsent, Error> {
        let unreadable = || Error::Unreadable { what: "event" };
        let tenant = TenantId::new(row.tenant_id);
        let aggregate = match row.aggregate_kind.as_str() {
            "agent" => Aggregate::Agent,
            "execution" => Aggregate::Execution,
            "tenant" => Aggregate::Tenant,
            _ => return Err(unreadable()),
        };
        let what = match (row.kind, row.payload, row.sealed_payload) {
            (None, _, _) => What::Tombstone,
            (Some(kind), payload, sealed) => {
                let payload = match (payload, sealed) {
                    (Some(plain), _) => plain,
                    (None, Some(sealed)) => {
                        let cipher = self.keys.of(self.tx.connection(), tenant).await?;
                        cipher.open_json(PUBLISHED, row.event_id, &sealed)?
                    }
                    (None, None) => return Err(unreadable()),
                };
                What::Told {
                    kind: kind.parse().map_err(|_| unreadable())?,
                    schema_version: u16::try_from(row.schema_version).map_err(|_| unreadable())?,
                    payload,
                }
            }
        };
        Ok(Unsent {
            tenant,
            id: row.event_id,
            aggregate,
            aggregate_id: row.aggregate_id,
            seq: u64::try_from(row.seq).map_err(|_| unreadable())?,
            at: row.at,
            what,
            traceparent: row.traceparent,
        })
    }

    /// How many events wait (about, where there are many), and how long the oldest has.
    pub async fn backlog(&mut self) -> Result<(u64, Duration), Error> {
        let (counted, distance, age): (i64, Option<i64>, Option<f64>) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM (SELECT FROM event_outbox LIMIT $1) AS waits),
                (SELECT max(id) - min(id) + 1 FROM event_outbox),
                (SELECT extract(epoch FROM clock_timestamp() - at)::float8 FROM event_outbox
                    ORDER BY event_outbox.id LIMIT 1)",
        )
        .bind(COUNTED)
        .fetch_one(self.tx.connection())
        .await?;
        let waits = if counted < COUNTED { counted } else { distance.unwrap_or(counted) };
        let age = Duration::try_from_secs_f64(age.unwrap_or(0.0)).unwrap_or_default();
        Ok((u64::try_from(waits).unwrap_or(0), age))
    }

    /// Makes it last: what was taken is gone.
    pub async fn commit(self) -> Result<(), Error> {
        self.tx.commit().await
    }
}
