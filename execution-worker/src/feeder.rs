//! Offers waiting executions to the workers: from PostgreSQL, which holds the order, to the streams, which are kept
//! shallow. Every worker runs one; rows that another one holds are passed over, so that no leader is needed.
//! Knows nothing of running.

use std::time::Duration;

use gatehouse_redis_kit::{
    Error as RedisError,
    queue::{self, Priority, Queue},
};
use gatehouse_service::{Shutdown, exit::chain};
use gatehouse_store::{Error as StoreError, Job, Store};
use tracing::{debug, error, warn};

/// Messages in all streams, held ones included. What is deeper cannot be re-ordered any more.
const DEEPEST: u64 = 64;
/// How often to look where no notification comes.
const POLL: Duration = Duration::from_secs(1);
/// How long to rest after a failure.
const REST: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("reading what waits")]
    Store(#[from] StoreError),
    #[error("offering it")]
    Queue(#[from] RedisError),
}

/// Feeds until the shutdown.
pub async fn run(store: Store, queue: Queue, shutdown: Shutdown) {
    let feeding = async {
        loop {
            if let Err(error) = feed(&store, &queue).await {
                warn!(error = %chain(&error), "the feeder starts again");
            }
            tokio::time::sleep(REST).await;
        }
    };
    tokio::select! {
        () = feeding => {}
        () = shutdown.requested() => {}
    }
}

async fn feed(store: &Store, queue: &Queue) -> Result<(), Error> {
    let mut pending = store.pending_listener().await?;
    loop {
        while top_up(store, queue).await? {}
        pending.wait(POLL).await?;
    }
}

/// Offers what fits. `true` when there may be more.
async fn top_up(store: &Store, queue: &Queue) -> Result<bool, Error> {
    let room = DEEPEST.saturating_sub(depth(queue).await?);
    let Ok(room @ 1..) = u32::try_from(room) else { return Ok(false) };
    let mut tx = store.system(Job::Feeder).await?;
    let offers = tx.take_pending(room).await?;
    let mut pushed = Vec::with_capacity(offers.len());
    let mut failed = None;
    for offer in &offers {
        let job = queue::Job { tenant: offer.tenant, execution: offer.execution };
        match queue.push(priority(offer.priority), &job).await {
            Ok(message) => {
                debug!(execution.id = %offer.execution, message, "offered");
                pushed.push(*offer);
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    // What was pushed is marked even when a later push failed. The rest stays pending.
    tx.mark_queued(&pushed).await?;
    tx.commit().await?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(offers.len() == room as usize),
    }
}

/// All messages that are not acknowledged.
pub async fn depth(queue: &Queue) -> Result<u64, RedisError> {
    let mut all = 0;
    for priority in Priority::ALL {
        all += queue.depth(*priority).await?;
    }
    Ok(all)
}

fn priority(number: u8) -> Priority {
    match Priority::ALL.get(usize::from(number)) {
        Some(priority) => *priority,
        None => {
            error!(number, "the database holds a priority that does not exist");
            Priority::P3
        }
    }
}
