//! The runs of this worker, and which of them must end: its caller wants so, or the lease is no longer ours. Asked for all
//! of them in one query, however many they are.
//! Knows nothing of sandboxes, nor of when a heartbeat comes too late ([`crate::pulse`]).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gatehouse_service::exit::chain;
use gatehouse_store::{Error, Job, Store, sweep::Held};
use tokio::{sync::watch, time::sleep};
use tracing::debug;

/// How often to look which are to be ended.
const LOOK: Duration = Duration::from_millis(500);
/// Every so many looks all leases are compared: they are taken from who does not beat, who then knows.
const COMPARE: u32 = 10;

/// Why a run must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its caller wants it ended: the lease is ours, and so is the report.
    Cancelled,
    /// The lease is another's, or the execution ended: nothing may be reported.
    Lost,
}

/// All runs of a worker.
#[derive(Debug, Clone, Default)]
pub struct Leases(Arc<Mutex<HashMap<Held, watch::Sender<Option<Why>>>>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Lease {
    leases: Leases,
    held: Held,
    told: watch::Receiver<Option<Why>>,
}

impl Leases {
    /// Enters a run whose claim was committed.
    pub fn enter(&self, held: Held) -> Lease {
        let (tell, told) = watch::channel(None);
        self.with(|runs| drop(runs.insert(held, tell)));
        Lease { leases: self.clone(), held, told }
    }

    /// Looks until dropped. While the database is away nothing is ended here: how long away is bearable is the pulse's to
    /// say.
    pub async fn watch(&self, store: &Store, worker: &str) {
        let mut looks: u32 = 0;
        loop {
            sleep(LOOK).await;
            looks = looks.wrapping_add(1);
            let looked = self.look(store, worker, looks.is_multiple_of(COMPARE)).await;
            if let Err(error) = looked {
                debug!(error = %chain(&error), "could not look which runs are to end");
            }
        }
    }

    async fn look(&self, store: &Store, worker: &str, compare: bool) -> Result<(), Error> {
        // Read before the database is: what is claimed meanwhile is not missed there.
        let ours: Vec<Held> = self.with(|runs| runs.keys().copied().collect());
        if ours.is_empty() {
            return Ok(());
        }
        let mut tx = store.system(Job::Watch).await?;
        let to_end = tx.to_end(worker).await?;
        let runs = if compare { Some(tx.runs_of(worker).await?) } else { None };
        drop(tx);
        for held in to_end {
            self.tell(&held, Why::Cancelled);
        }
        if let Some(runs) = runs {
            for held in ours.iter().filter(|held| !runs.contains(held)) {
                self.tell(held, Why::Lost);
            }
        }
        Ok(())
    }

    fn tell(&self, held: &Held, why: Why) {
        self.with(|runs| {
            if let Some(run) = runs.get(held) {
                run.send_replace(Some(why));
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<Held, watch::Sender<Option<Why>>>) -> T) -> T {
        // The map is whole whatever happened to a thread that held the lock.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Lease {
    /// Ends when the run must.
    pub async fn ends(&self) -> Why {
        let mut told = self.told.clone();
        let why = told.wait_for(Option::is_some).await.map(|why| *why);
        // Nobody can tell any more only where the entry is gone, and with it the run.
        why.ok().flatten().unwrap_or(Why::Lost)
    }

    /// Ends when the lease is another's, whatever its caller wants.
    pub async fn is_lost(&self) {
        let mut told = self.told.clone();
        drop(told.wait_for(|why| *why == Some(Why::Lost)).await);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.with(|runs| drop(runs.remove(&self.held)));
    }
}
