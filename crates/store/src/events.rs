//! Events: appended in the transaction of what they tell, with the row that has them published, and read back as a history
//! or as the state that they add up to. Agents and executions are rebuilt from theirs; of a tenant they are only told.
//! Knows nothing of what an event means, nor of Kafka.

use gatehouse_audit::Seal;
use gatehouse_contract::{AgentId, ExecutionId};
use gatehouse_events::{Agent, Aggregate, Event, Execution, Kind, published};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::{Builder, Uuid};

use crate::{Error, SystemTx, TenantTx, Within, data_keys::Cipher, master_keys::random};

/// Where payloads are sealed; the event's id names the row.
const PAYLOAD: &str = "event_store.payload";
pub(crate) const PUBLISHED: &str = "event_outbox.payload";

/// Most events that a page of a history has.
pub const PAGE: u32 = 200;

/// An event as it was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Its id, published as `ce_id`.
    pub id: Uuid,
    /// 1 is its aggregate's first; without gaps.
    pub seq: u64,
    /// When it was told.
    pub at: OffsetDateTime,
    /// Who did it.
    pub subject: String,
    /// Under which request.
    pub request_id: String,
    /// What happened.
    pub event: Event,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    seq: i64,
    at: OffsetDateTime,
    kind: String,
    schema_version: i32,
    payload: Option<Value>,
    sealed_payload: Option<Vec<u8>>,
    subject: String,
    request_id: String,
}

impl Row {
    fn open(self, cipher: &Cipher) -> Result<Recorded, Error> {
        let unreadable = || Error::Unreadable { what: "event" };
        let kind: Kind = self.kind.parse().map_err(|_| unreadable())?;
        let payload = match (self.payload, self.sealed_payload) {
            (Some(plain), _) => plain,
            (None, Some(sealed)) => cipher.open_json(PAYLOAD, self.id, &sealed)?,
            (None, None) => return Err(unreadable()),
        };
        let version = u16::try_from(self.schema_version).map_err(|_| unreadable())?;
        Ok(Recorded {
            id: self.id,
            seq: u64::try_from(self.seq).map_err(|_| unreadable())?,
            at: self.at,
            subject: self.subject,
            request_id: self.request_id,
            event: Event::read(kind, version, payload).map_err(|_| unreadable())?,
        })
    }
}

impl Within<'_> {
    /// Appends what happened to an aggregate (its id; a tenant's is the tenant's) and has it published. Events of one
    /// aggregate are numbered one after another: whoever appends the next waits for the end of this transaction.
    pub async fn append(&mut self, aggregate: Uuid, event: &Event) -> Result<(), Error> {
        let unreadable = |_| Error::Unreadable { what: "event" };
        let payload = event.payload().map_err(unreadable)?;
        let told = published::payload(event).map_err(unreadable)?;
        let id = new_id()?;
        let cipher = self.cipher().await?;
        let kind = event.kind();
        sqlx::query(
            "WITH e AS (
                INSERT INTO event_store (tenant_id, aggregate_kind, aggregate_id, id, kind, schema_version,
                    sealed_payload, subject, request_id)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING seq, at)
             INSERT INTO event_outbox (tenant_id, event_id, aggregate_kind, aggregate_id, seq, at, kind, schema_version,
                sealed_payload, traceparent)
             SELECT $1, $4, $2, $3, e.seq, e.at, $5, $6, $10, $11 FROM e",
        )
        .bind(self.tenant.as_uuid())
        .bind(kind.aggregate().as_str())
        .bind(aggregate)
        .bind(id)
        .bind(kind.as_str())
        .bind(i32::from(kind.schema_version()))
        .bind(cipher.seal_json(PAYLOAD, id, &payload)?)
        .bind(&self.op.subject)
        .bind(&self.op.request_id)
        .bind(cipher.seal_json(PUBLISHED, id, &told)?)
        .bind(&self.op.traceparent)
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }
}

/// Random, version 4.
fn new_id() -> Result<Uuid, Error> {
    let bytes = random().map_err(|_| Error::Unreadable { what: "event id" })?;
    let (first, _) = bytes.split_first_chunk().ok_or(Error::Unreadable { what: "event id" })?;
    Ok(Builder::from_random_bytes(*first).into_uuid())
}

/// What a job tells of executions, in the statement that moves them: `moved` has their tenant and id, the kind and payload
/// of what is told, and the job. No id is brought for each: there may be hundreds.
macro_rules! tell {
    () => {
        "told AS (
            INSERT INTO event_store (tenant_id, aggregate_kind, aggregate_id, id, kind, schema_version, payload, subject,
                request_id)
            SELECT tenant_id, 'execution', id, gen_random_uuid(), kind, 1, payload, job, job FROM moved
            RETURNING tenant_id, aggregate_id, seq, at, id, kind, payload),
        sent AS (
            INSERT INTO event_outbox (tenant_id, event_id, aggregate_kind, aggregate_id, seq, at, kind, schema_version,
                payload)
            SELECT tenant_id, id, 'execution', aggregate_id, seq, at, kind, 1, payload FROM told)"
    };
}
pub(crate) use tell;

impl SystemTx {
    /// Tells that what a seal covers was audited: names of actions and the rows' hashes, nothing that they say.
    pub(crate) async fn tell_sealed(&mut self, seal: &Seal) -> Result<(), Error> {
        let broken = |_| Error::Unreadable { what: "id" };
        let ids: Result<Vec<i64>, _> = seal.rows.iter().map(|(id, _)| i64::try_from(*id)).collect();
        let hashes: Vec<Vec<u8>> =
            seal.rows.iter().map(|(_, hash)| hash.as_bytes().to_vec()).collect();
        sqlx::query(
            "INSERT INTO event_outbox (tenant_id, event_id, aggregate_kind, aggregate_id, seq, at, kind, schema_version,
                payload)
             SELECT $1, gen_random_uuid(), 'tenant', $1, 0, a.at, 'audit.recorded', 1, jsonb_build_object('row', a.id,
                'hash', encode(s.hash, 'hex'), 'action', a.action, 'target_kind', a.target_kind)
             FROM unnest($2::bigint[], $3::bytea[]) WITH ORDINALITY AS s (id, hash, n)
             JOIN tenant_audit a ON a.tenant_id = $1 AND a.id = s.id ORDER BY s.n",
        )
        .bind(seal.tenant.as_uuid())
        .bind(ids.map_err(broken)?)
        .bind(hashes)
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

impl TenantTx<'_> {
    /// As [`Within::append`].
    pub async fn append(&mut self, aggregate: Uuid, event: &Event) -> Result<(), Error> {
        self.within().append(aggregate, event).await
    }

    /// The events of an aggregate below `before`, the newest first; at most `limit`, at most [`PAGE`].
    pub async fn history(
        &mut self,
        of: Aggregate,
        id: Uuid,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<Recorded>, Error> {
        let before = before.and_then(|seq| i64::try_from(seq).ok()).unwrap_or(i64::MAX);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, seq, at, kind, schema_version, payload, sealed_payload, subject, request_id FROM event_store
             WHERE tenant_id = $1 AND aggregate_kind = $2 AND aggregate_id = $3 AND seq < $4
             ORDER BY seq DESC LIMIT $5",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(of.as_str())
        .bind(id)
        .bind(before)
        .bind(i64::from(limit.min(PAGE)))
        .fetch_all(self.connection())
        .await?;
        self.opened(rows).await
    }

    /// The events of an aggregate above `after`, the oldest first; at most `limit`, at most [`PAGE`].
    pub(crate) async fn events_after(
        &mut self,
        (of, id): (Aggregate, Uuid),
        after: u64,
        limit: u32,
    ) -> Result<Vec<Recorded>, Error> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, seq, at, kind, schema_version, payload, sealed_payload, subject, request_id FROM event_store
             WHERE tenant_id = $1 AND aggregate_kind = $2 AND aggregate_id = $3 AND seq > $4
             ORDER BY seq LIMIT $5",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(of.as_str())
        .bind(id)
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(i64::from(limit.min(PAGE)))
        .fetch_all(self.connection())
        .await?;
        self.opened(rows).await
    }

    /// All events of an aggregate up to the last one of `at` or earlier, in order; all there are without `at`.
    async fn story(
        &mut self,
        of: Aggregate,
        id: Uuid,
        at: Option<OffsetDateTime>,
    ) -> Result<Vec<Recorded>, Error> {
        // Times were read before the numbers were had: the highest number that had come by then decides.
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, seq, at, kind, schema_version, payload, sealed_payload, subject, request_id FROM event_store
             WHERE tenant_id = $1 AND aggregate_kind = $2 AND aggregate_id = $3
             AND ($4::timestamptz IS NULL OR seq <= (SELECT max(e.seq) FROM event_store e
                WHERE e.tenant_id = $1 AND e.aggregate_kind = $2 AND e.aggregate_id = $3 AND e.at <= $4))
             ORDER BY seq",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(of.as_str())
        .bind(id)
        .bind(at)
        .fetch_all(self.connection())
        .await?;
        self.opened(rows).await
    }

    async fn opened(&mut self, rows: Vec<Row>) -> Result<Vec<Recorded>, Error> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let cipher = self.cipher().await?;
        rows.into_iter().map(|row| row.open(&cipher)).collect()
    }

    /// An agent as it was at a time (now where none is said), rebuilt from its events. `None` where it has no event by
    /// then.
    ///
    /// # Errors
    /// [`Error::Unreadable`] where the events do not add up: it is older than events are, or they were changed.
    pub async fn agent_at(
        &mut self,
        id: AgentId,
        at: Option<OffsetDateTime>,
    ) -> Result<Option<Agent>, Error> {
        let story = self.story(Aggregate::Agent, id.as_uuid(), at).await?;
        rebuilt(story, Agent::after)
    }

    /// An execution as it was at a time. As [`Self::agent_at`].
    ///
    /// # Errors
    /// As [`Self::agent_at`].
    pub async fn execution_at(
        &mut self,
        id: ExecutionId,
        at: Option<OffsetDateTime>,
    ) -> Result<Option<Execution>, Error> {
        let story = self.story(Aggregate::Execution, id.as_uuid(), at).await?;
        rebuilt(story, Execution::after)
    }
}

fn rebuilt<T, E>(
    story: Vec<Recorded>,
    after: impl Fn(Option<T>, Event) -> Result<T, E>,
) -> Result<Option<T>, Error> {
    story
        .into_iter()
        .try_fold(None, |state, recorded| after(state, recorded.event).map(Some))
        .map_err(|_| Error::Unreadable { what: "events" })
}
