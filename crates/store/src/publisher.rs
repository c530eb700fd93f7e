//! The publisher's job: reads events that wait, in order, and gives them opened to whoever publishes them; what was published
//! is taken out. Both are short transactions: what is open holds up the audit's sealer. In between the publisher says how
//! long it may be sending, so that whoever leads next overtakes nothing. What cannot be read is put aside.
//! Knows nothing of Kafka: what was read is published by the caller.

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

/// An event as it was read from its outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// Its row.
    pub row: i64,
    /// What it is in order with: nothing, where events have no number.
    pub queue: Option<Queue>,
    /// What is published; nothing of a tenant that was erased.
    pub event: Result<Option<Unsent>, Unfit>,
}

/// One aggregate of one tenant: its events are published in their order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Queue {
    tenant: Uuid,
    aggregate: String,
    id: Uuid,
}

/// Why an event cannot be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It does not open under its tenant's key, or that key does not under those of the file.
    Sealed,
    /// Of a kind or form that this build does not know: of a later build, or of none.
    Unknown,
    /// It says what its kind's schema has no place for.
    Schema,
}

impl Unfit {
    /// Its word, as it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Unknown => "unknown",
            Self::Schema => "schema",
        }
    }
}

/// An event that was put aside.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Parked {
    /// Whose.
    pub tenant_id: Uuid,
    /// Its id.
    pub event_id: Uuid,
    /// About what.
    pub aggregate_kind: String,
    /// About which.
    pub aggregate_id: Uuid,
    /// Its number among the aggregate's.
    pub seq: i64,
    /// Its kind, as it is written.
    pub kind: Option<String>,
    /// [`Unfit::as_str`].
    pub reason: String,
    /// Since when.
    pub parked_at: OffsetDateTime,
    /// How many events wait behind it.
    pub behind: i64,
}

/// What waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many events; about, where there are many.
    pub events: u64,
    /// For how long the oldest has that was not put aside.
    pub age: Duration,
    /// How many were put aside.
    pub parked: u64,
}

/// The time of one leader: another one begins the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term(i64);

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
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
        Ok(Publishing { tx, keys: Keys::reading(self.vault.clone()) })
    }
}

impl Publishing {
    /// Begins a term; `None` while the leader before may still be sending. What was put aside is tried again: this process
    /// may have the key or be the build that can read it.
    pub async fn begin(&mut self) -> Result<Option<Term>, Error> {
        let epoch: Option<i64> = sqlx::query_scalar(
            "UPDATE event_publisher SET epoch = epoch + 1, busy_until = '-infinity'
             WHERE busy_until <= clock_timestamp() RETURNING epoch",
        )
        .fetch_optional(self.tx.connection())
        .await?;
        if epoch.is_some() {
            self.retry().await?;
        }
        Ok(epoch.map(Term))
    }

    /// Up to `limit` events that wait, in the order in which each aggregate's were told. What commits late is read by a
    /// later call, whatever its number; what is behind one that was put aside is not. Where there are some, no other term
    /// begins for `at_most`, once this is committed: publish them within that time, then [`Self::settle`]. A crash in
    /// between leaves them waiting, and they are published again under the same ids.
    ///
    /// `None` where another term began.
    pub async fn take(
        &mut self,
        term: Term,
        limit: u32,
        at_most: Duration,
    ) -> Result<Option<Vec<Taken>>, Error> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT o.id, o.tenant_id, o.event_id, o.aggregate_kind, o.aggregate_id, o.seq, o.at, o.kind, o.schema_version,
                o.payload, o.sealed_payload, o.traceparent
             FROM event_outbox o
             WHERE o.parked_at IS NULL AND NOT EXISTS (SELECT FROM event_outbox p WHERE p.parked_at IS NOT NULL
                AND (p.tenant_id, p.aggregate_kind, p.aggregate_id) = (o.tenant_id, o.aggregate_kind, o.aggregate_id)
                AND p.seq > 0 AND p.id < o.id)
             ORDER BY o.id LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(self.tx.connection())
        .await?;
        if rows.is_empty() {
            return Ok(Some(Vec::new()));
        }
        // Behind the reading: whoever begins the next term waits for this transaction, and then for the time it says.
        let ours = sqlx::query(
            "UPDATE event_publisher SET busy_until = clock_timestamp() + $2 * interval '1 ms' WHERE epoch = $1",
        )
        .bind(term.0)
        .bind(i64::try_from(at_most.as_millis()).unwrap_or(i64::MAX))
        .execute(self.tx.connection())
        .await?;
        if ours.rows_affected() == 0 {
            return Ok(None);
        }
        let mut taken = Vec::with_capacity(rows.len());
        for row in rows {
            let queue = (row.seq > 0).then(|| Queue {
                tenant: row.tenant_id,
                aggregate: row.aggregate_kind.clone(),
                id: row.aggregate_id,
            });
            let id = row.id;
            let event = match self.open(row).await {
                Ok(opened) => opened.map(Some),
                // What can no longer be read is told to nobody.
                Err(Error::Erased) => Ok(None),
                Err(Error::Unreadable { .. } | Error::Locked(_)) => Err(Unfit::Sealed),
                Err(error) => return Err(error),
            };
            taken.push(Taken { row: id, queue, event });
        }
        Ok(Some(taken))
    }

    /// Takes out what was published, or is to be told to nobody, and puts aside what cannot be read. Done by a term that is
    /// over it does no harm: what was published was.
    pub async fn settle(
        &mut self,
        term: Term,
        gone: &[i64],
        unfit: &[(i64, Unfit)],
    ) -> Result<(), Error> {
        sqlx::query("DELETE FROM event_outbox WHERE id = ANY($1)")
            .bind(gone)
            .execute(self.tx.connection())
            .await?;
        for (row, why) in unfit {
            sqlx::query(
                "UPDATE event_outbox SET parked_at = now(), parked_reason = $2 WHERE id = $1",
            )
            .bind(row)
            .bind(why.as_str())
            .execute(self.tx.connection())
            .await?;
        }
        self.idle(term).await
    }

    /// Says that nothing is being sent: the next term may begin at once.
    pub async fn idle(&mut self, term: Term) -> Result<(), Error> {
        sqlx::query("UPDATE event_publisher SET busy_until = '-infinity' WHERE epoch = $1")
            .bind(term.0)
            .execute(self.tx.connection())
            .await?;
        Ok(())
    }

    /// What was put aside, the oldest first; at most `limit`.
    pub async fn parked(&mut self, limit: u32) -> Result<Vec<Parked>, Error> {
        let found = sqlx::query_as(
            "SELECT p.tenant_id, p.event_id, p.aggregate_kind, p.aggregate_id, p.seq, p.kind, p.parked_reason AS reason,
                p.parked_at, (SELECT count(*) FROM event_outbox o WHERE p.seq > 0 AND o.id > p.id AND o.parked_at IS NULL
                    AND (o.tenant_id, o.aggregate_kind, o.aggregate_id) = (p.tenant_id, p.aggregate_kind, p.aggregate_id))
                AS behind
             FROM event_outbox p WHERE p.parked_at IS NOT NULL ORDER BY p.id LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(self.tx.connection())
        .await?;
        Ok(found)
    }

    /// Has all that was put aside tried again; how many that are.
    pub async fn retry(&mut self) -> Result<u64, Error> {
        let done = sqlx::query(
            "UPDATE event_outbox SET parked_at = NULL, parked_reason = NULL WHERE parked_at IS NOT NULL",
        )
        .execute(self.tx.connection())
        .await?;
        Ok(done.rows_affected())
    }

    /// Gives up one that was put aside: it is never published, and what waits behind it goes on. Whether there is one.
    pub async fn drop(&mut self, event: Uuid) -> Result<bool, Error> {
        let done =
            sqlx::query("DELETE FROM event_outbox WHERE parked_at IS NOT NULL AND event_id = $1")
                .bind(event)
                .execute(self.tx.connection())
                .await?;
        Ok(done.rows_affected() > 0)
    }

    async fn open(&mut self, row: Row) -> Result<Result<Unsent, Unfit>, Error> {
        let tenant = TenantId::new(row.tenant_id);
        let aggregate = match row.aggregate_kind.as_str() {
            "agent" => Aggregate::Agent,
            "execution" => Aggregate::Execution,
            "tenant" => Aggregate::Tenant,
            _ => return Ok(Err(Unfit::Unknown)),
        };
        let what = match (row.kind, row.payload, row.sealed_payload) {
            (None, _, _) => What::Tombstone,
            (Some(kind), payload, sealed) => {
                let version = u16::try_from(row.schema_version).ok();
                let (Ok(kind), Some(schema_version)) = (kind.parse::<Kind>(), version) else {
                    return Ok(Err(Unfit::Unknown));
                };
                let payload = match (payload, sealed) {
                    (Some(plain), _) => plain,
                    (None, Some(sealed)) => {
                        let cipher = self.keys.of(self.tx.connection(), tenant).await?;
                        cipher.open_json(PUBLISHED, row.event_id, &sealed)?
                    }
                    (None, None) => return Ok(Err(Unfit::Unknown)),
                };
                What::Told { kind, schema_version, payload }
            }
        };
        let Ok(seq) = u64::try_from(row.seq) else { return Ok(Err(Unfit::Unknown)) };
        Ok(Ok(Unsent {
            tenant,
            id: row.event_id,
            aggregate,
            aggregate_id: row.aggregate_id,
            seq,
            at: row.at,
            what,
            traceparent: row.traceparent,
        }))
    }

    /// What waits, whoever leads.
    pub async fn backlog(&mut self) -> Result<Backlog, Error> {
        let (counted, distance, age, parked): (i64, Option<i64>, Option<f64>, i64) =
            sqlx::query_as(
                "SELECT (SELECT count(*) FROM (SELECT FROM event_outbox LIMIT $1) AS waits),
                (SELECT max(id) - min(id) + 1 FROM event_outbox),
                (SELECT extract(epoch FROM clock_timestamp() - at)::float8 FROM event_outbox
                    WHERE parked_at IS NULL ORDER BY event_outbox.id LIMIT 1),
                (SELECT count(*) FROM event_outbox WHERE parked_at IS NOT NULL)",
            )
            .bind(COUNTED)
            .fetch_one(self.tx.connection())
            .await?;
        let events = if counted < COUNTED { counted } else { distance.unwrap_or(counted) };
        let number = |count| u64::try_from(count).unwrap_or(0);
        Ok(Backlog {
            events: number(events),
            age: Duration::try_from_secs_f64(age.unwrap_or(0.0)).unwrap_or_default(),
            parked: number(parked),
        })
    }

    /// Makes it last.
    pub async fn commit(self) -> Result<(), Error> {
        self.tx.commit().await
    }
}
