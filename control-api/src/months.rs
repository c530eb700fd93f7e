//! Sees to it that the tables by month have months to write into, and that what is kept long enough goes. Every process
//! does it, at its start and each hour: who comes second finds nothing to do.
//! Knows no table and no rule; both are the database's (docs/row-security.md).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gatehouse_service::{Shutdown, exit::chain};
use gatehouse_store::{Error, Job, Store, partitions::Maintained};
use tracing::{error, info};

/// There are three months ahead: many turns may fail before anything does.
const EVERY: Duration = Duration::from_secs(3600);
/// After a turn that failed, mostly for want of a lock.
const AGAIN: Duration = Duration::from_secs(60);
/// How many kept answers end in one transaction.
const BATCH: u32 = 5000;

/// How the last turn went, for readiness.
#[derive(Debug, Default)]
pub struct Status(AtomicBool);

impl Status {
    /// `kept` or `failing`.
    pub fn word(&self) -> &'static str {
        if self.0.load(Ordering::Relaxed) { "failing" } else { "kept" }
    }
}

/// Runs until the shutdown.
pub async fn run(store: Store, status: Arc<Status>, shutdown: Shutdown) {
    while !shutdown.is_requested() {
        let done = tokio::select! {
            done = turn(&store) => done,
            () = shutdown.requested() => break,
        };
        status.0.store(done.is_err(), Ordering::Relaxed);
        let pause = match done {
            Ok(Maintained { made, dropped }) => {
                if !made.is_empty() || !dropped.is_empty() {
                    info!(made = made.join(","), dropped = dropped.join(","), "months were kept");
                }
                EVERY
            }
            Err(problem) => {
                error!(error = %chain(&problem), "months were not kept: trying again");
                AGAIN
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.requested() => break,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a background job, not an HTTP handler")]
async fn turn(store: &Store) -> Result<Maintained, Error> {
    let mut tx = store.system(Job::Partitions).await?;
    let done = tx.maintain_partitions().await?;
    tx.commit().await?;
    loop {
        let mut tx = store.system(Job::Partitions).await?;
        let ended = tx.end_kept_answers(BATCH).await?;
        tx.commit().await?;
        if ended < u64::from(BATCH) {
            return Ok(done);
        }
    }
}
