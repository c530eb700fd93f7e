//! Windows in Redis, shared by all sidecars.
//! Knows nothing of the function there; `redis-kit` does.

use gatehouse_ratelimit::{Declaration, Return, Take, Taken};
use gatehouse_redis_kit::Limiter;

use super::{Away, Pulse, Store, Untaken};

/// See the module.
pub struct RedisStore {
    limiter: Limiter,
    /// By which the store counts the living; another process must not have the same.
    name: String,
}

impl RedisStore {
    pub fn new(limiter: Limiter, name: impl std::fmt::Display) -> Self {
        Self { limiter, name: name.to_string() }
    }
}

impl Store for RedisStore {
    async fn take(&self, takes: &[Take]) -> Vec<Result<Taken, Untaken>> {
        let taken = self.limiter.take(takes).await.into_iter().map(|taken| match taken {
            Ok(taken) => taken.map_err(Untaken::Refused),
            Err(error) => Err(Untaken::Away(Away::Redis(error))),
        });
        taken.collect()
    }

    async fn give_back(&self, returns: &[Return]) -> Result<(), Away> {
        self.limiter.give_back(returns).await.map_err(Away::Redis)
    }

    async fn declare(&self, declarations: &[Declaration]) -> Vec<Result<bool, Away>> {
        let declared = self.limiter.declare(declarations).await;
        declared.into_iter().map(|done| done.map_err(Away::Redis)).collect()
    }

    async fn pulse(&self) -> Result<Pulse, Away> {
        let pulse = self.limiter.pulse(&self.name).await.map_err(Away::Redis)?;
        let runs = pulse.runs.into_iter().collect();
        Ok(Pulse { runs, live: pulse.live, settled: pulse.settled })
    }
}
