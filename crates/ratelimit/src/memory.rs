//! The memory store: windows by key, for one process alone.
//! Bounded: where no room is left, nothing is decided. Knows no clock and no lock; its owner has both.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use gatehouse_contract::TenantId;

use crate::{
    decision::{self, Decision},
    keys,
    policy::Rule,
    window::{Timestamp, Window},
};

/// All places are taken by windows that still count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the memory store is full")]
pub struct Full;

/// Windows by key.
#[derive(Debug)]
pub struct Memory {
    entries: HashMap<Arc<str>, Entry>,
    /// Keys in the order in which they were made or last found alive: the front is looked at for removal.
    queue: VecDeque<Arc<str>>,
    capacity: usize,
}

#[derive(Debug)]
struct Entry {
    window: Window,
    dead_at: Timestamp,
}

/// Keys looked at for removal per decision: twice what a decision can add, so that the dead cannot pile up.
const SWEEP: usize = 8;

impl Memory {
    /// A store of at most `capacity` keys (about 400 bytes each).
    pub fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), queue: VecDeque::new(), capacity }
    }

    /// Weighs and charges as [`decision::decide`] does.
    ///
    /// # Errors
    /// [`Full`] when a window is needed and there is no room for it; nothing is charged.
    pub fn decide(
        &mut self,
        tenant: TenantId,
        rules: &[Rule],
        cost: u32,
        now: Timestamp,
    ) -> Result<Decision, Full> {
        self.sweep(now);
        let mut windows: Vec<(String, Window)> = Vec::with_capacity(rules.len());
        for rule in rules {
            let mut key = String::with_capacity(128);
            keys::write(&mut key, tenant, rule.key_tail());
            let known = self.entries.get(key.as_str()).map(|entry| entry.window.clone());
            windows.push((key, known.unwrap_or_default()));
        }
        let new = windows.iter().filter(|(key, _)| !self.entries.contains_key(key.as_str()));
        if self.entries.len() + new.count() > self.capacity {
            return Err(Full);
        }
        let mut borrowed: Vec<&mut Window> = windows.iter_mut().map(|(_, window)| window).collect();
        let decision = decision::decide(rules, &mut borrowed, cost, now);
        if decision.allowed && cost > 0 {
            for (rule, (key, window)) in rules.iter().zip(windows) {
                let life_ms = u64::try_from(rule.span.lifetime().as_millis()).unwrap_or(u64::MAX);
                let dead_at = Timestamp::from_ms(now.as_ms().saturating_add(life_ms));
                self.keep(key, Entry { window, dead_at });
            }
        }
        Ok(decision)
    }

    /// How many keys are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no key is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Drops up to `SWEEP` keys whose windows no longer count. Run it from time to time when nothing is decided.
    pub fn sweep(&mut self, now: Timestamp) {
        for _ in 0..SWEEP {
            let Some(key) = self.queue.pop_front() else { return };
            if self.entries.get(&key).is_some_and(|entry| entry.dead_at > now) {
                self.queue.push_back(key);
            } else {
                self.entries.remove(&key);
            }
        }
    }

    fn keep(&mut self, key: String, entry: Entry) {
        if let Some(known) = self.entries.get_mut(key.as_str()) {
            *known = entry;
            return;
        }
        let key: Arc<str> = key.into();
        self.queue.push_back(Arc::clone(&key));
        self.entries.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{policy::Name, window::Span};
    use gatehouse_contract::TenantId;

    fn rules() -> [Rule; 2] {
        let span = Span::from_secs(60);
        [Rule::new(Name::Tenant, 2, span, keys::ANY), Rule::new(Name::Endpoint, 9, span, "GET/a")]
    }

    fn tenant(last: u8) -> TenantId {
        format!("0191d6b0-7c3e-7aaa-8bbb-0123456789{last:02x}").parse().unwrap()
    }

    fn check(memory: &mut Memory, who: u8, at_s: u64, expected: Result<bool, Full>) {
        let now = Timestamp::from_ms(1_000_000_000 + at_s * 1000);
        let got = memory.decide(tenant(who), &rules(), 1, now).map(|decision| decision.allowed);
        assert_eq!(got, expected, "tenant {who} at {at_s} s");
    }

    #[test]
    fn tenants_do_not_share_windows() {
        let mut memory = Memory::new(100);
        for (who, expected) in [(1, true), (1, true), (1, false), (2, true)] {
            check(&mut memory, who, 0, Ok(expected));
        }
    }

    #[test]
    fn a_full_store_decides_nothing_for_newcomers_until_windows_have_died() {
        let mut memory = Memory::new(4);
        check(&mut memory, 1, 0, Ok(true));
        check(&mut memory, 2, 0, Ok(true));
        check(&mut memory, 3, 0, Err(Full));
        check(&mut memory, 1, 1, Ok(true));
        check(&mut memory, 3, 61, Err(Full));
        check(&mut memory, 3, 63, Ok(true));
        assert_eq!(memory.len(), 2);
    }

    #[test]
    fn nothing_is_left_when_all_windows_have_died() {
        let mut memory = Memory::new(100);
        for who in 0..20 {
            check(&mut memory, who, 0, Ok(true));
        }
        assert_eq!(memory.len(), 40);
        for _ in 0..5 {
            memory.sweep(Timestamp::from_ms(1_000_000_000 + 62_000));
        }
        assert!(memory.is_empty());
    }

    #[test]
    fn a_denial_or_a_peek_makes_no_key() {
        let mut memory = Memory::new(100);
        let now = Timestamp::from_ms(1_000_000_000);
        let blocked = [Rule::new(Name::Tenant, 0, Span::from_secs(60), keys::ANY)];
        assert!(!memory.decide(tenant(1), &blocked, 1, now).unwrap().allowed);
        assert!(memory.decide(tenant(1), &rules(), 0, now).unwrap().allowed);
        assert!(memory.is_empty());
    }
}
