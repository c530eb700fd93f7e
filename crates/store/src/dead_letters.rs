//! Executions that were given up: found, looked into and started anew, one or many. Each that is starts under the same id, with
//! all its attempts before it, at the end of its line.
//! Knows nothing of why one was given up.

use gatehouse_contract::{AgentId, AgentVersionId, ExecutionId};
use gatehouse_events::{Event as Told, event::Nothing};
use gatehouse_execution::{EndReason, ExecutionState, state::Event};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Error, TenantTx,
    data_keys::Cipher,
    executions::{count, error, state},
    members::Changed,
    usage::Counted,
};

/// Most that are started anew at once.
pub const AT_ONCE: u32 = 100;

/// Which of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Given up for this.
    pub reason: Option<EndReason>,
    /// Given up before.
    pub before: Option<OffsetDateTime>,
}

/// One that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The execution; [`TenantTx::execution`] has all of it, [`TenantTx::history`] its attempts.
    pub id: ExecutionId,
    /// The agent.
    pub agent: AgentId,
    /// The version that ran.
    pub version: AgentVersionId,
    /// Why its last attempt ended.
    pub reason: EndReason,
    /// The same for people.
    pub message: Option<String>,
    /// How many attempts it had.
    pub attempts: u32,
    /// How many of them lost their worker.
    pub losses: u32,
    /// When it was submitted.
    pub created_at: OffsetDateTime,
    /// When it was given up.
    pub given_up_at: OffsetDateTime,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    agent_id: Uuid,
    agent_version_id: Uuid,
    end_reason: String,
    error: Option<String>,
    sealed_error: Option<Vec<u8>>,
    attempt: i32,
    losses: i32,
    created_at: OffsetDateTime,
    completed_at: OffsetDateTime,
}

impl Row {
    fn open(self, cipher: &Cipher) -> Result<DeadLetter, Error> {
        let reason = self.end_reason.parse();
        Ok(DeadLetter {
            id: ExecutionId::new(self.id),
            agent: AgentId::new(self.agent_id),
            version: AgentVersionId::new(self.agent_version_id),
            reason: reason.map_err(|_| Error::Unreadable { what: "end_reason" })?,
            message: error(cipher, self.id, self.error, self.sealed_error)?,
            attempts: count(self.attempt)?,
            losses: count(self.losses)?,
            created_at: self.created_at,
            given_up_at: self.completed_at,
        })
    }
}

impl TenantTx<'_> {
    /// Those that were given up, the last one first: below `before` (when it was given up, and its id), at most `limit`.
    pub async fn dead_letters(
        &mut self,
        filter: Filter,
        before: Option<(OffsetDateTime, ExecutionId)>,
        limit: i64,
    ) -> Result<Vec<DeadLetter>, Error> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, agent_id, agent_version_id, end_reason, error, sealed_error, attempt, losses, created_at,
                completed_at
             FROM executions
             WHERE tenant_id = $1 AND state = 'dead_letter' AND ($2::text IS NULL OR end_reason = $2)
             AND ($3::timestamptz IS NULL OR completed_at < $3)
             AND ($4::timestamptz IS NULL OR (completed_at, id) < ($4, $5))
             ORDER BY completed_at DESC, id DESC LIMIT $6",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(filter.reason.map(EndReason::as_str))
        .bind(filter.before)
        .bind(before.map(|(at, _)| at))
        .bind(before.map(|(_, id)| id.as_uuid()))
        .bind(limit)
        .fetch_all(self.connection())
        .await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let cipher = self.cipher().await?;
        rows.into_iter().map(|row| row.open(&cipher)).collect()
    }

    /// One that was given up.
    pub async fn dead_letter(&mut self, id: ExecutionId) -> Result<Option<DeadLetter>, Error> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT id, agent_id, agent_version_id, end_reason, error, sealed_error, attempt, losses, created_at,
                completed_at
             FROM executions WHERE id = $1 AND state = 'dead_letter'",
        )
        .bind(id.as_uuid())
        .fetch_optional(self.connection())
        .await?;
        let Some(row) = row else { return Ok(None) };
        row.open(&*self.cipher().await?).map(Some)
    }

    /// Starts one anew. [`Changed::No`] where it was not given up.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`] where so many wait already.
    pub async fn replay_execution(&mut self, id: ExecutionId) -> Result<Changed, Error> {
        let found: Option<(String, Option<String>)> =
            sqlx::query_as("SELECT state, end_reason FROM executions WHERE id = $1 FOR UPDATE")
                .bind(id.as_uuid())
                .fetch_optional(self.connection())
                .await?;
        let Some((found, reason)) = found else { return Ok(Changed::Missing) };
        let Ok(to) = state(&found)?.after(Event::Replay) else { return Ok(Changed::No) };
        self.take(Counted::QueuedExecutions, 1).await?;
        self.start_anew(id, to).await?;
        let told = json!({"old": {"state": found, "reason": reason}, "new": {"state": to}});
        self.within().audit_change("execution.replay", "execution", id, told).await?;
        Ok(Changed::Yes)
    }

    /// Starts the oldest of those that `filter` finds anew, at most `limit` and at most [`AT_ONCE`]; returns which. What
    /// somebody else is starting is passed over. One row of the audit tells of all.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`], and none is started, where so many wait already.
    pub async fn replay_dead_letters(
        &mut self,
        filter: Filter,
        limit: u32,
    ) -> Result<Vec<ExecutionId>, Error> {
        let rows: Vec<Uuid> = sqlx::query_scalar(
            "SELECT id FROM executions WHERE tenant_id = $1 AND state = 'dead_letter'
             AND ($2::text IS NULL OR end_reason = $2) AND ($3::timestamptz IS NULL OR completed_at < $3)
             ORDER BY completed_at, id LIMIT $4 FOR UPDATE SKIP LOCKED",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(filter.reason.map(EndReason::as_str))
        .bind(filter.before)
        .bind(i64::from(limit.min(AT_ONCE)))
        .fetch_all(self.connection())
        .await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let to = ExecutionState::DeadLetter.after(Event::Replay);
        let to = to.map_err(|_| Error::Unreadable { what: "state" })?;
        self.take(Counted::QueuedExecutions, u64::try_from(rows.len()).unwrap_or(u64::MAX)).await?;
        let ids: Vec<ExecutionId> = rows.into_iter().map(ExecutionId::new).collect();
        for id in &ids {
            self.start_anew(*id, to).await?;
        }
        let told = json!({"new": {"executions": ids}});
        let tenant = self.op.tenant;
        self.within().audit_change("execution.replay_all", "tenant", tenant, told).await?;
        Ok(ids)
    }

    async fn start_anew(&mut self, id: ExecutionId, to: ExecutionState) -> Result<(), Error> {
        // Due from now on, whenever it was submitted: many that are replayed do not push in.
        sqlx::query(
            "UPDATE executions SET state = $2, attempt = 0, losses = 0, due_at = now(), queued_at = NULL, started_at = NULL,
                completed_at = NULL, end_reason = NULL, error = NULL, sealed_error = NULL, cancel_asked_at = NULL
             WHERE id = $1",
        )
        .bind(id.as_uuid())
        .bind(to.as_str())
        .execute(self.connection())
        .await?;
        self.append(id.as_uuid(), &Told::ExecutionReplayed(Nothing {})).await
    }
}
