//! The heaviest tenants of the last minute, in bounded memory: who was charged most, who was denied most.
//!
//! Four tables of [`COUNTERS`] counters: two questions, this minute and the one before. A table that is full takes its
//! median from every counter and drops what is left with nothing (Misra and Gries 1982, in the form of Anderson et
//! al. 2017): the cost of that is spread over half a table of newcomers. Whoever has more than one part in
//! `COUNTERS / 2` of all is in the table, and is told at most that part too low.
//! Knows neither limits nor clocks: `now` counts from the start.

use std::time::Duration;

use gatehouse_contract::TenantId;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

/// Of one table: 1000 in all.
const COUNTERS: usize = 250;
const MINUTE: Duration = Duration::from_secs(60);
/// The most that one answer lists.
pub const MOST: usize = 100;

/// What to order by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// What was charged to the tenant's windows, leases as a whole.
    #[default]
    Cost,
    /// Checks that were denied.
    Denied,
}

/// The tables.
#[derive(Debug, Default)]
pub struct Top {
    cost: Minutes,
    denied: Minutes,
}

/// The answer of `GET /admin/top`.
#[derive(Debug, PartialEq, Serialize)]
pub struct Answer {
    pub by: By,
    /// What the figures are about.
    pub window_s: u64,
    /// All tenants together.
    pub total: u64,
    /// The figures may be this much too low; a tenant with less may be missing.
    pub error: u64,
    pub tenants: Vec<Entry>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Entry {
    pub tenant: TenantId,
    /// In the last minute.
    pub value: u64,
}

/// This minute and the one before.
#[derive(Debug, Default)]
struct Minutes {
    minute: u64,
    current: Table,
    before: Table,
}

#[derive(Debug, Default)]
struct Table {
    counts: HashMap<TenantId, u64>,
    total: u64,
    /// What was taken from every counter.
    taken: u64,
}

// === impl Top ===

impl Top {
    pub fn charged(&mut self, tenant: TenantId, cost: u64, now: Duration) {
        self.cost.add(tenant, cost, now);
    }

    pub fn denied(&mut self, tenant: TenantId, now: Duration) {
        self.denied.add(tenant, 1, now);
    }

    /// The heaviest `limit` tenants, at most [`MOST`].
    pub fn answer(&mut self, by: By, limit: usize, now: Duration) -> Answer {
        let minutes = match by {
            By::Cost => &mut self.cost,
            By::Denied => &mut self.denied,
        };
        minutes.answer(by, limit.min(MOST), now)
    }
}

// === impl Minutes ===

impl Minutes {
    fn turn(&mut self, now: Duration) {
        let minute = now.as_secs() / MINUTE.as_secs();
        if minute == self.minute {
            return;
        }
        let current = std::mem::take(&mut self.current);
        self.before = if minute == self.minute + 1 { current } else { Table::default() };
        self.minute = minute;
    }

    fn add(&mut self, tenant: TenantId, value: u64, now: Duration) {
        if value > 0 {
            self.turn(now);
            self.current.add(tenant, value);
        }
    }

    /// The last minute is this one and, of the one before, the part that is not yet a minute ago.
    fn answer(&mut self, by: By, limit: usize, now: Duration) -> Answer {
        self.turn(now);
        let begin = MINUTE * u32::try_from(self.minute).unwrap_or(u32::MAX);
        let passed_ms = now.saturating_sub(begin).as_millis();
        let (whole_ms, passed_ms) = (MINUTE.as_millis(), passed_ms.min(MINUTE.as_millis()));
        let part = |value: u64| {
            let part = u128::from(value) * (whole_ms - passed_ms) / whole_ms;
            u64::try_from(part).unwrap_or(u64::MAX)
        };
        let mut values = self.current.counts.clone();
        for (tenant, value) in &self.before.counts {
            *values.entry(*tenant).or_default() += part(*value);
        }
        let mut tenants: Vec<Entry> = values
            .into_iter()
            .filter(|(_, value)| *value > 0)
            .map(|(tenant, value)| Entry { tenant, value })
            .collect();
        tenants.sort_by_key(|entry| (std::cmp::Reverse(entry.value), entry.tenant));
        tenants.truncate(limit);
        Answer {
            by,
            window_s: MINUTE.as_secs(),
            total: self.current.total + part(self.before.total),
            error: self.current.taken + part(self.before.taken),
            tenants,
        }
    }
}

// === impl Table ===

impl Table {
    fn add(&mut self, tenant: TenantId, value: u64) {
        self.total = self.total.saturating_add(value);
        if let Some(count) = self.counts.get_mut(&tenant) {
            *count = count.saturating_add(value);
            return;
        }
        if self.counts.len() >= COUNTERS {
            let mut all: Vec<u64> = self.counts.values().copied().collect();
            let (_, median, _) = all.select_nth_unstable(COUNTERS / 2);
            let median = *median;
            self.taken += median;
            self.counts.retain(|_, count| {
                *count = count.saturating_sub(median);
                *count > 0
            });
        }
        self.counts.insert(tenant, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::new(uuid::Uuid::from_u128(number))
    }

    fn shown(answer: &Answer) -> Vec<(u128, u64)> {
        let value = |entry: &Entry| (entry.tenant.as_uuid().as_u128(), entry.value);
        answer.tenants.iter().map(value).collect()
    }

    #[test]
    fn a_minute_is_this_one_and_the_rest_of_the_one_before() {
        let (mut top, at) = (Top::default(), Duration::from_secs);
        top.charged(tenant(1), 600, at(59));
        top.charged(tenant(2), 30, at(60));
        top.charged(tenant(3), 0, at(60));
        let cost = |top: &mut Top, now| shown(&top.answer(By::Cost, 10, now));
        assert_eq!(cost(&mut top, at(60)), [(1, 600), (2, 30)]);
        assert_eq!(cost(&mut top, at(90)), [(1, 300), (2, 30)]);
        assert_eq!(cost(&mut top, at(120)), [(2, 30)]);
        assert_eq!(cost(&mut top, at(150)), [(2, 15)]);
        assert_eq!(cost(&mut top, at(180)), []);
        top.charged(tenant(1), 1, at(1000));
        assert_eq!(cost(&mut top, at(1000)), [(1, 1)], "a pause is no minute before");
        assert_eq!(top.answer(By::Denied, 10, at(1000)).tenants, []);
        top.denied(tenant(9), at(1000));
        assert_eq!(shown(&top.answer(By::Denied, 10, at(1001))), [(9, 1)]);
    }

    #[test]
    fn the_heaviest_stay_among_ten_thousand_and_memory_is_bounded() {
        let mut top = Top::default();
        let now = Duration::from_secs(1);
        for round in 0..20_u128 {
            for light in 0..10_000 {
                top.charged(tenant(1000 + light), 1, now);
                if light % 100 == 0 {
                    // 1 % and 2 % of all.
                    top.charged(tenant(1), 1, now);
                    top.charged(tenant(2), 2, now);
                }
            }
            assert!(top.cost.current.counts.len() <= COUNTERS, "round {round}");
        }
        let answer = top.answer(By::Cost, 2, now);
        let [(first, most), (second, less)] = shown(&answer)[..] else { panic!("{answer:?}") };
        assert_eq!((first, second), (2, 1));
        assert!(most <= 4000 && most + answer.error >= 4000, "{answer:?}");
        assert!(less <= 2000 && less + answer.error >= 2000, "{answer:?}");
        let bound = answer.total / (COUNTERS as u64 / 2);
        assert!(answer.error <= bound, "{} of {}: at most {bound}", answer.error, answer.total);
    }

    #[test]
    fn an_answer_lists_no_more_than_its_bound() {
        let mut top = Top::default();
        for number in 0..200 {
            top.denied(tenant(number), Duration::ZERO);
        }
        assert_eq!(top.answer(By::Denied, usize::MAX, Duration::ZERO).tenants.len(), MOST);
        assert_eq!(top.answer(By::Denied, 3, Duration::ZERO).tenants.len(), 3);
    }
}
