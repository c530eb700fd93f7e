//! Where windows are kept: Redis, a cluster of them, or this process's memory.
//! Knows no policy, no lease and no HTTP.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gatehouse_ratelimit::{
    Declaration, Memory, Refused, Return, Run, Take, Taken, Timestamp, memory,
};
use gatehouse_redis_kit as redis_kit;
use tokio::time::Instant;

mod redis;

pub use self::redis::RedisStore;

/// Windows that the memory store holds at most: some 40 MB.
const MEMORY_KEYS: usize = 100_000;

/// The store did not do what it was asked; whether it did a part of it is unknown.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Away {
    #[error("the limits' Redis is away")]
    Redis(#[source] redis_kit::Error),
    #[error("no room for another window")]
    Full(#[source] memory::Full),
    #[error("the store answered less than it was asked")]
    Short,
}

/// Why a take was not answered by a charge.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Untaken {
    #[error(transparent)]
    Refused(Refused),
    #[error(transparent)]
    Away(Away),
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// The run of every part of the store.
    pub runs: Vec<Run>,
    /// How many sidecars live, this one among them.
    pub live: u32,
    /// Whether it decides: no part of it waits for declarations.
    pub settled: bool,
}

/// One way to keep windows. `store/tests.rs` holds what all must do.
pub trait Store: Send + Sync + 'static {
    /// One answer per take, in their order; each is weighed for itself.
    fn take(&self, takes: &[Take]) -> impl Future<Output = Vec<Result<Taken, Untaken>>> + Send;

    /// Hands back; never repeated.
    fn give_back(&self, returns: &[Return]) -> impl Future<Output = Result<(), Away>> + Send;

    /// Declares; says of each, in their order, whether it was declared to the run that it names.
    fn declare(
        &self,
        declarations: &[Declaration],
    ) -> impl Future<Output = Vec<Result<bool, Away>>> + Send;

    /// Tells that this sidecar lives, and asks who else does.
    fn pulse(&self) -> impl Future<Output = Result<Pulse, Away>> + Send;
}

/// Windows in this process. Its clock is the machine's at the start and runs evenly from there.
pub struct MemoryStore {
    memory: Mutex<Memory>,
    start: Instant,
    began: Duration,
}

// === impl Away ===

impl Away {
    /// Whether it is one server of a cluster that is left alone: nothing was asked, and it says nothing of the others.
    pub fn is_apart(&self) -> bool {
        matches!(self, Self::Redis(redis_kit::Error::Silent))
    }

    /// Whether there was no answer in time.
    pub fn is_late(&self) -> bool {
        matches!(self, Self::Redis(redis_kit::Error::Late(_)))
    }
}

// === impl MemoryStore ===

impl MemoryStore {
    pub fn new() -> Self {
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { memory: Mutex::new(Memory::new(MEMORY_KEYS)), start: Instant::now(), began }
    }

    /// The time is taken under the lock: two threads must not charge in the opposite order of their clocks.
    fn locked<T>(&self, work: impl FnOnce(&mut Memory, Timestamp) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (self.began + self.start.elapsed()).as_millis();
        work(&mut memory, Timestamp::from_ms(u64::try_from(now).unwrap_or(u64::MAX)))
    }
}

impl Store for MemoryStore {
    async fn take(&self, takes: &[Take]) -> Vec<Result<Taken, Untaken>> {
        self.locked(|memory, now| {
            let took = takes.iter().map(|take| match memory.take(take, now) {
                Ok(taken) => taken.map_err(Untaken::Refused),
                Err(full) => Err(Untaken::Away(Away::Full(full))),
            });
            took.collect()
        })
    }

    async fn give_back(&self, returns: &[Return]) -> Result<(), Away> {
        self.locked(|memory, now| returns.iter().for_each(|give| memory.give_back(give, now)));
        Ok(())
    }

    async fn declare(&self, declarations: &[Declaration]) -> Vec<Result<bool, Away>> {
        self.locked(|memory, now| {
            let declare = |declaration| memory.declare(declaration, now).map_err(Away::Full);
            declarations.iter().map(declare).collect()
        })
    }

    async fn pulse(&self) -> Result<Pulse, Away> {
        Ok(Pulse { runs: vec![memory::RUN], live: 1, settled: true })
    }
}

#[cfg(test)]
mod tests;
