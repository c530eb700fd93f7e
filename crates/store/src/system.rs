//! The door of background jobs: role `gatehouse_system`, a job from a closed list, and for each job its policy and
//! columns (`migrations/0005_system_jobs.sql`, the relay's in `0006_credentials.sql`). HTTP handlers have no URL for it.
//! Knows nothing of Redis: what is offered to workers is pushed by the caller, between reading and marking.

use std::time::Duration;

use gatehouse_contract::{ExecutionId, TenantId};
use sqlx::{PgConnection, Postgres, Transaction, postgres::PgListener};
use uuid::Uuid;

use crate::{Error, Store, events::tell};

/// What the door can be opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Offers waiting executions to the workers.
    Feeder,
    /// Takes leases from workers that no longer beat, and has lost offers made again.
    Sweep,
    /// Says that a worker is alive.
    Heartbeat,
    /// Makes partitions ahead and drops old ones ([`crate::partitions`]).
    Partitions,
    /// Carries changes of facts from the outbox to the feed ([`crate::relay`]).
    Relay,
    /// Seals the audit ([`crate::seals`]).
    Sealer,
    /// Seals what keys of before sealed under the first one of the file ([`crate::rekey`]).
    Rekey,
    /// Finds the tenants whose rows may not be sealed yet ([`crate::rekey`]).
    Sealing,
    /// Removes what there is of tenants that are deleted ([`crate::erasure`]).
    Erasure,
    /// Takes what waits to be published out of the events' outbox ([`crate::publisher`]).
    Publisher,
    /// Tells tenants' endpoints what happened ([`crate::deliveries`]).
    Deliverer,
}

impl Job {
    /// Every job.
    pub const ALL: &'static [Self] = &[
        Self::Feeder,
        Self::Sweep,
        Self::Heartbeat,
        Self::Partitions,
        Self::Relay,
        Self::Sealer,
        Self::Rekey,
        Self::Sealing,
        Self::Erasure,
        Self::Publisher,
    ];
        Self::Deliverer,

    /// Its name in the policies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Feeder => "feeder",
            Self::Sweep => "sweep",
            Self::Heartbeat => "heartbeat",
            Self::Partitions => "partitions",
            Self::Relay => "relay",
            Self::Sealer => "sealer",
            Self::Rekey => "rekey",
            Self::Sealing => "sealing",
            Self::Erasure => "erasure",
            Self::Publisher => "publisher",
        }
    }
            Self::Deliverer => "deliverer",
}

/// An open transaction of one job.
pub struct SystemTx {
    transaction: Transaction<'static, Postgres>,
    job: Job,
}

/// An execution to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub execution: ExecutionId,
    /// 0 is the most urgent, 3 the least.
    pub priority: u8,
}

/// What the sweep did with executions whose worker is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Offered again.
    pub requeued: u64,
    /// Out of attempts: dead letters, reason `lost`.
    pub given_up: u64,
}

impl Store {
    /// Opens a transaction for `job`.
    pub async fn system(&self, job: Job) -> Result<SystemTx, Error> {
        let pool = self.system.as_ref().ok_or(Error::DoorClosed("system"))?;
        let mut transaction = pool.begin().await?;
        sqlx::query(
            "SELECT set_config('app.current_job', $1, true), set_config('statement_timeout', '10s', true),
                set_config('idle_in_transaction_session_timeout', '15s', true)",
        )
        .bind(job.as_str())
        .execute(&mut *transaction)
        .await?;
        Ok(SystemTx { transaction, job })
    }

    /// Waits for submissions. Holds a connection of its own and makes it again where it breaks; a notification
    /// that is lost meanwhile is made up for by polling.
    pub async fn pending_listener(&self) -> Result<Listener, Error> {
        let pool = self.system.as_ref().ok_or(Error::DoorClosed("system"))?;
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen("gatehouse_pending").await?;
        Ok(Listener(listener))
    }
}

/// Wakes a job.
pub struct Listener(pub(crate) PgListener);

impl Listener {
    /// Ends with `true` when there is something to do, with `false` after `at_most`.
    pub async fn wait(&mut self, at_most: Duration) -> Result<bool, Error> {
        match tokio::time::timeout(at_most, self.0.recv()).await {
            // Whoever is woken looks at everything that is there: one look for all that came meanwhile.
            Ok(Ok(_)) => {
                while self.0.next_buffered().is_some() {}
                Ok(true)
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Ok(false),
        }
    }
}

impl SystemTx {
    /// Which job this is.
    pub const fn job(&self) -> Job {
        self.job
    }

    /// Makes it last.
    pub async fn commit(self) -> Result<(), Error> {
        self.transaction.commit().await.map_err(Into::into)
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// Feeder: locks and returns up to `limit` executions that are pending or whose retry is due, the most urgent
    /// and then the oldest first; what another feeder holds is passed over. Push them, then [`Self::mark_queued`]
    /// those whose push succeeded, then [`Self::commit`]: a worker that is faster waits for the lock. A crash in
    /// between leaves them pending, and a second offer of the same execution harms nothing.
    pub async fn take_pending(&mut self, limit: u32) -> Result<Vec<Offer>, Error> {
        let rows: Vec<(Uuid, Uuid, i16)> = sqlx::query_as(
            "SELECT tenant_id, id, priority FROM executions
             WHERE state = 'pending' OR (state = 'retry' AND due_at <= now())
             ORDER BY priority, created_at LIMIT $1 FOR UPDATE SKIP LOCKED",
        )
        .bind(i64::from(limit))
        .fetch_all(self.connection())
        .await?;
        rows.into_iter()
            .map(|(tenant, id, priority)| {
                let priority =
                    u8::try_from(priority).map_err(|_| Error::Unreadable { what: "priority" })?;
                Ok(Offer {
                    tenant: TenantId::new(tenant),
                    execution: ExecutionId::new(id),
                    priority,
                })
            })
            .collect()
    }

    /// Feeder: marks what was pushed as queued.
    pub async fn mark_queued(&mut self, pushed: &[Offer]) -> Result<(), Error> {
        let tenants: Vec<Uuid> = pushed.iter().map(|offer| offer.tenant.as_uuid()).collect();
        let ids: Vec<Uuid> = pushed.iter().map(|offer| offer.execution.as_uuid()).collect();
        sqlx::query(
            concat!(
                "WITH moved AS (
                UPDATE executions e SET state = 'queued', queued_at = now()
                FROM unnest($1::uuid[], $2::uuid[]) AS pushed (tenant_id, id)
                WHERE e.tenant_id = pushed.tenant_id AND e.id = pushed.id AND e.state IN ('pending', 'retry')
                RETURNING e.tenant_id, e.id, 'execution.queued' AS kind, '{}'::jsonb AS payload, 'feeder' AS job), ",
                tell!(),
                " SELECT FROM moved",
            ),
        )
        .bind(tenants)
        .bind(ids)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Sweep: running executions whose worker has not beaten for `older_than` (the database's clock) are queued
    /// again, or given up when their attempts are used up. [`Self::unqueue_stale`] has them offered again.
    pub async fn expire_leases(&mut self, older_than: Duration) -> Result<Swept, Error> {
        let states: Vec<String> = sqlx::query_scalar(
            concat!(
                "WITH moved AS (
                UPDATE executions e
                SET state = CASE WHEN attempt < max_attempts THEN 'queued' ELSE 'dead_letter' END,
                    end_reason = 'lost', error = 'the worker was lost', queued_at = NULL,
                    completed_at = CASE WHEN attempt < max_attempts THEN NULL ELSE now() END
                WHERE state = 'running' AND NOT EXISTS (
                    SELECT FROM worker_heartbeats h
                    WHERE h.worker = e.worker AND h.beat_at > now() - $1 * interval '1 second')
                RETURNING tenant_id, id, state, 'execution.lost' AS kind, 'sweep' AS job, jsonb_build_object('state', state,
                    'completed_at', CASE WHEN attempt < max_attempts THEN NULL ELSE now() END) AS payload), ",
                tell!(),
                " SELECT state FROM moved",
            ),
        )
        .bind(older_than.as_secs_f64())
        .fetch_all(self.connection())
        .await?;
        let requeued = states.iter().filter(|state| *state == "queued").count() as u64;
        Ok(Swept { requeued, given_up: states.len() as u64 - requeued })
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
}
