//! Where windows are kept: Redis, shared by all sidecars, or this process's memory.
//! Knows no policy and no HTTP.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use gatehouse_contract::TenantId;
use gatehouse_ratelimit::{Decision, Memory, Rule, Timestamp, memory};
use gatehouse_redis_kit as redis_kit;

/// Windows that the memory store holds at most: some 40 MB.
const MEMORY_KEYS: usize = 100_000;

/// No decision could be had; whether the request was charged is unknown.
#[derive(Debug, thiserror::Error)]
pub enum Away {
    #[error("the limits' Redis is away")]
    Redis(#[source] redis_kit::Error),
    #[error("no room for another window")]
    Full(#[source] memory::Full),
}

/// One way to keep windows. `store/tests.rs` holds what all must do.
pub trait Store: Send + Sync + 'static {
    /// Weighs a request and charges it to all rules when it passes, atomically.
    fn decide(
        &self,
        tenant: TenantId,
        rules: &[Rule],
        cost: u32,
    ) -> impl Future<Output = Result<Decision, Away>> + Send;

    /// Whether decisions can be had now.
    fn is_up(&self) -> impl Future<Output = bool> + Send;
}

/// Windows in Redis.
pub struct RedisStore(redis_kit::Limiter);

/// Windows in this process, by its monotonic clock.
pub struct MemoryStore {
    memory: Mutex<Memory>,
    start: Instant,
}

impl RedisStore {
    pub fn new(limiter: redis_kit::Limiter) -> Self {
        Self(limiter)
    }
}

impl Store for RedisStore {
    async fn decide(&self, tenant: TenantId, rules: &[Rule], cost: u32) -> Result<Decision, Away> {
        let decided = self.0.decide(tenant, rules, cost).await;
        decided.map(|decided| decided.decision).map_err(Away::Redis)
    }

    async fn is_up(&self) -> bool {
        self.0.ping().await.is_ok()
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        Self { memory: Mutex::new(Memory::new(MEMORY_KEYS)), start: Instant::now() }
    }
}

impl Store for MemoryStore {
    async fn decide(&self, tenant: TenantId, rules: &[Rule], cost: u32) -> Result<Decision, Away> {
        // Taken under the lock: two threads must not charge in the opposite order of their clocks.
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        memory.decide(tenant, rules, cost, Timestamp::from_ms(elapsed_ms)).map_err(Away::Full)
    }

    async fn is_up(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
