//! Executions of one tenant: submitting, reading, and the worker's claim and report.
//! Which transition is possible is decided by the table in `gatehouse_execution`; a change counts only under the
//! lease epoch of its claim. Knows nothing of queues and sandboxes.

use std::time::Duration;

use gatehouse_contract::{AgentId, AgentVersionId, ExecutionId};
use gatehouse_events::{
    Event as Told,
    event::{ExecutionEnded, ExecutionStarted, ExecutionSubmitted, Nothing},
};
use gatehouse_execution::{EndReason, ExecutionState, ImageRef, outcome::Outcome, state::Event};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Error, TenantTx, data_keys::Cipher, paging::Page, usage::Counted};

/// What is submitted.
#[derive(Debug, Clone, PartialEq)]
pub struct NewExecution {
    /// Its id.
    pub id: ExecutionId,
    /// The agent that the version belongs to.
    pub agent: AgentId,
    /// What to run.
    pub version: AgentVersionId,
    /// What the agent reads.
    pub input: Value,
}

/// An execution as its tenant sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// Its id.
    pub id: ExecutionId,
    /// The agent.
    pub agent: AgentId,
    /// The version that runs.
    pub version: AgentVersionId,
    /// Where it stands.
    pub state: ExecutionState,
    /// 1 is the first; 0 before that.
    pub attempt: u32,
    /// What the agent read.
    pub input: Value,
    /// What it wrote.
    pub output: Option<Value>,
    /// Why the last attempt ended.
    pub end_reason: Option<EndReason>,
    /// The same for people.
    pub error: Option<String>,
    /// When it was submitted.
    pub created_at: OffsetDateTime,
    /// When the last attempt started.
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    pub completed_at: Option<OffsetDateTime>,
}

/// An execution that this worker holds, and everything it needs to run it.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// Its id.
    pub execution: ExecutionId,
    /// The agent.
    pub agent: AgentId,
    /// The agent's name.
    pub agent_name: String,
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
    /// No further attempt after this many.
    pub max_attempts: u32,
    /// Wall time of the run.
    pub timeout: Duration,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    agent_id: Uuid,
    agent_version_id: Uuid,
    state: String,
    attempt: i32,
    input: Option<Value>,
    sealed_input: Option<Vec<u8>>,
    output: Option<Value>,
    sealed_output: Option<Vec<u8>>,
    end_reason: Option<String>,
    error: Option<String>,
    sealed_error: Option<Vec<u8>>,
    created_at: OffsetDateTime,
    started_at: Option<OffsetDateTime>,
    completed_at: Option<OffsetDateTime>,
}

/// Where they are sealed.
pub(crate) const INPUT: &str = "executions.input";
pub(crate) const OUTPUT: &str = "executions.output";
pub(crate) const ERROR: &str = "executions.error";

impl Row {
    fn open(self, cipher: &Cipher) -> Result<Execution, Error> {
        let row = self;
        let input = input(cipher, row.id, row.input, row.sealed_input)?;
        let output = match row.sealed_output {
            Some(sealed) => Some(cipher.open_json(OUTPUT, row.id, &sealed)?),
            None => row.output,
        };
        // What is in the clear is younger: a sweep's word, or one of before errors were sealed.
        let error = match (row.error, row.sealed_error) {
            (None, Some(sealed)) => Some(cipher.open_text(ERROR, row.id, &sealed)?),
            (plain, _) => plain,
        };
        let end_reason = row
            .end_reason
            .map(|reason| reason.parse().map_err(|_| Error::Unreadable { what: "end_reason" }));
        Ok(Execution {
            id: ExecutionId::new(row.id),
            agent: AgentId::new(row.agent_id),
            version: AgentVersionId::new(row.agent_version_id),
            state: state(&row.state)?,
            attempt: count(row.attempt)?,
            input,
            output,
            end_reason: end_reason.transpose()?,
            error,
            created_at: row.created_at,
            started_at: row.started_at,
            completed_at: row.completed_at,
        })
    }
}

pub(crate) fn state(text: &str) -> Result<ExecutionState, Error> {
    text.parse().map_err(|_| Error::Unreadable { what: "state" })
}

/// One that was stored before inputs were sealed is in the clear.
fn input(
    cipher: &Cipher,
    id: Uuid,
    plain: Option<Value>,
    sealed: Option<Vec<u8>>,
) -> Result<Value, Error> {
    match (sealed, plain) {
        (Some(sealed), _) => cipher.open_json(INPUT, id, &sealed),
        (None, Some(plain)) => Ok(plain),
        (None, None) => Err(Error::Unreadable { what: "input" }),
    }
}

fn count(number: i32) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| Error::Unreadable { what: "attempt" })
}

#[derive(sqlx::FromRow)]
struct ClaimRow {
    agent_id: Uuid,
    agent_name: String,
    version: String,
    image: String,
    input: Option<Value>,
    sealed_input: Option<Vec<u8>>,
    lease_epoch: i64,
    attempt: i32,
    max_attempts: i32,
    timeout_s: i32,
    started_at: OffsetDateTime,
}

impl TenantTx<'_> {
    /// Stores an execution as pending; the feeder is woken when the transaction commits. One beyond what the tenant may
    /// submit, store or have waiting is [`Error::QuotaExceeded`].
    pub async fn submit_execution(&mut self, new: &NewExecution) -> Result<Execution, Error> {
        let cipher = self.cipher().await?;
        let sealed = cipher.seal_json(INPUT, new.id, &new.input)?;
        // Always in this order: two that take in another would wait for each other.
        self.take(Counted::Executions, 1).await?;
        self.take(Counted::StorageBytes, size(&sealed)).await?;
        self.take(Counted::QueuedExecutions, 1).await?;
        let row: Row = sqlx::query_as(
            "INSERT INTO executions (tenant_id, id, agent_id, agent_version_id, sealed_input, created_by)
             VALUES ($1, $2, $3, $4, $5, $6)
             RETURNING id, agent_id, agent_version_id, state, attempt, input, sealed_input, output, sealed_output,
                end_reason, error, sealed_error,
                created_at, started_at, completed_at",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(new.id.as_uuid())
        .bind(new.agent.as_uuid())
        .bind(new.version.as_uuid())
        .bind(sealed)
        .bind(&self.op.subject)
        .fetch_one(self.connection())
        .await?;
        let told = json!({"new": {"agent": new.agent, "version": new.version}});
        self.within().audit_change("execution.submit", "execution", new.id, told).await?;
        let told = Told::ExecutionSubmitted(ExecutionSubmitted {
            agent_id: new.agent,
            version_id: new.version,
            input: new.input.clone(),
            created_at: row.created_at,
        });
        self.append(new.id.as_uuid(), &told).await?;
        row.open(&cipher)
    }

    /// An execution by id.
    pub async fn execution(&mut self, id: ExecutionId) -> Result<Option<Execution>, Error> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT id, agent_id, agent_version_id, state, attempt, input, sealed_input, output, sealed_output,
                end_reason, error, sealed_error,
                created_at, started_at, completed_at
             FROM executions WHERE id = $1",
        )
        .bind(id.as_uuid())
        .fetch_optional(self.connection())
        .await?;
        let Some(row) = row else { return Ok(None) };
        row.open(&*self.cipher().await?).map(Some)
    }

    /// A page of the executions.
    pub async fn list_executions(&mut self, page: &Page) -> Result<Vec<Execution>, Error> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, agent_id, agent_version_id, state, attempt, input, sealed_input, output, sealed_output,
                end_reason, error, sealed_error,
                created_at, started_at, completed_at
             FROM executions WHERE (created_at, id) < ($1, $2) ORDER BY created_at DESC, id DESC LIMIT $3",
        )
        .bind(page.after.created_at)
        .bind(page.after.id)
        .bind(page.limit)
        .fetch_all(self.connection())
        .await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let cipher = self.cipher().await?;
        rows.into_iter().map(|row| row.open(&cipher)).collect()
    }

    /// Takes a queued execution for `worker` (its incarnation). `None` when it is not queued: another worker has
    /// it, it ended, or it is no execution of this tenant. Commit before the run starts.
    pub async fn claim_execution(
        &mut self,
        id: ExecutionId,
        worker: &str,
    ) -> Result<Option<Claimed>, Error> {
        // The lock is waited for: a feeder that has just offered it may not have committed yet, and the state
        // read after the wait is the one that counts.
        let found = self.locked_state(id).await?;
        if found.is_none_or(|(state, ..)| state.after(Event::Claim).is_err()) {
            return Ok(None);
        }
        let row: ClaimRow = sqlx::query_as(
            "UPDATE executions e
             SET state = 'running', lease_epoch = e.lease_epoch + 1, attempt = e.attempt + 1, worker = $2,
                started_at = now(), end_reason = NULL, error = NULL, sealed_error = NULL, due_at = NULL
             FROM agent_versions v JOIN agents a ON a.tenant_id = v.tenant_id AND a.id = v.agent_id
             WHERE e.id = $1 AND v.tenant_id = e.tenant_id AND v.id = e.agent_version_id
             RETURNING e.agent_id, a.name AS agent_name, v.version, v.image, e.input,
                e.sealed_input, e.lease_epoch, e.attempt,
                e.max_attempts, e.timeout_s, e.started_at",
        )
        .bind(id.as_uuid())
        .bind(worker)
        .fetch_one(self.connection())
        .await?;
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
            version: row.version,
            image: row.image.parse().map_err(|_| Error::Unreadable { what: "image" })?,
            input: input(&*self.cipher().await?, id.as_uuid(), row.input, row.sealed_input)?,
            lease_epoch: epoch(row.lease_epoch)?,
            attempt: count(row.attempt)?,
            max_attempts: count(row.max_attempts)?,
            timeout: Duration::from_secs(u64::from(count(row.timeout_s)?)),
        }))
    }

    /// Stores how the attempt ended and returns the state that follows (a retry gets its due time by full
    /// jitter). `None` when the lease is no longer this one: the result is another's to report.
    pub async fn complete_execution(
        &mut self,
        id: ExecutionId,
        lease_epoch: u64,
        outcome: &Outcome,
    ) -> Result<Option<ExecutionState>, Error> {
        let Some((from, held, attempt, max_attempts)) = self.locked_state(id).await? else {
            return Ok(None);
        };
        let event = outcome.reason.event(attempt, max_attempts);
        let (true, Ok(to)) = (held == lease_epoch, from.after(event)) else { return Ok(None) };
        let sealed = match &outcome.output {
            Some(output) => Some(self.cipher().await?.seal_json(OUTPUT, id, output)?),
            None => None,
        };
        // It may repeat what the agent read.
        let error = match &outcome.message {
            Some(message) => Some(self.cipher().await?.seal(ERROR, id, message.as_bytes())?),
            None => None,
        };
        let stored = sealed.as_ref().map_or(0, |sealed| size(sealed));
        self.count_output(id, stored).await?;
        let completed_at: Option<OffsetDateTime> = sqlx::query_scalar(
            "UPDATE executions
             SET state = $2, output = NULL, sealed_output = $3, end_reason = $4, error = NULL, sealed_error = $5,
                completed_at = CASE WHEN $6 THEN now() END,
                due_at = CASE WHEN $2 = 'retry'
                    THEN now() + random() * least(power(2, attempt), 60) * interval '1 second' END
             WHERE id = $1 RETURNING completed_at",
        )
        .bind(id.as_uuid())
        .bind(to.as_str())
        .bind(sealed)
        .bind(outcome.reason.as_str())
        .bind(error)
        .bind(to.is_settled())
        .fetch_one(self.connection())
        .await?;
        let how = ExecutionEnded {
            end_reason: outcome.reason,
            output: outcome.output.clone(),
            error: outcome.message.clone(),
            completed_at,
        };
        let told = Told::ended(to, how).ok_or(Error::Unreadable { what: "state" })?;
        self.append(id.as_uuid(), &told).await?;
        Ok(Some(to))
    }

    /// Gives a claimed execution back unrun (shutdown): queued again, the attempt not counted. `false` when the
    /// lease is no longer this one. The caller offers it again, or the sweep does.
    pub async fn release_execution(
        &mut self,
        id: ExecutionId,
        lease_epoch: u64,
    ) -> Result<bool, Error> {
        let Some((from, held, ..)) = self.locked_state(id).await? else { return Ok(false) };
        let (true, Ok(to)) = (held == lease_epoch, from.after(Event::Release)) else {
            return Ok(false);
        };
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

    /// Whether the claim under this epoch still stands; a worker whose claim does not must end its sandbox.
    pub async fn holds_lease(&mut self, id: ExecutionId, lease_epoch: u64) -> Result<bool, Error> {
        let row: Option<(String, i64)> =
            sqlx::query_as("SELECT state, lease_epoch FROM executions WHERE id = $1")
                .bind(id.as_uuid())
                .fetch_optional(self.connection())
                .await?;
        let Some((text, held)) = row else { return Ok(false) };
        Ok(state(&text)? == ExecutionState::Running && epoch(held)? == lease_epoch)
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

    /// State, lease epoch, attempt and allowed attempts, with the row locked.
    async fn locked_state(
        &mut self,
        id: ExecutionId,
    ) -> Result<Option<(ExecutionState, u64, u32, u32)>, Error> {
        let row: Option<(String, i64, i32, i32)> = sqlx::query_as(
            "SELECT state, lease_epoch, attempt, max_attempts FROM executions WHERE id = $1 FOR UPDATE",
        )
        .bind(id.as_uuid())
        .fetch_optional(self.connection())
        .await?;
        row.map(|(text, held, attempt, max)| {
            Ok((state(&text)?, epoch(held)?, count(attempt)?, count(max)?))
        })
        .transpose()
    }
}

/// Bytes as they are counted: a length is never beyond the type.
fn size(sealed: &[u8]) -> u64 {
    u64::try_from(sealed.len()).unwrap_or(u64::MAX)
}

fn epoch(number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| Error::Unreadable { what: "lease_epoch" })
}
