//! What heals the queue: leases of workers that no longer beat are taken from them, offers that were lost are made again; and
//! what a worker looks up of its own runs. A slot is a running row: with its lease it is free. What was taken from a lost worker
//! is metered as lost, and a submit whose workers were lost is given back.
//! Knows nothing of Redis.

use std::time::Duration;

use gatehouse_contract::{ExecutionId, TenantId};
use uuid::Uuid;

use crate::{Error, SystemTx, events::tell};

/// So many workers are lost under an execution, and it is not run again: it may be what ends them.
pub const POISON: u32 = 3;

/// What the sweep did with executions whose worker is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Offered again.
    pub requeued: u64,
    /// [`POISON`] workers were lost under them: dead letters.
    pub given_up: u64,
    /// Their callers wanted them ended.
    pub cancelled: u64,
}

/// A run of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Held {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub execution: ExecutionId,
    /// Under which claim.
    pub lease_epoch: u64,
}

impl SystemTx {
    /// Sweep: running executions whose worker has not beaten for `older_than` (the database's clock) are queued
    /// again, or given up where that happened [`POISON`] times, or cancelled where their callers asked for it.
    /// [`Self::unqueue_stale`] has them offered again. Of a database that has itself not been up for that long nothing follows:
    /// nobody could beat before.
    pub async fn expire_leases(&mut self, older_than: Duration) -> Result<Swept, Error> {
        let states: Vec<String> = sqlx::query_scalar(
            concat!(
                "WITH gone AS (
                SELECT e.tenant_id, e.id, e.created_at, e.attempt, e.started_at, e.agent_id, e.lease_epoch, e.refunded,
                    coalesce(e.sandbox, e.id || '-' || lpad(to_hex(e.lease_epoch), 8, '0')) AS sandbox,
                    CASE WHEN e.cancel_asked_at IS NOT NULL THEN 'cancelled'
                    WHEN e.losses + 1 >= $2 THEN 'dead_letter' ELSE 'queued' END AS next
                FROM executions e WHERE e.state = 'running'
                AND pg_postmaster_start_time() < now() - $1 * interval '1 second'
                AND NOT EXISTS (
                    SELECT FROM worker_heartbeats h
                    WHERE h.worker = e.worker AND h.beat_at > now() - $1 * interval '1 second')
                FOR UPDATE SKIP LOCKED),
                metered AS (
                INSERT INTO metering (tenant_id, execution_id, attempt, at, agent_id, lease_epoch, end_reason, ended_at,
                    wall_ms, cpu_ms, peak_memory_bytes, tokens, egress_requests, sandbox)
                SELECT tenant_id, id, attempt, started_at, agent_id, lease_epoch, 'lost', now(), 0, 0, 0, 0, 0, sandbox
                FROM gone
                ON CONFLICT DO NOTHING),
                -- Nobody is at fault but the platform.
                returned AS (
                UPDATE usage_counters c SET used = greatest(c.used - r.executions, 0)
                FROM (SELECT tenant_id, (created_at AT TIME ZONE 'UTC')::date AS day, count(*) AS executions FROM gone
                    WHERE next = 'dead_letter' AND NOT refunded GROUP BY 1, 2 ORDER BY 1, 2) r
                WHERE c.tenant_id = r.tenant_id AND c.quota = 'executions' AND c.day = r.day),
                moved AS (
                UPDATE executions e
                SET state = g.next, refunded = e.refunded OR g.next = 'dead_letter', losses = e.losses + 1, queued_at = NULL,
                    end_reason = CASE g.next WHEN 'queued' THEN 'lost' WHEN 'cancelled' THEN 'cancelled' ELSE 'poison' END,
                    error = CASE g.next WHEN 'queued' THEN 'the worker was lost' WHEN 'cancelled' THEN 'cancelled'
                        ELSE 'worker after worker was lost under it' END,
                    completed_at = CASE g.next WHEN 'queued' THEN NULL ELSE now() END
                FROM gone g WHERE e.tenant_id = g.tenant_id AND e.id = g.id AND e.created_at = g.created_at
                RETURNING e.tenant_id, e.id, e.state, 'sweep' AS job,
                    CASE e.state WHEN 'queued' THEN 'execution.lost' WHEN 'cancelled' THEN 'execution.cancelled'
                        ELSE 'execution.given_up' END AS kind,
                    CASE e.state WHEN 'queued' THEN jsonb_build_object('state', e.state, 'completed_at', NULL)
                        ELSE jsonb_build_object('end_reason', CASE e.state WHEN 'cancelled' THEN 'cancelled' ELSE 'poison' END,
                            'output', NULL, 'error', CASE e.state WHEN 'cancelled' THEN 'cancelled'
                            ELSE 'worker after worker was lost under it' END, 'completed_at', now()) END AS payload), ",
                tell!(),
                " SELECT state FROM moved",
            ),
        )
        .bind(older_than.as_secs_f64())
        .bind(i64::from(POISON))
        .fetch_all(self.connection())
        .await?;
        let of = |state: &str| states.iter().filter(|found| *found == state).count() as u64;
        Ok(Swept {
            requeued: of("queued"),
            given_up: of("dead_letter"),
            cancelled: of("cancelled"),
        })
    }

    /// Sweep: how many have been queued for `older_than`, or have no offer any more. Where the streams hold fewer messages,
    /// some were lost.
    pub async fn queued(&mut self, older_than: Duration) -> Result<u64, Error> {
        let queued: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM executions WHERE state = 'queued'
             AND (queued_at IS NULL OR queued_at < now() - $1 * interval '1 second')",
        )
        .bind(older_than.as_secs_f64())
        .fetch_one(self.connection())
        .await?;
        u64::try_from(queued).map_err(|_| Error::Unreadable { what: "count" })
    }

    /// Sweep: what has been queued for `older_than` and was taken by nobody (its queue entry may be lost: Redis
    /// wiped, a worker gone) becomes pending, so that the feeder offers it again. Returns how many.
    pub async fn unqueue_stale(&mut self, older_than: Duration) -> Result<u64, Error> {
        let moved: i64 = sqlx::query_scalar(concat!(
            "WITH moved AS (
            UPDATE executions SET state = 'pending', queued_at = NULL
            WHERE state = 'queued'
            AND (queued_at IS NULL OR queued_at < now() - $1 * interval '1 second')
            RETURNING tenant_id, id, 'execution.unqueued' AS kind, '{}'::jsonb AS payload, 'sweep' AS job), ",
            tell!(),
            " SELECT count(*) FROM moved",
        ))
        .bind(older_than.as_secs_f64())
        .fetch_one(self.connection())
        .await?;
        u64::try_from(moved).map_err(|_| Error::Unreadable { what: "count" })
    }

    /// Sweep: forgets workers that have not beaten for `older_than`. Returns how many.
    pub async fn forget_workers(&mut self, older_than: Duration) -> Result<u64, Error> {
        let done = sqlx::query(
            "DELETE FROM worker_heartbeats WHERE beat_at < now() - $1 * interval '1 second'",
        )
        .bind(older_than.as_secs_f64())
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected())
    }

    /// Heartbeat: `worker` (its incarnation) is alive now.
    pub async fn beat(&mut self, worker: &str) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO worker_heartbeats (worker) VALUES ($1)
             ON CONFLICT (worker) DO UPDATE SET beat_at = now()",
        )
        .bind(worker)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Watch: the runs of `worker` whose callers want them ended. Nearly always none, and then it reads nothing.
    pub async fn to_end(&mut self, worker: &str) -> Result<Vec<Held>, Error> {
        self.held(
            "SELECT tenant_id, id, lease_epoch FROM executions
             WHERE worker = $1 AND state = 'running' AND cancel_asked_at IS NOT NULL",
            worker,
        )
        .await
    }

    /// Watch: everything that `worker` runs. What it believes to run and does not find here is another's, or ended.
    pub async fn runs_of(&mut self, worker: &str) -> Result<Vec<Held>, Error> {
        self.held(
            "SELECT tenant_id, id, lease_epoch FROM executions WHERE worker = $1 AND state = 'running'",
            worker,
        )
        .await
    }

    async fn held(&mut self, query: &'static str, worker: &str) -> Result<Vec<Held>, Error> {
        let rows: Vec<(Uuid, Uuid, i64)> =
            sqlx::query_as(query).bind(worker).fetch_all(self.connection()).await?;
        let held = |(tenant, id, epoch): (Uuid, Uuid, i64)| {
            Ok(Held {
                tenant: TenantId::new(tenant),
                execution: ExecutionId::new(id),
                lease_epoch: u64::try_from(epoch)
                    .map_err(|_| Error::Unreadable { what: "lease_epoch" })?,
            })
        };
        rows.into_iter().map(held).collect()
    }
}
