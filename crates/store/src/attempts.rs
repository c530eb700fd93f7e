//! What becomes of an execution: claimed by a worker, ended, given back, cancelled. Which transition is possible is decided
//! by the table in `gatehouse_execution`; a worker's word counts only under the lease epoch of its claim; each transition
//! tells its event in its own transaction. How many of a tenant run at once is bounded here, where one begins to.
//! Knows nothing of queues and sandboxes.

use gatehouse_contract::{AgentId, AgentVersionId, ExecutionId, TenantId, Tier};
use gatehouse_events::{
    Event as Told,
    event::{ExecutionEnded, ExecutionStarted, Nothing},
};
use gatehouse_execution::{
    EndReason, ExecutionState, Hooks, ImageRef, Limits, Record,
    egress::{Host, Hosts},
    outcome::Outcome,
    provenance::Provenance,
    state::Event,
};
use serde_json::{Value, json};
use sqlx::PgConnection;
use time::{OffsetDateTime, UtcOffset};
use uuid::Uuid;

use crate::{
    Error, TenantTx,
    executions::{ERROR, OUTPUT, PROVENANCE, count, epoch, input, limits, size, state},
    hooks::declared,
    metering::Running,
    usage::Counted,
};

/// An execution that this worker holds, and everything it needs to run it.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// Its id.
    pub execution: ExecutionId,
    /// The agent.
    pub agent: AgentId,
    /// The agent's name.
    pub agent_name: String,
    /// The version.
    pub version_id: AgentVersionId,
    /// The version's name.
    pub version: String,
    /// The image, below the tenant's own prefix.
    pub image: ImageRef,
    /// What the agent reads.
    pub input: Value,
    /// The fencing token: bring it with the result.
    pub lease_epoch: u64,
    /// 1 is the first.
    pub attempt: u32,
    /// No further attempt after this many that count.
    pub max_attempts: u32,
    /// What the run may use: the platform's, the version's, and what was asked for this one.
    pub limits: Limits,
    /// What its output must fit (JSON Schema 2020-12).
    pub output_schema: Option<Value>,
    /// The hosts that it may ask. None is no network.
    pub egress: Hosts,
    /// The commands around it.
    pub hooks: Hooks,
}

/// Who claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimant<'a> {
    /// Its incarnation.
    pub worker: &'a str,
    /// The configuration under which it does.
    pub config: Option<&'a str>,
}

impl<'a> From<&'a str> for Claimant<'a> {
    fn from(worker: &'a str) -> Self {
        Self { worker, config: None }
    }
}

/// What became of the wish to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// It had not begun, or waited for its next attempt: it is cancelled.
    Done,
    /// It runs: its worker was told to end it. What it brings until then may still come first.
    Asked,
    /// It had ended so before; nothing changed.
    Ended(ExecutionState),
}

/// What a cancelled execution's tenant reads.
const CANCELLED: &str = "cancelled";

#[derive(sqlx::FromRow)]
struct ClaimRow {
    agent_id: Uuid,
    agent_name: String,
    agent_version_id: Uuid,
    version: String,
    image: String,
    input: Option<Value>,
    sealed_input: Option<Vec<u8>>,
    lease_epoch: i64,
    attempt: i32,
    max_attempts: i32,
    timeout_s: i32,
    limits: Option<Value>,
    output_schema: Option<Value>,
    egress: Vec<String>,
    hooks: Option<Value>,
    started_at: OffsetDateTime,
}

#[derive(sqlx::FromRow)]
struct LockedRow {
    state: String,
    lease_epoch: i64,
    attempt: i32,
    losses: i32,
    max_attempts: i32,
    cancel_asked: bool,
    has_output: bool,
    refunded: bool,
    created_at: OffsetDateTime,
    agent_id: Uuid,
    started_at: Option<OffsetDateTime>,
}

/// A row that is kept until the transaction ends.
struct Locked {
    state: ExecutionState,
    lease_epoch: u64,
    /// Attempts that count against those allowed: not the ones whose worker was lost.
    tried: u32,
    max_attempts: u32,
    cancel_asked: bool,
    has_output: bool,
    /// What the submit was charged was given back.
    refunded: bool,
    created_at: OffsetDateTime,
    runs: Running,
}

impl TryFrom<LockedRow> for Locked {
    type Error = Error;

    fn try_from(row: LockedRow) -> Result<Self, Error> {
        Ok(Self {
            state: state(&row.state)?,
            lease_epoch: epoch(row.lease_epoch)?,
            tried: count(row.attempt)?.saturating_sub(count(row.losses)?),
            max_attempts: count(row.max_attempts)?,
            cancel_asked: row.cancel_asked,
            has_output: row.has_output,
            refunded: row.refunded,
            created_at: row.created_at,
            runs: Running {
                agent: row.agent_id,
                attempt: row.attempt,
                lease_epoch: epoch(row.lease_epoch)?,
                started_at: row.started_at,
            },
        })
    }
}

impl TenantTx<'_> {
    /// Takes a queued execution for `worker` (its incarnation), where the tenant has a slot left for it; where it has none
    /// the execution is pending again, in its old place. `None` when it was not taken: that, or it is not queued because
    /// another worker has it, it ended, or it is no execution of this tenant. Commit in any case, before the run starts.
    ///
    /// A slot is a running row, so that nothing else has to be given back. Whoever else claims for the tenant waits from
    /// here to the end of this transaction, and counts what it left.
    pub async fn claim_execution(
        &mut self,
        id: ExecutionId,
        claimant: impl Into<Claimant<'_>>,
    ) -> Result<Option<Claimed>, Error> {
        let Claimant { worker, config } = claimant.into();
        let tenant = self.op.tenant.as_uuid();
        // The row's lock is waited for: a feeder that has just offered it may not have committed yet, and the state read
        // after the wait is the one that counts.
        let found: Option<String> = sqlx::query_scalar(
            "SELECT state FROM executions WHERE id = $1
             AND (SELECT true FROM pg_advisory_xact_lock(hashtextextended('gatehouse slots ' || $2::text, 0)))
             FOR UPDATE",
        )
        .bind(id.as_uuid())
        .bind(tenant)
        .fetch_optional(self.connection())
        .await?;
        let Some(found) = found else { return Ok(None) };
        if state(&found)?.after(Event::Claim).is_err() {
            return Ok(None);
        }
        // A statement of its own behind the locks: it counts every claim that was committed before.
        let row: Option<ClaimRow> = sqlx::query_as(
            "WITH may AS (
                SELECT coalesce(q.max_concurrent_executions, CASE t.tier WHEN 'free' THEN $4 WHEN 'pro' THEN $5 ELSE $6 END)
                    AS slots
                FROM tenants t LEFT JOIN tenant_quotas q ON q.tenant_id = t.id WHERE t.id = $3)
             UPDATE executions e
             SET state = 'running', lease_epoch = e.lease_epoch + 1, attempt = e.attempt + 1, worker = $2,
                started_at = now(), end_reason = NULL, error = NULL, sealed_error = NULL, due_at = NULL,
                config_version = $7
             FROM agent_versions v JOIN agents a ON a.tenant_id = v.tenant_id AND a.id = v.agent_id
             WHERE e.id = $1 AND v.tenant_id = e.tenant_id AND v.id = e.agent_version_id
             AND (SELECT slots FROM may) > (SELECT count(*) FROM (SELECT FROM executions r
                WHERE r.tenant_id = $3 AND r.state = 'running' LIMIT (SELECT slots FROM may)) AS held)
             RETURNING e.agent_id, a.name AS agent_name, e.agent_version_id, v.version, v.image, e.input,
                e.sealed_input, e.lease_epoch, e.attempt,
                e.max_attempts, e.timeout_s, e.limits, v.output_schema, v.egress, v.hooks,
                e.started_at",
        )
        .bind(id.as_uuid())
        .bind(worker)
        .bind(tenant)
        .bind(slots(Tier::Free))
        .bind(slots(Tier::Pro))
        .bind(slots(Tier::Enterprise))
        .bind(config)
        .fetch_optional(self.connection())
        .await?;
        let Some(row) = row else {
            self.unqueue(id).await?;
            return Ok(None);
        };
        let told = Told::ExecutionStarted(ExecutionStarted {
            worker: worker.to_owned(),
            lease_epoch: epoch(row.lease_epoch)?,
            attempt: count(row.attempt)?,
            started_at: row.started_at,
        });
        self.append(id.as_uuid(), &told).await?;
        Ok(Some(Claimed {
            execution: id,
            agent: AgentId::new(row.agent_id),
            agent_name: row.agent_name,
            version_id: AgentVersionId::new(row.agent_version_id),
            version: row.version,
            image: row.image.parse().map_err(|_| Error::Unreadable { what: "image" })?,
            input: input(&*self.cipher().await?, id.as_uuid(), row.input, row.sealed_input)?,
            lease_epoch: epoch(row.lease_epoch)?,
            attempt: count(row.attempt)?,
            max_attempts: count(row.max_attempts)?,
            limits: limits(row.limits.as_ref(), row.timeout_s)?,
            output_schema: row.output_schema,
            egress: hosts(&row.egress)?,
            hooks: declared(row.hooks.as_ref())?,
        }))
    }

    /// Back to where it waited: every slot of the tenant is taken.
    async fn unqueue(&mut self, id: ExecutionId) -> Result<(), Error> {
        let to = ExecutionState::Queued.after(Event::Unqueue);
        let to = to.map_err(|_| Error::Unreadable { what: "state" })?;
        sqlx::query("UPDATE executions SET state = $2, queued_at = NULL WHERE id = $1")
            .bind(id.as_uuid())
            .bind(to.as_str())
            .execute(self.connection())
            .await?;
        self.append(id.as_uuid(), &Told::ExecutionUnqueued(Nothing {})).await
    }

    /// Stores how the attempt ended and returns the state that follows (a retry gets its due time by full
    /// jitter; none is made where the caller wants it ended). What the attempt used is metered with its end, once. `None` when
    /// the lease is no longer this one: the result is another's to report, and only what a lost run used is added to its row.
    pub async fn complete_execution(
        &mut self,
        id: ExecutionId,
        lease_epoch: u64,
        outcome: &Outcome,
        record: &Record,
    ) -> Result<Option<ExecutionState>, Error> {
        let Some(held) = self.locked(id).await? else { return Ok(None) };
        let event = outcome.reason.event(held.tried, held.max_attempts);
        let (event, reason) = match event {
            Event::Retry | Event::GiveUp if held.cancel_asked => {
                (Event::Cancel, EndReason::Cancelled)
            }
            event => (event, outcome.reason),
        };
        let ours = held.lease_epoch == lease_epoch;
        let (true, Ok(to)) = (ours, held.state.after(event)) else {
            self.meter_lost(id, lease_epoch, record).await?;
            return Ok(None);
        };
        self.keep_log(id, lease_epoch, &record.log).await?;
        if to.is_settled() {
            self.settle(id, &held, reason.is_charged()).await?;
        }
        self.meter(id, &held.runs, reason, record).await?;
        let outcome = Outcome { reason, ..outcome.clone() };
        let provenance = record.provenance.as_ref().filter(|_| to == ExecutionState::Completed);
        self.end(id, to, outcome, held.has_output, provenance).await?;
        Ok(Some(to))
    }

    /// Ends an execution that has not begun, and has one that runs ended by its worker. `None` where there is no such
    /// execution. Asked for again it changes nothing.
    pub async fn cancel_execution(&mut self, id: ExecutionId) -> Result<Option<Cancel>, Error> {
        let Some(held) = self.locked(id).await? else { return Ok(None) };
        let Ok(to) = held.state.after(Event::Cancel) else {
            return Ok(Some(Cancel::Ended(held.state)));
        };
        let runs = held.state == ExecutionState::Running;
        if runs && held.cancel_asked {
            return Ok(Some(Cancel::Asked));
        }
        if runs {
            sqlx::query("UPDATE executions SET cancel_asked_at = now() WHERE id = $1")
                .bind(id.as_uuid())
                .execute(self.connection())
                .await?;
        } else {
            let (output, message) = (None, Some(CANCELLED.to_owned()));
            let outcome = Outcome { reason: EndReason::Cancelled, output, message };
            self.end(id, to, outcome, held.has_output, None).await?;
        }
        let told = json!({"old": {"state": held.state}});
        self.within().audit_change("execution.cancel", "execution", id, told).await?;
        Ok(Some(if runs { Cancel::Asked } else { Cancel::Done }))
    }

    /// Writes an end and tells of it. The row must be locked.
    async fn end(
        &mut self,
        id: ExecutionId,
        to: ExecutionState,
        outcome: Outcome,
        had_output: bool,
        provenance: Option<&Provenance>,
    ) -> Result<(), Error> {
        let sealed = match &outcome.output {
            Some(output) => Some(self.cipher().await?.seal_json(OUTPUT, id, output)?),
            None => None,
        };
        // It may repeat what the agent read.
        let error = match &outcome.message {
            Some(message) => Some(self.cipher().await?.seal(ERROR, id, message.as_bytes())?),
            None => None,
        };
        if sealed.is_some() || had_output {
            let stored = sealed.as_ref().map_or(0, |sealed| size(sealed));
            self.count_output(id, stored).await?;
        }
        let broken = |_| Error::Unreadable { what: "provenance" };
        let hash = provenance.map(Provenance::hash).transpose().map_err(broken)?;
        let sealed_provenance = match provenance {
            Some(document) => {
                let document = serde_json::to_value(document);
                let document = document.map_err(|_| Error::Unreadable { what: "provenance" })?;
                Some(self.cipher().await?.seal_json(PROVENANCE, id, &document)?)
            }
            None => None,
        };
        let completed_at: Option<OffsetDateTime> = sqlx::query_scalar(
            "UPDATE executions
             SET state = $2, output = NULL, sealed_output = $3, end_reason = $4, error = NULL, sealed_error = $5,
                completed_at = CASE WHEN $6 THEN now() END, provenance_hash = $7, sealed_provenance = $8,
                due_at = CASE WHEN $2 = 'retry'
                    THEN now() + random() * least(power(2, attempt - losses), 60) * interval '1 second' END
             WHERE id = $1 RETURNING completed_at",
        )
        .bind(id.as_uuid())
        .bind(to.as_str())
        .bind(sealed)
        .bind(outcome.reason.as_str())
        .bind(error)
        .bind(to.is_settled())
        .bind(hash.map(|hash| hash.to_string()))
        .bind(sealed_provenance)
        .fetch_one(self.connection())
        .await?;
        let how = ExecutionEnded {
            end_reason: outcome.reason,
            output: outcome.output,
            error: outcome.message,
            completed_at,
            provenance_hash: hash,
        };
        let told = Told::ended(to, how).ok_or(Error::Unreadable { what: "state" })?;
        self.append(id.as_uuid(), &told).await
    }

    /// Gives a claimed execution back unrun (shutdown): queued again, the attempt not counted; cancelled where its caller
    /// wants it ended. `false` when the lease is no longer this one. The caller offers it again, or the sweep does. It is not
    /// metered but for its end, and then with nothing.
    pub async fn release_execution(
        &mut self,
        id: ExecutionId,
        lease_epoch: u64,
    ) -> Result<bool, Error> {
        let Some(held) = self.locked(id).await? else { return Ok(false) };
        let event = if held.cancel_asked { Event::Cancel } else { Event::Release };
        let (true, Ok(to)) = (held.lease_epoch == lease_epoch, held.state.after(event)) else {
            return Ok(false);
        };
        if held.cancel_asked {
            let (output, message) = (None, Some(CANCELLED.to_owned()));
            let outcome = Outcome { reason: EndReason::Cancelled, output, message };
            self.meter(id, &held.runs, EndReason::Cancelled, &Record::default()).await?;
            self.end(id, to, outcome, held.has_output, None).await?;
            return Ok(true);
        }
        sqlx::query(
            "UPDATE executions SET state = $2, attempt = attempt - 1, started_at = NULL, queued_at = NULL
             WHERE id = $1",
        )
        .bind(id.as_uuid())
        .bind(to.as_str())
        .execute(self.connection())
        .await?;
        self.append(id.as_uuid(), &Told::ExecutionReleased(Nothing {})).await?;
        Ok(true)
    }

    /// Counts an output of `bytes` in the place of the one before, in the month of its execution. What was worked for is
    /// kept, whatever the limit: the next submit finds it used up. The row must be locked.
    async fn count_output(&mut self, id: ExecutionId, bytes: u64) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO usage_counters AS c (tenant_id, quota, day, used)
             SELECT tenant_id, 'storage_bytes', date_trunc('month', created_at AT TIME ZONE 'UTC')::date, $2
             FROM executions WHERE id = $1 AND $2 <> coalesce(octet_length(sealed_output), 0)
             ON CONFLICT (tenant_id, quota, day) DO UPDATE SET used = greatest(0, c.used + $2 - (
                SELECT coalesce(octet_length(e.sealed_output), 0) FROM executions e WHERE e.id = $1))",
        )
        .bind(id.as_uuid())
        .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Gives back what the submit was charged, on its day, where the end is not charged; takes it again where an execution
    /// that was started anew has one that is.
    async fn settle(&mut self, id: ExecutionId, held: &Locked, charged: bool) -> Result<(), Error> {
        if charged != held.refunded {
            return Ok(());
        }
        sqlx::query(
            "WITH marked AS (UPDATE executions SET refunded = NOT $4 WHERE id = $5)
             UPDATE usage_counters SET used = greatest(used + CASE WHEN $4 THEN 1 ELSE -1 END, 0)
             WHERE tenant_id = $1 AND quota = $2 AND day = $3",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(Counted::Executions.as_str())
        .bind(held.created_at.to_offset(UtcOffset::UTC).date())
        .bind(charged)
        .bind(id.as_uuid())
        .execute(self.connection())
        .await?;
        Ok(())
    }

    async fn locked(&mut self, id: ExecutionId) -> Result<Option<Locked>, Error> {
        let row: Option<LockedRow> = sqlx::query_as(
            "SELECT state, lease_epoch, attempt, losses, max_attempts, cancel_asked_at IS NOT NULL AS cancel_asked,
                sealed_output IS NOT NULL AS has_output, refunded, created_at, agent_id, started_at
             FROM executions WHERE id = $1 FOR UPDATE",
        )
        .bind(id.as_uuid())
        .fetch_optional(self.connection())
        .await?;
        row.map(TryInto::try_into).transpose()
    }
}

/// Lets no other transaction give away a slot of `tenant` until this one ends: whoever counts after it sees what it changed.
pub(crate) async fn keep_slots(
    connection: &mut PgConnection,
    tenant: TenantId,
) -> Result<(), Error> {
    sqlx::query(
        "SELECT pg_advisory_xact_lock(hashtextextended('gatehouse slots ' || $1::text, 0))",
    )
    .bind(tenant.as_uuid())
    .execute(connection)
    .await?;
    Ok(())
}

/// How many of a tier run at once.
pub(crate) fn slots(tier: Tier) -> i64 {
    i64::try_from(Counted::ConcurrentExecutions.of_tier(tier)).unwrap_or(i64::MAX)
}

fn hosts(stored: &[String]) -> Result<Hosts, Error> {
    let hosts = stored.iter().map(|host| host.parse::<Host>()).collect::<Result<Hosts, _>>();
    hosts.map_err(|_| Error::Unreadable { what: "egress" })
}
