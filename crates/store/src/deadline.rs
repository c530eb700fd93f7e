//! A transaction ends after a time, whatever it does: each of its statements may be short, and all of them together long.
//! PostgreSQL 15 bounds a statement and a pause between two, and no transaction; here the server is told to end its session.
//! Knows nothing of what the transaction is for.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::Error;

/// Between two tries to end it.
const AGAIN: Duration = Duration::from_secs(1);

/// A running bound. Dropped it is over, as the transaction is.
pub(crate) struct Deadline {
    at: Instant,
    limit: Duration,
    watch: JoinHandle<()>,
}

impl Deadline {
    /// Ends the transaction of the session `pid` that began at `began` when `limit` has passed, and no other.
    pub(crate) fn new(pool: PgPool, (pid, began): (i32, OffsetDateTime), limit: Duration) -> Self {
        let watch = tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            while let Err(error) = end(&pool, pid, began).await {
                warn!(error = %error, "a transaction that is out of time cannot be ended: trying again");
                tokio::time::sleep(AGAIN).await;
            }
        });
        Self { at: Instant::now() + limit, limit, watch }
    }

    /// Refuses what comes too late, should the session not be ended yet.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if Instant::now() < self.at {
            return Ok(());
        }
        let late = format!("the transaction took longer than {} s", self.limit.as_secs());
        Err(Error::Unavailable(sqlx::Error::Protocol(late)))
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// A role may end its own sessions.
async fn end(pool: &PgPool, pid: i32, began: OffsetDateTime) -> Result<(), sqlx::Error> {
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND xact_start = $2",
    )
    .bind(pid)
    .bind(began)
    .execute(pool)
    .await?;
    Ok(())
}
