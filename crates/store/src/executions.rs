//! Executions of one tenant: submitting and reading. What becomes of one is [`crate::attempts`]'.
//! Knows nothing of queues and sandboxes.

use gatehouse_contract::{AgentId, AgentVersionId, ExecutionId};
use gatehouse_events::{Event as Told, event::ExecutionSubmitted};
use gatehouse_execution::{EndReason, ExecutionState};
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
pub(crate) fn input(
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

pub(crate) fn count(number: i32) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| Error::Unreadable { what: "attempt" })
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
}

/// Bytes as they are counted: a length is never beyond the type.
pub(crate) fn size(sealed: &[u8]) -> u64 {
    u64::try_from(sealed.len()).unwrap_or(u64::MAX)
}

pub(crate) fn epoch(number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| Error::Unreadable { what: "lease_epoch" })
}
