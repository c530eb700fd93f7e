//! Being alive: one heartbeat row per start of this worker, and what follows from its absence, here (runs whose
//! lease may be lost are ended) and for others (their executions are offered again).
//! Knows nothing of sandboxes.

use std::time::Duration;

use gatehouse_service::{Shutdown, exit::chain};
use gatehouse_store::{Error, Job, Store, sweep::Swept};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::{error, info, warn};

/// Queued for this long and taken by nobody means that the queue entry is lost, even while others are there.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Rows of workers that are long gone.
const GONE: Duration = Duration::from_secs(3600);

/// Beats, and knows since when.
#[derive(Debug, Clone)]
pub struct Pulse {
    store: Store,
    worker: String,
    lease: Duration,
    last: watch::Sender<Instant>,
    /// Since when beats have followed each other without a gap; nothing of this start's first beat.
    again: watch::Sender<Option<Instant>>,
}

impl Pulse {
    /// The first beat, after which executions can be claimed for `worker`.
    pub async fn start(store: Store, worker: String, lease: Duration) -> Result<Self, Error> {
        let began = Instant::now();
        let pulse = Self {
            store,
            worker,
            lease,
            last: watch::Sender::new(began),
            again: watch::Sender::new(None),
        };
        pulse.beat().await?;
        Ok(pulse)
    }

    /// Beats until dropped. An attempt that hangs is given up, so that it does not delay the next.
    pub async fn run(&self) {
        let pause = self.lease / 5;
        loop {
            tokio::time::sleep(pause).await;
            let began = Instant::now();
            match timeout(pause, self.beat()).await {
                Ok(Ok(())) => {
                    if !self.is_alive() {
                        self.again.send_replace(Some(Instant::now()));
                    }
                    // From before it was sent: the database cannot have seen it earlier.
                    self.last.send_replace(began);
                }
                Ok(Err(error)) => warn!(error = %chain(&error), "no heartbeat"),
                Err(_) => warn!("no heartbeat: the database did not answer in time"),
            }
        }
    }

    async fn beat(&self) -> Result<(), Error> {
        let mut tx = self.store.system(Job::Heartbeat).await?;
        tx.beat(&self.worker).await?;
        tx.commit().await
    }

    /// Ends when others may have taken what this worker runs: a run must be dead by then. By our own monotonic
    /// clock, a fifth of the lease early, since the clocks of two machines are not the same.
    pub async fn lost(&self) {
        let mut last = self.last.subscribe();
        loop {
            let until = *last.borrow_and_update() + self.lease * 4 / 5;
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                changed = last.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Whether claims may be made.
    pub fn is_alive(&self) -> bool {
        self.last.borrow().elapsed() < self.lease * 4 / 5
    }

    /// Whether a missing beat of others says anything. Who was cut off from the database itself knows nothing of them: when
    /// it is back, so are they, and have a lease's time to tell what ended meanwhile.
    pub fn judges(&self) -> bool {
        self.is_alive() && self.again.borrow().is_none_or(|again| again.elapsed() >= self.lease)
    }
}

/// Takes leases from dead workers and has what nobody took offered again, until the shutdown.
/// `depth` is how many messages the queue holds: fewer than are queued tell a lost one from a long one.
pub async fn sweep<F>(pulse: Pulse, shutdown: Shutdown, depth: impl Fn() -> F + Send)
where
    F: Future<Output = Option<u64>> + Send,
{
    let lease = pulse.lease;
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(lease / 3) => {}
        }
        match sweep_once(&pulse, depth().await).await {
            Ok((Swept { requeued: 0, given_up: 0, cancelled: 0 }, 0)) => {}
            Ok((Swept { requeued, given_up, cancelled }, offered)) => {
                info!(requeued, given_up, cancelled, offered, "swept executions without a worker");
            }
            Err(error) if error.is_unavailable() => {
                warn!(error = %chain(&error), "could not sweep");
            }
            Err(error) => error!(error = %chain(&error), "could not sweep"),
        }
    }
}

async fn sweep_once(pulse: &Pulse, depth: Option<u64>) -> Result<(Swept, u64), Error> {
    let lease = pulse.lease;
    let mut tx = pulse.store.system(Job::Sweep).await?;
    let swept = if pulse.judges() { tx.expire_leases(lease).await? } else { Swept::default() };
    // The depth was read before: what was taken since makes the queue look longer, never lost.
    let queued = tx.queued(lease / 3).await?;
    let lost = depth.is_some_and(|depth| depth < queued);
    let offered = tx.unqueue_stale(if lost { lease / 3 } else { FORGOTTEN }).await?;
    tx.forget_workers(GONE).await?;
    tx.commit().await?;
    Ok((swept, offered))
}
