//! What passed and is not charged yet: internal callers, costs that are known only after the response, and what this VM
//! let pass while the sidecar was away. Told to the sidecar in batches; what is older than a minute is not told, as it no
//! longer counts in a window of one: after a long outage nobody pays for all of it at once.
//! Knows neither the sidecar nor whether it answers.

use std::{collections::BTreeMap, time::Duration};

use hashbrown::HashMap;

use super::Key;
use crate::local::SPAN;

/// The most keys: about 2 MiB.
const MAX_KEYS: usize = 1024;
/// More than these are not all of one minute.
const MOST_SECONDS: usize = 60;
/// The most that is told at once.
const AT_ONCE: usize = 64;

/// What passed and is not charged yet, by whose it is.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    by_key: HashMap<Key, Minute>,
    /// What was told and not answered yet.
    told: HashMap<u64, (Key, Minute)>,
    number: u64,
}

/// How much passed in which second since the Unix epoch; at most a minute of it.
#[derive(Debug, Default)]
struct Minute(BTreeMap<u64, u32>);

/// A charge to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) number: u64,
    pub(crate) key: Key,
    pub(crate) cost: u32,
}

impl Owed {
    /// Notes `cost` at `now`, the time since the Unix epoch; `false` if there is no place for it.
    pub(crate) fn add(&mut self, key: Key, cost: u32, now: Duration) -> bool {
        let full = self.by_key.len() >= MAX_KEYS;
        if full && !self.by_key.contains_key(&key) {
            return false;
        }
        let minute = self.by_key.entry(key).or_default();
        minute.add(now.as_secs(), cost);
        if minute.0.len() > MOST_SECONDS {
            minute.forget(now);
        }
        true
    }

    /// Whether nothing is to be told.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// What is to be told now.
    pub(crate) fn tell(&mut self, now: Duration) -> Vec<Charge> {
        if self.by_key.is_empty() || self.told.len() >= MAX_KEYS {
            return Vec::new();
        }
        let due: Vec<Key> = self.by_key.keys().take(AT_ONCE).cloned().collect();
        let mut charges = Vec::with_capacity(due.len());
        for key in due {
            let Some(mut minute) = self.by_key.remove(&key) else { continue };
            minute.forget(now);
            let cost = minute.sum();
            if cost > 0 {
                self.number = self.number.wrapping_add(1);
                let number = self.number;
                self.told.insert(number, (key.clone(), minute));
                charges.push(Charge { number, key, cost });
            }
        }
        charges
    }

    /// A charge was answered: how much it was. Where nobody did it is told again, at the risk of charging twice:
    /// never may more pass than the limit because a charge was lost.
    pub(crate) fn answered(&mut self, number: u64, charged: bool) -> u32 {
        let Some((key, told)) = self.told.remove(&number) else { return 0 };
        if charged {
            return told.sum();
        }
        // It keeps the time at which it passed.
        let minute = self.by_key.entry(key).or_default();
        for (second, cost) in told.0 {
            minute.add(second, cost);
        }
        0
    }
}

// === impl Minute ===

impl Minute {
    fn add(&mut self, second: u64, cost: u32) {
        let passed = self.0.entry(second).or_default();
        *passed = passed.saturating_add(cost);
    }

    /// A clock that was set back forgets what seems to lie ahead, too.
    fn forget(&mut self, now: Duration) {
        let (now, window) = (now.as_secs(), u64::from(SPAN.seconds()));
        self.0.retain(|second, _| *second <= now && now.saturating_sub(*second) < window);
    }

    fn sum(&self) -> u32 {
        self.0.values().fold(0, |sum, cost| sum.saturating_add(*cost))
    }
}

#[cfg(test)]
mod tests {
    use gatehouse_contract::Tier;

    use super::*;

    fn key(route: usize) -> Key {
        Key {
            tenant: "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap(),
            tier: Tier::Pro,
            limits: None,
            subject: None,
            route,
            cost: 1,
        }
    }

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    #[test]
    fn what_is_owed_is_told_once_and_again_where_nobody_answered() {
        let mut owed = Owed::default();
        assert!(owed.add(key(1), 2, NOW) && owed.add(key(1), 3, NOW) && owed.add(key(2), 1, NOW));
        let mut charges = owed.tell(NOW);
        charges.sort_by_key(|charge| charge.key.route);
        assert_eq!(charges.iter().map(|charge| charge.cost).collect::<Vec<_>>(), [5, 1]);
        assert_eq!(owed.tell(NOW), [], "told once");
        assert_eq!(owed.answered(charges[0].number, true), 5);
        assert_eq!(owed.answered(charges[0].number, true), 0, "answered once");
        assert_eq!(owed.answered(charges[1].number, false), 0);
        let again = owed.tell(NOW);
        assert_eq!((again.len(), again[0].cost, again[0].key.route), (1, 1, 2));
    }

    #[test]
    fn what_no_window_counts_any_more_is_not_told() {
        let mut owed = Owed::default();
        assert!(owed.add(key(1), 4, NOW) && owed.add(key(1), 1, NOW + Duration::from_secs(50)));
        assert_eq!(owed.tell(NOW + Duration::from_secs(62))[0].cost, 1);
        assert!(owed.add(key(1), 4, NOW));
        assert_eq!(owed.tell(NOW + Duration::from_secs(200)), []);
    }

    #[test]
    fn an_outage_of_many_minutes_is_charged_as_its_last_one() {
        let mut owed = Owed::default();
        let at = |second: u64| NOW + Duration::from_secs(second);
        for second in 0..600 {
            assert!(owed.add(key(1), 2, at(second)));
            for charge in owed.tell(at(second)) {
                // More passes while nobody answers.
                assert!(owed.add(key(1), 1, at(second)));
                assert_eq!(owed.answered(charge.number, false), 0);
            }
        }
        assert_eq!(owed.tell(at(600))[0].cost, 59 * 3);
    }

    #[test]
    fn keys_are_bounded() {
        let mut owed = Owed::default();
        for route in 0..MAX_KEYS {
            assert!(owed.add(key(route), 1, NOW));
        }
        assert!(!owed.add(key(MAX_KEYS), 1, NOW));
        assert!(owed.add(key(0), 1, NOW), "known");
        assert_eq!(owed.tell(NOW).len(), AT_ONCE);
    }
}
