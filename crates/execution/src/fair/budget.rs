//! How many retries are offered: so many a second in all and of one tenant, so that a dependency that comes back is not met
//! by everything that failed meanwhile. What is beyond waits; nothing is given up for it.

use std::{collections::BTreeMap, time::Duration};

use gatehouse_contract::TenantId;

/// Retries of one tenant a second, and how many at once after a pause.
pub(super) const OF_ONE: Rate = Rate { per_s: 10, burst: 20 };
/// Of all together.
pub(super) const OF_ALL: Rate = Rate { per_s: 100, burst: 200 };

/// How fast a bucket fills, and how full it gets.
pub(super) struct Rate {
    pub(super) per_s: u32,
    pub(super) burst: u32,
}

/// In thousandths, so that a short time gives its part.
#[derive(Debug, Clone, Copy)]
struct Bucket(u64);

const ONE: u64 = 1000;

#[derive(Debug, Clone)]
pub(super) struct Budgets {
    at: Option<Duration>,
    all: Bucket,
    /// Of those who spent something; who is not here has all of it.
    tenants: BTreeMap<TenantId, Bucket>,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { at: None, all: Bucket::full(&OF_ALL), tenants: BTreeMap::new() }
    }
}

impl Bucket {
    fn full(rate: &Rate) -> Self {
        Self(u64::from(rate.burst) * ONE)
    }

    fn refill(&mut self, rate: &Rate, passed_ms: u64) {
        let more = passed_ms.saturating_mul(u64::from(rate.per_s));
        self.0 = self.0.saturating_add(more).min(Self::full(rate).0);
    }

    const fn has_one(self) -> bool {
        self.0 >= ONE
    }
}

impl Budgets {
    /// What came in since the last time. A clock that goes back gives nothing.
    pub(super) fn refill(&mut self, now: Duration) {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_sub(at));
        let passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        // A part of a millisecond is not lost: it is counted the next time.
        if self.at.is_some() && passed_ms == 0 {
            return;
        }
        self.at = Some(self.at.map_or(now, |at| at.max(now)));
        self.all.refill(&OF_ALL, passed_ms);
        self.tenants.retain(|_, bucket| {
            bucket.refill(&OF_ONE, passed_ms);
            bucket.0 < Bucket::full(&OF_ONE).0
        });
    }

    pub(super) fn allow(&self, tenant: TenantId) -> bool {
        self.all.has_one() && self.tenants.get(&tenant).is_none_or(|bucket| bucket.has_one())
    }

    pub(super) fn spend(&mut self, tenant: TenantId) {
        let bucket = self.tenants.entry(tenant).or_insert_with(|| Bucket::full(&OF_ONE));
        bucket.0 = bucket.0.saturating_sub(ONE);
        self.all.0 = self.all.0.saturating_sub(ONE);
    }
}
