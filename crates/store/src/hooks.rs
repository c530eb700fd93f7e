//! What ran of an attempt's lifecycle hooks, and what is still owed: CLEANUP and ON_ERROR are written down with the claim, so
//! that they are somebody's whatever becomes of its worker, and are ended once.
//! Knows nothing of how a hook is run.

use std::time::Duration;

use gatehouse_contract::{ExecutionId, TenantId};
use gatehouse_execution::{EndReason, Hook, Hooks, ImageRef, Limits};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Error, SystemTx, TenantTx,
    executions::{count, epoch, input},
    versions::named,
};

/// What became of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookState {
    /// To be run by whoever has the attempt, and after it by whoever takes it.
    Owed,
    /// It ended well.
    Done,
    /// It did not.
    Failed,
    /// The attempt did not need it.
    Skipped,
}

/// A hook of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookRun {
    /// Of which claim.
    pub lease_epoch: u64,
    /// Which.
    pub hook: Hook,
    /// The same however often it is begun.
    pub run_id: Uuid,
    /// What became of it.
    pub state: HookState,
    /// How it ended, where it ran.
    pub end_reason: Option<EndReason>,
    /// When.
    pub ended_at: Option<OffsetDateTime>,
}

/// How a hook ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HookEnd<'a> {
    /// Of which execution.
    pub execution: ExecutionId,
    /// Under which claim.
    pub lease_epoch: u64,
    /// Which.
    pub hook: Hook,
    /// The run that ended.
    pub run_id: Uuid,
    /// Who ran it (its incarnation).
    pub worker: &'a str,
    /// Whether well.
    pub well: bool,
    /// Why.
    pub reason: EndReason,
}

/// A hook that is owed by an attempt that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owed {
    /// Whose.
    pub tenant: TenantId,
    /// Of which execution.
    pub execution: ExecutionId,
    /// Under which claim.
    pub lease_epoch: u64,
    /// Which.
    pub hook: Hook,
    /// The run to begin, again where it was begun before.
    pub run_id: Uuid,
    /// How often it was taken, this time included.
    pub taken: u32,
}

/// What is needed to run a hook of an attempt that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Hooked {
    /// The version's image.
    pub image: ImageRef,
    /// What the version declares.
    pub hooks: Hooks,
    /// What the agent read.
    pub input: Value,
    /// What the agent might use.
    pub limits: Limits,
}

#[derive(sqlx::FromRow)]
struct RunRow {
    lease_epoch: i64,
    hook: String,
    run_id: Uuid,
    state: String,
    end_reason: Option<String>,
    ended_at: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct OwedRow {
    tenant_id: Uuid,
    execution_id: Uuid,
    lease_epoch: i64,
    hook: String,
    run_id: Uuid,
    taken: i32,
}

#[derive(sqlx::FromRow)]
struct HookedRow {
    image: String,
    hooks: Option<Value>,
    version_limits: Option<Value>,
    limits: Option<Value>,
    input: Option<Value>,
    sealed_input: Option<Vec<u8>>,
}

fn hook(text: &str) -> Result<Hook, Error> {
    text.parse().map_err(|_| Error::Unreadable { what: "hook" })
}

/// The hooks that are stored, if any are.
pub(crate) fn declared(stored: Option<&Value>) -> Result<Hooks, Error> {
    let read = |stored| Hooks::from_json(stored).map_err(|_| Error::Unreadable { what: "hooks" });
    stored.map_or_else(|| Ok(Hooks::default()), read)
}

impl TenantTx<'_> {
    /// With the claim of `worker`: what its attempt owes from now on.
    pub async fn owe_hooks(
        &mut self,
        execution: ExecutionId,
        lease_epoch: u64,
        worker: &str,
        owed: &[(Hook, Uuid)],
    ) -> Result<(), Error> {
        let hooks: Vec<&str> = owed.iter().map(|(hook, _)| hook.as_str()).collect();
        let runs: Vec<Uuid> = owed.iter().map(|(_, run)| *run).collect();
        sqlx::query(
            "INSERT INTO hook_runs (tenant_id, execution_id, lease_epoch, hook, run_id, state, worker)
             SELECT $1, $2, $3, hook, run_id, 'owed', $4 FROM unnest($5::text[], $6::uuid[]) AS o (hook, run_id)",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(execution.as_uuid())
        .bind(i64::try_from(lease_epoch).unwrap_or(i64::MAX))
        .bind(worker)
        .bind(hooks)
        .bind(runs)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Records the end of a hook. `false` where it was recorded before, or is another's to end.
    pub async fn hook_ended(&mut self, end: &HookEnd<'_>) -> Result<bool, Error> {
        let state = if end.well { "done" } else { "failed" };
        let done = sqlx::query(
            "INSERT INTO hook_runs AS h
                (tenant_id, execution_id, lease_epoch, hook, run_id, state, worker, end_reason, ended_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now())
             ON CONFLICT (tenant_id, execution_id, lease_epoch, hook) DO UPDATE
                SET state = $6, end_reason = $8, ended_at = now()
                WHERE h.state = 'owed' AND h.run_id = $5 AND h.worker = $7",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(end.execution.as_uuid())
        .bind(i64::try_from(end.lease_epoch).unwrap_or(i64::MAX))
        .bind(end.hook.as_str())
        .bind(end.run_id)
        .bind(state)
        .bind(end.worker)
        .bind(end.reason.as_str())
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// What the attempt owes of `hooks` is needed no more.
    pub async fn skip_hooks(
        &mut self,
        execution: ExecutionId,
        lease_epoch: u64,
        hooks: &[Hook],
    ) -> Result<(), Error> {
        let hooks: Vec<&str> = hooks.iter().map(|hook| hook.as_str()).collect();
        sqlx::query(
            "UPDATE hook_runs SET state = 'skipped', ended_at = now()
             WHERE tenant_id = $1 AND execution_id = $2 AND lease_epoch = $3 AND hook = ANY ($4) AND state = 'owed'",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(execution.as_uuid())
        .bind(i64::try_from(lease_epoch).unwrap_or(i64::MAX))
        .bind(hooks)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// The hooks of an execution's attempts, in the order in which they come.
    pub async fn hook_runs(&mut self, execution: ExecutionId) -> Result<Vec<HookRun>, Error> {
        let rows: Vec<RunRow> = sqlx::query_as(
            "SELECT lease_epoch, hook, run_id, state, end_reason, ended_at FROM hook_runs
             WHERE tenant_id = $1 AND execution_id = $2 ORDER BY lease_epoch",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(execution.as_uuid())
        .fetch_all(self.connection())
        .await?;
        let mut runs: Vec<HookRun> =
            rows.into_iter().map(TryInto::try_into).collect::<Result<_, Error>>()?;
        runs.sort_by_key(|run| (run.lease_epoch, run.hook));
        Ok(runs)
    }

    /// What is needed to run hooks of an execution. `None` where it is there no more.
    pub async fn hooked(&mut self, execution: ExecutionId) -> Result<Option<Hooked>, Error> {
        let row: Option<HookedRow> = sqlx::query_as(
            "SELECT v.image, v.hooks, v.limits AS version_limits, e.limits, e.input, e.sealed_input
             FROM executions e JOIN agent_versions v ON v.tenant_id = e.tenant_id AND v.id = e.agent_version_id
             WHERE e.id = $1",
        )
        .bind(execution.as_uuid())
        .fetch_optional(self.connection())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let (of_version, of_this) =
            (named(row.version_limits.as_ref())?, named(row.limits.as_ref())?);
        Ok(Some(Hooked {
            image: row.image.parse().map_err(|_| Error::Unreadable { what: "image" })?,
            hooks: declared(row.hooks.as_ref())?,
            input: input(&*self.cipher().await?, execution.as_uuid(), row.input, row.sealed_input)?,
            limits: Limits::default().with(&of_version).with(&of_this),
        }))
    }
}

impl SystemTx {
    /// Hooks: takes for `worker` (its incarnation) up to `limit` that are owed by attempts that are over and that nobody
    /// runs: their worker is lost, has put them down, or is this one, and they are none of the `busy` runs. ON_ERROR comes
    /// before its attempt's CLEANUP.
    pub async fn take_owed(
        &mut self,
        worker: &str,
        busy: &[Uuid],
        lost_after: Duration,
        limit: u32,
    ) -> Result<Vec<Owed>, Error> {
        let rows: Vec<OwedRow> = sqlx::query_as(
            "UPDATE hook_runs h SET worker = $1, taken = h.taken + 1
             FROM (SELECT o.tenant_id, o.execution_id, o.lease_epoch, o.hook FROM hook_runs o
                WHERE o.state = 'owed' AND o.run_id <> ALL ($2)
                AND (o.worker = $1 OR NOT EXISTS (SELECT FROM worker_heartbeats b
                    WHERE b.worker = o.worker AND b.beat_at > now() - $3 * interval '1 second'))
                AND NOT EXISTS (SELECT FROM executions e WHERE e.tenant_id = o.tenant_id AND e.id = o.execution_id
                    AND e.state = 'running' AND e.lease_epoch = o.lease_epoch)
                AND (o.hook = 'on_error' OR NOT EXISTS (SELECT FROM hook_runs p WHERE p.tenant_id = o.tenant_id
                    AND p.execution_id = o.execution_id AND p.lease_epoch = o.lease_epoch
                    AND p.hook = 'on_error' AND p.state = 'owed'))
                ORDER BY o.created_at LIMIT $4 FOR UPDATE OF o SKIP LOCKED) AS t
             WHERE h.tenant_id = t.tenant_id AND h.execution_id = t.execution_id AND h.lease_epoch = t.lease_epoch
                AND h.hook = t.hook
             RETURNING h.tenant_id, h.execution_id, h.lease_epoch, h.hook, h.run_id, h.taken",
        )
        .bind(worker)
        .bind(busy)
        .bind(lost_after.as_secs_f64())
        .bind(i64::from(limit))
        .fetch_all(self.connection())
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Hooks: removes what ended longer than `older_than` ago, at most `limit`. Returns how many.
    pub async fn forget_hooks(&mut self, older_than: Duration, limit: u32) -> Result<u64, Error> {
        let done = sqlx::query(
            "DELETE FROM hook_runs h USING (SELECT tenant_id, execution_id, lease_epoch, hook FROM hook_runs
                WHERE state <> 'owed' AND ended_at < now() - $1 * interval '1 second' LIMIT $2) AS o
             WHERE h.tenant_id = o.tenant_id AND h.execution_id = o.execution_id AND h.lease_epoch = o.lease_epoch
                AND h.hook = o.hook",
        )
        .bind(older_than.as_secs_f64())
        .bind(i64::from(limit))
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected())
    }
}

// === impl HookState ===

impl HookState {
    fn read(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "owed" => Self::Owed,
            "done" => Self::Done,
            "failed" => Self::Failed,
            "skipped" => Self::Skipped,
            _ => return Err(Error::Unreadable { what: "hook state" }),
        })
    }
}

impl TryFrom<RunRow> for HookRun {
    type Error = Error;

    fn try_from(row: RunRow) -> Result<Self, Error> {
        let reason = row.end_reason.as_deref().map(str::parse).transpose();
        Ok(Self {
            lease_epoch: epoch(row.lease_epoch)?,
            hook: hook(&row.hook)?,
            run_id: row.run_id,
            state: HookState::read(&row.state)?,
            end_reason: reason.map_err(|_| Error::Unreadable { what: "end_reason" })?,
            ended_at: row.ended_at,
        })
    }
}

impl TryFrom<OwedRow> for Owed {
    type Error = Error;

    fn try_from(row: OwedRow) -> Result<Self, Error> {
        Ok(Self {
            tenant: TenantId::new(row.tenant_id),
            execution: ExecutionId::new(row.execution_id),
            lease_epoch: epoch(row.lease_epoch)?,
            hook: hook(&row.hook)?,
            run_id: row.run_id,
            taken: count(row.taken)?,
        })
    }
}
