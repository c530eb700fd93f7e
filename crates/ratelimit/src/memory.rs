//! The memory store: windows by key, for one process alone.
//! Bounded: where no room is left, nothing is decided. Knows no clock and no lock; its owner has both.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use gatehouse_contract::TenantId;

use crate::{
    keys, model,
    policy::{Algorithm, Rule},
    state::{Declared, State},
    take::{Declaration, Refused, Return, Run, Take, Taken},
    window::Timestamp,
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
    state: State,
    declared: Declared,
    dead_at: Timestamp,
}

/// The one life of this store's data: it ends with the process.
pub const RUN: Run = Run(1);

/// Keys looked at for removal per decision: twice what a decision can add, so that the dead cannot pile up.
const SWEEP: usize = 10;

impl Memory {
    /// A store of at most `capacity` keys (about 400 bytes each in sub-buckets).
    pub fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), queue: VecDeque::new(), capacity }
    }

    /// Weighs and charges as [`model::take`] does. `now` never goes back.
    ///
    /// # Errors
    /// [`Full`] when a window is needed and there is no room for it; nothing is charged. Inside, [`Refused`] when
    /// the asker knows another store's run.
    pub fn take(&mut self, take: &Take, now: Timestamp) -> Result<Result<Taken, Refused>, Full> {
        if take.run.is_some_and(|run| run != RUN) {
            return Ok(Err(Refused::Anew(RUN)));
        }
        self.sweep(now);
        let keys: Vec<String> = take.rules.iter().map(|rule| key(take.tenant, rule)).collect();
        let new = keys.iter().filter(|key| !self.entries.contains_key(key.as_str()));
        if self.entries.len() + new.count() > self.capacity {
            return Err(Full);
        }
        let mut states = self.borrow(&keys, &take.rules, now);
        let granted = model::take(take, &mut states.iter_mut().collect::<Vec<_>>(), now);
        let charged = granted.waiting > 0 && take.cost > 0;
        self.put_back(keys, &take.rules, states, charged.then_some(now));
        let model::Granted { waiting, ahead, decision } = granted;
        Ok(Ok(Taken { waiting, ahead, decision, at: now, run: RUN }))
    }

    /// Credits as [`model::give_back`] does.
    pub fn give_back(&mut self, give: &Return, now: Timestamp) {
        if give.run != RUN {
            return;
        }
        let keys: Vec<String> = give.rules.iter().map(|rule| key(give.tenant, rule)).collect();
        let mut states = self.borrow(&keys, &give.rules, now);
        model::give_back(give, &mut states.iter_mut().collect::<Vec<_>>(), now);
        self.put_back(keys, &give.rules, states, None);
    }

    /// Raises a window as [`model::declare`] does; says whether it was declared to this store's run.
    ///
    /// # Errors
    /// [`Full`].
    pub fn declare(&mut self, declaration: &Declaration, now: Timestamp) -> Result<bool, Full> {
        if declaration.run != RUN {
            return Ok(false);
        }
        let rule = &declaration.rule;
        let key = key(declaration.tenant, rule);
        if !self.entries.contains_key(key.as_str()) && self.entries.len() >= self.capacity {
            return Err(Full);
        }
        let known = self.entries.get_mut(key.as_str());
        let mut declared = known.map(|entry| std::mem::take(&mut entry.declared));
        let sums = declared.get_or_insert_default();
        let keys = vec![key];
        let mut states = self.borrow(&keys, std::slice::from_ref(rule), now);
        if let Some(state) = states.first_mut() {
            model::declare(declaration, state, sums, now);
        }
        let first = keys.first().cloned().unwrap_or_default();
        self.put_back(keys, std::slice::from_ref(rule), states, Some(now));
        if let Some(entry) = self.entries.get_mut(first.as_str()) {
            entry.declared = declared.unwrap_or_default();
        }
        Ok(true)
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

    /// The windows of `keys`, out of their entries until [`Self::put_back`]: a log is not copied for a decision.
    fn borrow(&mut self, keys: &[String], rules: &[Rule], now: Timestamp) -> Vec<State> {
        let states = keys.iter().zip(rules).map(|(key, rule)| {
            let known = self.entries.get_mut(key.as_str()).filter(|entry| entry.dead_at > now);
            let fresh = State::new(rule.algorithm());
            match known {
                Some(entry) => std::mem::replace(&mut entry.state, State::new(Algorithm::Day)),
                None => fresh,
            }
        });
        states.collect()
    }

    /// Puts windows back; where something was charged, they live on from then, and new ones are kept.
    fn put_back(
        &mut self,
        keys: Vec<String>,
        rules: &[Rule],
        states: Vec<State>,
        charged: Option<Timestamp>,
    ) {
        for ((key, rule), state) in keys.into_iter().zip(rules).zip(states) {
            let dead_at = charged.map(|now| now.plus(state.lifetime(rule, now)));
            match (self.entries.get_mut(key.as_str()), dead_at) {
                (Some(known), dead_at) => {
                    known.state = state;
                    known.dead_at = dead_at.unwrap_or(known.dead_at);
                }
                (None, Some(dead_at)) => {
                    let key: Arc<str> = key.into();
                    self.queue.push_back(Arc::clone(&key));
                    let entry = Entry { state, declared: Declared::default(), dead_at };
                    self.entries.insert(key, entry);
                }
                (None, None) => {}
            }
        }
    }
}

fn key(tenant: TenantId, rule: &Rule) -> String {
    let mut key = String::with_capacity(128);
    keys::write(&mut key, tenant, rule.key_tail());
    key
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

    fn ask(
        memory: &mut Memory,
        who: u8,
        rules: &[Rule],
        cost: u32,
        now: Timestamp,
    ) -> Result<bool, Full> {
        let take = Take::one(tenant(who), rules.into(), cost);
        memory.take(&take, now).map(|taken| taken.unwrap().decision.allowed)
    }

    fn check(memory: &mut Memory, who: u8, at_s: u64, expected: Result<bool, Full>) {
        let now = Timestamp::from_ms(1_000_000_000 + at_s * 1000);
        let got = ask(memory, who, &rules(), 1, now);
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
        check(&mut memory, 3, 63, Err(Full));
        check(&mut memory, 3, 65, Ok(true));
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
            memory.sweep(Timestamp::from_ms(1_000_000_000 + 64_000));
        }
        assert!(memory.is_empty());
    }

    #[test]
    fn a_denial_or_a_peek_makes_no_key() {
        let mut memory = Memory::new(100);
        let now = Timestamp::from_ms(1_000_000_000);
        let blocked = [Rule::new(Name::Tenant, 0, Span::from_secs(60), keys::ANY)];
        assert!(!ask(&mut memory, 1, &blocked, 1, now).unwrap());
        assert!(ask(&mut memory, 1, &rules(), 0, now).unwrap());
        assert!(memory.is_empty());
    }
}
