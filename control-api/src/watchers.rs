//! Whoever waits for something to go on: long polls, and streams of events and logs. However many wait, one look in a while
//! asks for all of them, over one connection; each is woken by a number that grew. Who waits holds no connection and asks
//! nobody.
//!
//! A look and no notification: `NOTIFY` takes a lock under which every commit of the whole database that tells anything
//! goes one by one, and a pool between us and the database passes none on (ADR 0049). Knows no route.

mod looks;
pub mod rights;

use std::{
    collections::HashMap,
    fmt::Write as _,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use gatehouse_contract::{Reason, TenantId};
use gatehouse_service::{Reply, Shutdown, exit::chain};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep},
};
use tracing::{debug, warn};

pub use looks::{Executions, Logs, Look};

/// How long after a look the next one begins, and the part of its time that looking may take: a look that takes long comes
/// more rarely.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const SHARE: u32 = 10;
/// After one that failed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Most who wait in this process, and of one tenant.
const WATCHERS: u64 = 20_000;
const OF_A_TENANT: u64 = 12_000;
/// How many of those who were woken read at the same time, so that the others' requests have connections, too.
const READERS: usize = 4;

/// What is waited for.
pub trait Watched: Copy + Eq + Hash + Send + Sync + 'static {
    /// Whose it is.
    fn tenant(&self) -> TenantId;
}

/// Those who wait for one kind of thing.
pub struct Watchers<K: Watched>(Arc<Inner<K>>);

struct Inner<K> {
    /// A word of ours in metrics.
    name: &'static str,
    state: Mutex<State<K>>,
    /// The first has come.
    arrived: Notify,
    /// Nobody is told anything any more.
    closed: AtomicBool,
    looks: AtomicU64,
    readers: Semaphore,
}

struct State<K> {
    entries: HashMap<K, Entry>,
    of_tenants: HashMap<TenantId, u64>,
    users: u64,
}

struct Entry {
    number: watch::Sender<u64>,
    users: u64,
}

/// One who waits. Dropped it is forgotten.
pub struct Watching<K: Watched> {
    of: Watchers<K>,
    key: K,
    number: watch::Receiver<u64>,
}

/// The process goes down: whoever waited comes again elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

// === impl Watchers ===

impl<K: Watched> Clone for Watchers<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Watched> Watchers<K> {
    /// Nobody yet.
    pub fn new(name: &'static str) -> Self {
        let state = State { entries: HashMap::new(), of_tenants: HashMap::new(), users: 0 };
        Self(Arc::new(Inner {
            name,
            state: Mutex::new(state),
            arrived: Notify::new(),
            closed: AtomicBool::new(false),
            looks: AtomicU64::new(0),
            readers: Semaphore::new(READERS),
        }))
    }

    /// One more who waits. Refused where as many wait as may.
    pub fn watch(&self, key: K) -> Result<Watching<K>, Reply> {
        let full = |reason, detail| Err(Reply::new(reason).detail(detail));
        let mut state = self.state();
        if self.0.closed.load(Relaxed) || state.users >= WATCHERS {
            let why = "as many wait here as may: try again, or ask without waiting";
            return full(Reason::DependencyUnavailable, why);
        }
        let theirs = state.of_tenants.entry(key.tenant()).or_default();
        if *theirs >= OF_A_TENANT {
            let why = "as many of the tenant wait here as may: ask without waiting";
            return full(Reason::QuotaExceeded, why);
        }
        *theirs += 1;
        state.users += 1;
        let entry = state.entries.entry(key);
        let entry = entry.or_insert_with(|| Entry { number: watch::Sender::new(0), users: 0 });
        entry.users += 1;
        let number = entry.number.subscribe();
        drop(state);
        self.0.arrived.notify_one();
        Ok(Watching { of: self.clone(), key, number })
    }

    /// Runs until the shutdown, which wakes everybody.
    pub async fn run<L: Look<K>>(self, look: L, shutdown: Shutdown) {
        let looking = async {
            let mut failing = false;
            loop {
                let known = self.known();
                if known.is_empty() {
                    self.0.arrived.notified().await;
                    continue;
                }
                let began = Instant::now();
                let rest = match look.beyond(&known).await {
                    Ok(moved) => {
                        failing = false;
                        self.wake(&moved);
                        (began.elapsed() * SHARE).max(LOOK_EVERY)
                    }
                    Err(error) if failing => {
                        debug!(error = %chain(&error), "still nobody is woken");
                        LOOK_AGAIN
                    }
                    Err(error) => {
                        failing = true;
                        warn!(watchers = self.0.name, error = %chain(&error),
                            "nobody is woken: looking again");
                        LOOK_AGAIN
                    }
                };
                self.0.looks.fetch_add(1, Relaxed);
                sleep(rest).await;
            }
        };
        tokio::select! {
            () = looking => {}
            () = shutdown.requested() => {}
        }
        self.0.closed.store(true, Relaxed);
        // With the senders every wait ends.
        self.state().entries.clear();
    }

    fn known(&self) -> Vec<(K, u64)> {
        let state = self.state();
        state.entries.iter().map(|(key, entry)| (*key, *entry.number.borrow())).collect()
    }

    fn wake(&self, moved: &[(K, u64)]) {
        let state = self.state();
        for (key, number) in moved {
            if let Some(entry) = state.entries.get(key) {
                entry.number.send_if_modified(|known| raise(known, *number));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text form that Prometheus reads.
    pub fn render(&self) -> String {
        let name = self.0.name;
        let (users, things) = {
            let state = self.state();
            (state.users, state.entries.len())
        };
        let looks = self.0.looks.load(Relaxed);
        let mut text = String::new();
        for (metric, kind, help, value) in [
            ("watchers", "gauge", "Long polls and streams that wait.", users),
            ("watched", "gauge", "What they wait for.", things as u64),
            ("looks_total", "counter", "Looks for all of them together.", looks),
        ] {
            let metric = format!("gatehouse_{name}_{metric}");
            // Writing into a string cannot fail.
            writeln!(text, "# HELP {metric} {help}\n# TYPE {metric} {kind}\n{metric} {value}")
                .unwrap_or_default();
        }
        text
    }
}

/// A number grows, or it stays.
fn raise(known: &mut u64, number: u64) -> bool {
    let grows = number > *known;
    *known = number.max(*known);
    grows
}

// === impl Watching ===

impl<K: Watched> Watching<K> {
    /// Ends when there is more than `seen`.
    pub async fn beyond(&mut self, seen: u64) -> Result<u64, Closed> {
        let grown = self.number.wait_for(|number| *number > seen).await;
        grown.map(|number| *number).map_err(|_| Closed)
    }

    /// What was read otherwise: it is not looked for again.
    pub fn saw(&self, number: u64) {
        if let Some(entry) = self.of.state().entries.get(&self.key) {
            entry.number.send_if_modified(|known| raise(known, number));
        }
    }

    /// What it waits for.
    pub const fn key(&self) -> K {
        self.key
    }

    /// Does `read` when it is its turn.
    pub async fn read<T>(&self, read: impl Future<Output = T>) -> T {
        // Never closed: a turn that cannot be had is none that is needed.
        let _turn = self.of.0.readers.acquire().await.ok();
        read.await
    }
}

impl<K: Watched> Drop for Watching<K> {
    fn drop(&mut self) {
        let mut state = self.of.state();
        state.users = state.users.saturating_sub(1);
        if let Some(entry) = state.entries.get_mut(&self.key) {
            entry.users = entry.users.saturating_sub(1);
            if entry.users == 0 {
                state.entries.remove(&self.key);
            }
        }
        let tenant = self.key.tenant();
        if let Some(theirs) = state.of_tenants.get_mut(&tenant) {
            *theirs = theirs.saturating_sub(1);
            if *theirs == 0 {
                state.of_tenants.remove(&tenant);
            }
        }
    }
}
