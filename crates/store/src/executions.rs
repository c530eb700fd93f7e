//! Executions of one tenant: submitting and reading. What becomes of one is [`crate::attempts`]'.
//! Knows nothing of queues and sandboxes.

use std::time::Duration;

use gatehouse_contract::{AgentId, AgentVersionId, ExecutionId};
use gatehouse_events::{Event as Told, event::ExecutionSubmitted};
use gatehouse_execution::{
    EndReason, ExecutionState, Limits,
    limits::{Limit, Named},
};
use serde_json::{Value, json};
use sqlx::{Postgres, QueryBuilder};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Error, TenantTx, data_keys::Cipher, paging::Page, usage::Counted, versions::named};

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
    /// How it is run.
    pub terms: Terms,
}

/// How an execution is run, where it is not as all are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// 0 is the most urgent, 3 the least.
    pub priority: u8,
    /// What of the limits is not the platform's: its version's, and what was asked for this one in their place.
    pub limits: Named,
    /// No further attempt after this many that count.
    pub max_attempts: u32,
    /// The execution that this one is submitted again for.
    pub retry_of: Option<ExecutionId>,
}

impl Default for Terms {
    fn default() -> Self {
        Self { priority: 1, limits: Named::default(), max_attempts: 3, retry_of: None }
    }
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
    /// How it is run.
    pub terms: Terms,
    /// What a run of it may use: what those terms come to.
    pub limits: Limits,
    /// Attempts whose worker was lost.
    pub losses: u32,
    /// Whether it runs and shall end: its worker was told.
    pub cancel_asked: bool,
    /// When it was last offered to the workers, unless it was taken back since.
    pub queued_at: Option<OffsetDateTime>,
    /// When the next attempt is due.
    pub due_at: Option<OffsetDateTime>,
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
    losses: i32,
    priority: i16,
    limits: Option<Value>,
    timeout_s: i32,
    max_attempts: i32,
    retry_of: Option<Uuid>,
    cancel_asked: bool,
    queued_at: Option<OffsetDateTime>,
    due_at: Option<OffsetDateTime>,
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

/// What of `executions e` a [`Row`] has.
macro_rules! columns {
    () => {
        "e.id, e.agent_id, e.agent_version_id, e.state, e.attempt, e.losses, e.priority, e.limits, e.timeout_s,
         e.max_attempts, e.retry_of, e.cancel_asked_at IS NOT NULL AS cancel_asked, e.queued_at, e.due_at, e.input,
         e.sealed_input, e.output, e.sealed_output, e.end_reason, e.error, e.sealed_error, e.created_at, e.started_at,
         e.completed_at"
    };
}

/// Where they are sealed.
pub(crate) const INPUT: &str = "executions.input";
pub(crate) const OUTPUT: &str = "executions.output";
pub(crate) const ERROR: &str = "executions.error";
pub(crate) const PROVENANCE: &str = "executions.provenance";

impl Row {
    fn open(self, cipher: &Cipher) -> Result<Execution, Error> {
        let row = self;
        let input = input(cipher, row.id, row.input, row.sealed_input)?;
        let output = match row.sealed_output {
            Some(sealed) => Some(cipher.open_json(OUTPUT, row.id, &sealed)?),
            None => row.output,
        };
        let error = error(cipher, row.id, row.error, row.sealed_error)?;
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
            terms: Terms {
                priority: row
                    .priority
                    .try_into()
                    .map_err(|_| Error::Unreadable { what: "priority" })?,
                limits: named(row.limits.as_ref())?,
                max_attempts: count(row.max_attempts)?,
                retry_of: row.retry_of.map(ExecutionId::new),
            },
            limits: limits(row.limits.as_ref(), row.timeout_s)?,
            losses: count(row.losses)?,
            cancel_asked: row.cancel_asked,
            queued_at: row.queued_at,
            due_at: row.due_at,
            output,
            end_reason: end_reason.transpose()?,
            error,
            created_at: row.created_at,
            started_at: row.started_at,
            completed_at: row.completed_at,
        })
    }
}

/// What a stored execution may use.
pub(crate) fn limits(stored: Option<&Value>, timeout_s: i32) -> Result<Limits, Error> {
    let timeout = Duration::from_secs(u64::from(count(timeout_s)?));
    Ok(Limits { timeout, ..Limits::default().with(&named(stored)?) })
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

/// What is in the clear is younger: a sweep's word, or one of before errors were sealed.
pub(crate) fn error(
    cipher: &Cipher,
    id: Uuid,
    plain: Option<String>,
    sealed: Option<Vec<u8>>,
) -> Result<Option<String>, Error> {
    match (plain, sealed) {
        (None, Some(sealed)) => cipher.open_text(ERROR, id, &sealed).map(Some),
        (plain, _) => Ok(plain),
    }
}

pub(crate) fn count(number: i32) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| Error::Unreadable { what: "attempt" })
}

/// Which executions a list has: those that all of these find.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// In this state.
    pub state: Option<ExecutionState>,
    /// Of this agent.
    pub agent: Option<AgentId>,
    /// Of this version.
    pub version: Option<AgentVersionId>,
    /// Whose last attempt ended for this.
    pub end_reason: Option<EndReason>,
    /// Of this priority.
    pub priority: Option<u8>,
    /// Submitted then or later.
    pub created_after: Option<OffsetDateTime>,
    /// Submitted earlier.
    pub created_before: Option<OffsetDateTime>,
}

impl TenantTx<'_> {
    /// Stores an execution as pending; the feeder is woken when the transaction commits. One beyond what the tenant may
    /// submit, store or have waiting is [`Error::QuotaExceeded`].
    pub async fn submit_execution(&mut self, new: &NewExecution) -> Result<Execution, Error> {
        let cipher = self.cipher().await?;
        let sealed = cipher.seal_json(INPUT, new.id, &new.input)?;
        self.judge_day().await?;
        // Always in this order: two that take in another would wait for each other.
        self.take(Counted::Executions, 1).await?;
        self.take(Counted::StorageBytes, size(&sealed)).await?;
        self.take(Counted::QueuedExecutions, 1).await?;
        let terms = &new.terms;
        let number = |number: u64| i32::try_from(number).unwrap_or(i32::MAX);
        let timeout_s = Limits::default().with(&terms.limits).of(Limit::Timeout);
        let row: Row = sqlx::query_as(concat!(
            "INSERT INTO executions AS e (tenant_id, id, agent_id, agent_version_id, sealed_input, created_by, priority,
                limits, timeout_s, max_attempts, retry_of)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING ",
            columns!()
        ))
        .bind(self.op.tenant.as_uuid())
        .bind(new.id.as_uuid())
        .bind(new.agent.as_uuid())
        .bind(new.version.as_uuid())
        .bind(sealed)
        .bind(&self.op.subject)
        .bind(i16::from(terms.priority))
        .bind((!terms.limits.is_empty()).then(|| terms.limits.to_json()))
        .bind(number(timeout_s))
        .bind(number(terms.max_attempts.into()))
        .bind(terms.retry_of.map(ExecutionId::as_uuid))
        .fetch_one(self.connection())
        .await?;
        let told = json!({"new": {
            "agent": new.agent,
            "version": new.version,
            "priority": terms.priority,
            "limits": terms.limits.to_json(),
            "max_attempts": terms.max_attempts,
            "retry_of": terms.retry_of,
        }});
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
        let row: Option<Row> =
            sqlx::query_as(concat!("SELECT ", columns!(), " FROM executions e WHERE e.id = $1"))
                .bind(id.as_uuid())
                .fetch_optional(self.connection())
                .await?;
        let Some(row) = row else { return Ok(None) };
        row.open(&*self.cipher().await?).map(Some)
    }

    /// A page of the executions that `wanted` finds.
    pub async fn list_executions(
        &mut self,
        page: &Page,
        wanted: &Wanted,
    ) -> Result<Vec<Execution>, Error> {
        let rows: Vec<Row> =
            wanted.query("", page).build_query_as().fetch_all(self.connection()).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let cipher = self.cipher().await?;
        rows.into_iter().map(|row| row.open(&cipher)).collect()
    }
}

// === impl Wanted ===

impl Wanted {
    /// The statement, behind `begins`. Only what is asked for stands in it: each such text has a plan of its own, along an
    /// index.
    pub fn query(&self, begins: &str, page: &Page) -> QueryBuilder<Postgres> {
        let mut query =
            QueryBuilder::new(format!("{begins}{}", concat!("SELECT ", columns!(), " FROM ")));
        let by_version = self.agent.is_some() || self.version.is_some();
        if by_version {
            // Version by version, each along its index in the order of the page: an agent's versions are few, what they
            // ran may be a million.
            query.push("agent_versions v CROSS JOIN LATERAL (SELECT * FROM ");
        }
        query.push("executions e WHERE (e.created_at, e.id) < (");
        query.push_bind(page.after.created_at).push(", ").push_bind(page.after.id).push(")");
        if let Some(state) = self.state {
            // As it stands: a parameter would hide from the planner that the index of such states has it.
            query.push(" AND e.state = '").push(state.as_str()).push("'");
        }
        if let Some(reason) = self.end_reason {
            query.push(" AND e.end_reason = ").push_bind(reason.as_str());
            if reason != EndReason::Completed {
                // Which the index of those has.
                query.push(" AND e.state <> 'completed'");
            }
        }
        if let Some(priority) = self.priority {
            query.push(" AND e.priority = ").push_bind(i16::from(priority));
        }
        if let Some(after) = self.created_after {
            query.push(" AND e.created_at >= ").push_bind(after);
        }
        if let Some(before) = self.created_before {
            query.push(" AND e.created_at < ").push_bind(before);
        }
        if by_version {
            query.push(
                " AND e.tenant_id = v.tenant_id AND e.agent_id = v.agent_id AND e.agent_version_id = v.id
                 ORDER BY e.created_at DESC, e.id DESC LIMIT ",
            );
            query.push_bind(page.limit).push(") e WHERE true");
            if let Some(agent) = self.agent {
                query.push(" AND v.agent_id = ").push_bind(agent.as_uuid());
            }
            if let Some(version) = self.version {
                query.push(" AND v.id = ").push_bind(version.as_uuid());
            }
        }
        query.push(" ORDER BY e.created_at DESC, e.id DESC LIMIT ").push_bind(page.limit);
        query
    }
}

/// Bytes as they are counted: a length is never beyond the type.
pub(crate) fn size(sealed: &[u8]) -> u64 {
    u64::try_from(sealed.len()).unwrap_or(u64::MAX)
}

pub(crate) fn epoch(number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| Error::Unreadable { what: "lease_epoch" })
}
