//! The door of background jobs: role `gatehouse_system`, a job from a closed list, and for each job its policy and
//! columns (`migrations/0005_system_jobs.sql`, the relay's in `0006_credentials.sql`). HTTP handlers have no URL for it.
//! What a job does is beside its rows: [`crate::feeder`], [`crate::sweep`], [`crate::relay`].

use std::time::Duration;

use sqlx::{PgConnection, Postgres, Transaction, postgres::PgListener};

use crate::{Error, Store};

/// What the door can be opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Offers waiting executions to the workers ([`crate::feeder`]).
    Feeder,
    /// Takes leases from workers that no longer beat, and has lost offers made again ([`crate::sweep`]).
    Sweep,
    /// Says that a worker is alive.
    Heartbeat,
    /// Looks which runs of a worker shall end.
    Watch,
    /// Has hooks run that attempts owe which are over ([`crate::hooks`]).
    Hooks,
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
        Self::Watch,
        Self::Hooks,
        Self::Partitions,
        Self::Relay,
        Self::Sealer,
        Self::Rekey,
        Self::Sealing,
        Self::Erasure,
        Self::Publisher,
        Self::Deliverer,
    ];

    /// Its name in the policies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Feeder => "feeder",
            Self::Sweep => "sweep",
            Self::Heartbeat => "heartbeat",
            Self::Watch => "watch",
            Self::Hooks => "hooks",
            Self::Partitions => "partitions",
            Self::Relay => "relay",
            Self::Sealer => "sealer",
            Self::Rekey => "rekey",
            Self::Sealing => "sealing",
            Self::Erasure => "erasure",
            Self::Publisher => "publisher",
            Self::Deliverer => "deliverer",
        }
    }
}

/// An open transaction of one job.
pub struct SystemTx {
    transaction: Transaction<'static, Postgres>,
    job: Job,
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
}
