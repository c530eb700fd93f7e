//! What passed and is not charged yet: internal callers, costs that are known only after the response, and what this VM
//! let pass while the sidecar was away. Told to the sidecar in batches; what is older than the longest minute-window is
//! not told, as it no longer counts in one.
//! Knows neither the sidecar nor whether it answers.

use std::time::Duration;

use gatehouse_ratelimit::Window;
use hashbrown::HashMap;

use super::Key;
use crate::local::{SPAN, timestamp};

/// The most keys: about 400 KiB.
const MAX_KEYS: usize = 1024;
/// The most that is told at once.
const AT_ONCE: usize = 64;

/// What passed and is not charged yet, by whose it is.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    by_key: HashMap<Key, Window>,
    /// What was told and not answered yet.
    told: HashMap<u64, (Key, u32)>,
    number: u64,
}

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
        let window = self.by_key.entry(key).or_default();
        window.advance(SPAN, timestamp(now));
        window.charge(cost);
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
            let Some(mut window) = self.by_key.remove(&key) else { continue };
            window.advance(SPAN, timestamp(now));
            let cost = window.used();
            if cost > 0 {
                self.number = self.number.wrapping_add(1);
                let number = self.number;
                self.told.insert(number, (key.clone(), cost));
                charges.push(Charge { number, key, cost });
            }
        }
        charges
    }

    /// A charge was answered: how much it was. Where nobody did it is told again, at the risk of charging twice:
    /// never may more pass than the limit because a charge was lost.
    pub(crate) fn answered(&mut self, number: u64, charged: bool, now: Duration) -> u32 {
        let Some((key, cost)) = self.told.remove(&number) else { return 0 };
        if charged {
            return cost;
        }
        self.add(key, cost, now);
        0
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
        assert_eq!(owed.answered(charges[0].number, true, NOW), 5);
        assert_eq!(owed.answered(charges[0].number, true, NOW), 0, "answered once");
        assert_eq!(owed.answered(charges[1].number, false, NOW), 0);
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
