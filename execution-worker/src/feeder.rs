//! Offers waiting executions to the workers: from PostgreSQL, which holds the order, to the streams, which are kept
//! shallow. Every worker runs one; the one that has the lock feeds, and another one does once it is gone. Whose turn it is,
//! is decided by `gatehouse_execution::fair`.
//! Knows nothing of running.

use std::time::Duration;

use gatehouse_execution::fair::{LEVELS, Pace, Room, Turns};
use gatehouse_redis_kit::{
    Error as RedisError,
    queue::{self, Priority, Queue},
};
use gatehouse_service::{Shutdown, exit::chain};
use gatehouse_store::{Error as StoreError, Job, Store, feeder::Places};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

/// How often to look where no notification comes.
const POLL: Duration = Duration::from_secs(1);
/// How often where something waits for room or for a slot.
const SOON: Duration = Duration::from_millis(50);
/// How long to rest after a failure.
const REST: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("reading what waits")]
    Store(#[from] StoreError),
    #[error("offering it")]
    Queue(#[from] RedisError),
}

/// What a round left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Another one feeds.
    NotOurs,
    /// Nothing that could be offered, or will be once there is room.
    Nothing,
    /// Something waits.
    Something,
}

/// Feeds until the shutdown.
pub async fn run(store: Store, queue: Queue, shutdown: Shutdown) {
    let feeding = async {
        loop {
            if let Err(error) = feed(&store, &queue).await {
                warn!(error = %chain(&error), "the feeder starts again");
            }
            sleep(REST).await;
        }
    };
    tokio::select! {
        () = feeding => {}
        () = shutdown.requested() => {}
    }
}

async fn feed(store: &Store, queue: &Queue) -> Result<(), Error> {
    let mut pending = store.pending_listener().await?;
    let mut feeder = Feeder::new(store, queue);
    loop {
        match feeder.round().await? {
            Left::NotOurs => sleep(POLL).await,
            Left::Nothing => drop(pending.wait(POLL).await?),
            // What comes meanwhile is seen in the next round, however it is woken.
            Left::Something => drop(timeout(SOON, pending.wait(SOON)).await),
        }
    }
}

/// What one feeder remembers. Another one begins without it, and nobody is worse off than by a turn.
struct Feeder<'f> {
    store: &'f Store,
    queue: &'f Queue,
    began: Instant,
    turns: Turns,
    paces: [Pace; LEVELS],
    places: Places,
}

impl<'f> Feeder<'f> {
    fn new(store: &'f Store, queue: &'f Queue) -> Self {
        Self {
            store,
            queue,
            began: Instant::now(),
            turns: Turns::default(),
            paces: [Pace::default(); LEVELS],
            places: Places::default(),
        }
    }

    async fn round(&mut self) -> Result<Left, Error> {
        let depths = self.queue.depths().await?;
        let now = self.began.elapsed();
        let mut rooms = [Room::default(); LEVELS];
        for ((room, pace), depth) in rooms.iter_mut().zip(&mut self.paces).zip(depths) {
            *room = pace.room(now, depth);
        }
        let mut tx = self.store.system(Job::Feeder).await?;
        if !tx.leads().await? {
            return Ok(Left::NotOurs);
        }
        let waiting = tx.who_waits(self.places.after()).await?;
        let chosen = self.turns.choose(now, &waiting, rooms);
        self.places.went(&waiting, &chosen);
        if chosen.order.is_empty() {
            // A transaction that is dropped ends some time later, and its lock with it: the next round, which a submit may
            // begin at once, would take itself for another's.
            tx.commit().await?;
            let any = waiting.classes.iter().any(|class| class.first > 0 || class.again > 0);
            return Ok(if any { Left::Something } else { Left::Nothing });
        }
        let offers = tx.take(&chosen).await?;
        let messages: Vec<(Priority, queue::Job)> = offers
            .iter()
            .map(|offer| {
                let job = queue::Job { tenant: offer.tenant, execution: offer.execution };
                (Priority::of(offer.stream), job)
            })
            .collect();
        // All or none is marked: of a push that failed some may be there, which harms nothing.
        self.queue.push_all(&messages).await?;
        tx.mark_queued(&offers).await?;
        tx.commit().await?;
        for (priority, _) in &messages {
            if let Some(pace) = self.paces.get_mut(priority.number()) {
                pace.pushed(1);
            }
        }
        debug!(offers = offers.len(), "offered");
        Ok(Left::Something)
    }
}

/// All messages that are not acknowledged.
pub async fn depth(queue: &Queue) -> Result<u64, RedisError> {
    Ok(queue.depths().await?.into_iter().map(u64::from).sum())
}
