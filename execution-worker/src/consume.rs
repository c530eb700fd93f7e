//! Takes messages while there is room for what they name, and hands on what it read and did not begin.
//! Knows nothing of how an execution runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use gatehouse_redis_kit::{
    Error as RedisError,
    queue::{Delivery, Queue},
};
use gatehouse_service::{Shutdown, exit::chain};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use crate::{
    execute::{Claimed, Shared},
    metrics::Claim,
    reload::InEffect,
};

/// How long a read waits for a message.
const BLOCK: Duration = Duration::from_secs(1);
/// A message that its consumer has held for this long is looked at by others. Harmless for one that is still
/// being worked on: PostgreSQL says that it is running.
const STALE: Duration = Duration::from_secs(30);
/// How often to look for those.
const LOOK_FOR_STALE: Duration = Duration::from_secs(10);
/// How many messages to take at once, where so many can be run.
const AT_ONCE: usize = 16;
/// How long to rest after Redis has failed, or while nothing may be taken.
const REST: Duration = Duration::from_secs(1);

/// The one place where a worker takes work.
pub struct Consumer {
    shared: Arc<Shared>,
    queue: Queue,
    shutdown: Shutdown,
    effect: watch::Receiver<InEffect>,
    runs: JoinSet<()>,
    stale_at: Instant,
    /// Whether it was said that nothing is taken.
    holds: AtomicBool,
}

impl Consumer {
    /// Nothing is taken yet.
    pub fn new(shared: Arc<Shared>, queue: Queue, shutdown: Shutdown) -> Self {
        let (effect, runs, stale_at) = (shared.effect.clone(), JoinSet::new(), Instant::now());
        Self { shared, queue, shutdown, effect, runs, stale_at, holds: AtomicBool::new(false) }
    }

    /// Takes messages until the shutdown and returns the runs that are still going.
    pub async fn run(mut self) -> JoinSet<()> {
        let shutdown = self.shutdown.clone();
        while !shutdown.is_requested() {
            while self.runs.try_join_next().is_some() {}
            // A place first, then a message: what cannot be run is left to others.
            let free = self.limit().saturating_sub(self.runs.len());
            if free == 0 {
                self.room(&shutdown).await;
                continue;
            }
            if !self.may_take() {
                tokio::select! {
                    () = shutdown.requested() => {}
                    () = sleep(REST) => {}
                }
                continue;
            }
            let found = match self.read(free.min(AT_ONCE)).await {
                Ok(found) => found,
                Err(error) => {
                    warn!(error = %chain(&error), "could not read the queue");
                    tokio::select! {
                        () = shutdown.requested() => {}
                        () = sleep(REST) => {}
                    }
                    continue;
                }
            };
            for delivery in found {
                // Fewer may run than when it was read.
                while self.runs.len() >= self.limit() && !shutdown.is_requested() {
                    self.room(&shutdown).await;
                }
                let (shared, queue, shutdown) =
                    (Arc::clone(&self.shared), self.queue.clone(), shutdown.clone());
                self.runs.spawn(async move { one(&shared, &queue, &shutdown, delivery).await });
            }
        }
        self.runs
    }

    /// What the configuration says at this moment; [`Self::room`] wakes when it says something else.
    fn limit(&mut self) -> usize {
        self.effect.borrow_and_update().live.concurrency
    }

    /// Ends when a run has ended, the limit may be another, or the worker goes away.
    async fn room(&mut self, shutdown: &Shutdown) {
        tokio::select! {
            // With no run there is only the limit to wait for.
            Some(_) = self.runs.join_next() => {}
            _ = self.effect.changed() => {}
            () = shutdown.requested() => {}
        }
    }

    fn may_take(&self) -> bool {
        let why_not = if !self.shared.pulse.is_alive() {
            Some("the database does not hear this worker".to_owned())
        } else if self.shared.spool.waiting() > 0 {
            Some("results of before wait for the database".to_owned())
        } else {
            self.shared.driver.admits().err().map(|error| chain(&error))
        };
        match &why_not {
            Some(why) if !self.holds.swap(true, Relaxed) => warn!(error = %why, "takes nothing"),
            None if self.holds.swap(false, Relaxed) => info!("takes work again"),
            _ => {}
        }
        why_not.is_none()
    }

    /// Messages that wait, or that others have forgotten. Once asked, Redis may have given them to us: a read is never dropped.
    async fn read(&mut self, count: usize) -> Result<Vec<Delivery>, RedisError> {
        let us = &self.shared.incarnation;
        if Instant::now() >= self.stale_at {
            self.stale_at = Instant::now() + LOOK_FOR_STALE;
            return self.queue.claim_stale(us, STALE, count).await;
        }
        self.queue.read(us, BLOCK, count).await
    }
}

/// Claims what a message names, and runs it. What comes when the worker goes away is for others.
async fn one(shared: &Arc<Shared>, queue: &Queue, shutdown: &Shutdown, delivery: Delivery) {
    let job = match &delivery.job {
        Ok(job) => *job,
        Err(refused) => {
            warn!(message = delivery.id, priority = %delivery.priority, error = %refused, "parked a message");
            shared.metrics.claimed(Claim::Parked);
            if let Err(error) = queue.park(&delivery).await {
                warn!(message = delivery.id, error = %chain(&error), "could not park a message");
            }
            return;
        }
    };
    // Until it is told how it ended: what the database says is ours beside that, is nobody's.
    let _work = shared.working.on(job.execution);
    let claimed = if shutdown.is_requested() {
        // Again into the stream: whoever looks for forgotten messages would find this one half a minute from now.
        if let Err(error) = queue.push(delivery.priority, &job).await {
            warn!(message = delivery.id, error = %chain(&error), "could not hand a message on");
            return;
        }
        Claimed::No
    } else {
        shared.claim(job).await
    };
    let claimed = match claimed {
        Claimed::No => None,
        Claimed::Yes(run) => Some(run),
        // Left to be claimed again.
        Claimed::NotNow => return,
    };
    // From the claim on the database says whose it is, and the message nothing.
    if let Err(error) = queue.ack(&delivery).await {
        // Delivered again later, and found to be done.
        warn!(message = delivery.id, error = %chain(&error), "could not acknowledge");
    }
    match claimed {
        Some(run) if shutdown.is_requested() => shared.hand_over(*run).await,
        Some(run) => shared.run_to_end(*run).await,
        None => {}
    }
}

/// Waits for all of them.
pub async fn all(runs: &mut JoinSet<()>) {
    while runs.join_next().await.is_some() {}
}
