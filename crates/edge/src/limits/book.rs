//! The passes that this VM took along (design §3.4, leases): charged at the sidecar already, so that a request that
//! finds one is decided without a question. A pass is used until its deadline and never after it, by a monotonic
//! clock that runs from the *sending* of the question; what is left then is handed back, once.
//! Bounded; knows neither requests nor the sidecar.

use std::{hash::Hash, rc::Rc, time::Duration};

use gatehouse_contract::{
    TenantId, Tier,
    sidecar::{Lease, LeaseReturn, Overrides},
};
use hashbrown::{Equivalent, HashMap};

use super::Shown;

/// How many keys one half of the book holds.
const KEYS_PER_HALF: usize = 1024;
/// How many leases one key holds.
const LEASES_PER_KEY: usize = 2;
/// The most passes that are asked for at once; the sidecar gives no more, and less where limits are small.
const MAX_WANT: u32 = 512;
/// The next passes are asked for when no more than this part of what was wanted is left.
const LOW: u32 = 2;
/// Whoever asks again so soon may have use for passes.
const HOT: Duration = Duration::from_millis(100);
/// So long after a question that brought no passes the next one wants some.
const AGAIN: Duration = Duration::from_millis(5);
/// A key that nobody asked for in this time is forgotten.
const IDLE: Duration = Duration::from_secs(10);
/// The longest time that a lease is used, whatever the sidecar says.
const MAX_TTL: Duration = Duration::from_millis(1000);
/// The most leases that wait to be handed back; beyond it they just end at the sidecar.
const MAX_RETURNS: usize = 4096;
/// The most that are handed back with one question.
const RETURNS_AT_ONCE: usize = 64;

/// Whose passes these are: requests that are equal in all of it are charged to the same windows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) tenant: TenantId,
    pub(crate) tier: Tier,
    pub(crate) limits: Option<Overrides>,
    pub(crate) subject: Option<String>,
    /// By place in the role matrix.
    pub(crate) route: usize,
    pub(crate) cost: u32,
}

/// A [`Key`] as a request has it. Hashes alike: the fields are the same, in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Asker<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) tier: Tier,
    pub(crate) limits: Option<&'a Overrides>,
    pub(crate) subject: Option<&'a str>,
    pub(crate) route: usize,
    pub(crate) cost: u32,
}

/// The standing of the limits when passes were taken along.
#[derive(Debug, Clone)]
pub(crate) struct Granted {
    pub(crate) shown: Rc<Shown>,
    /// What was left of the tightest limit beyond what was taken along.
    pub(crate) remaining: u32,
    pub(crate) reset_s: u32,
    /// Whether the sidecar decided without the shared store.
    pub(crate) degraded: bool,
}

/// What a pass says to its client.
#[derive(Debug, Clone)]
pub(crate) struct Pass {
    pub(crate) shown: Rc<Shown>,
    /// A lower bound: what was left beyond the lease, and what is left of it.
    pub(crate) remaining: u32,
    pub(crate) reset_s: u32,
    pub(crate) degraded: bool,
}

/// The passes of one VM, in two halves: what is used moves to the young one, and when that is full the old one is
/// handed back whole.
#[derive(Debug, Default)]
pub(crate) struct Book {
    young: HashMap<Key, Entry>,
    old: HashMap<Key, Entry>,
    returns: Vec<LeaseReturn>,
    /// Passes that ended unused, since the last tick.
    expired: u64,
}

#[derive(Debug, Default)]
struct Entry {
    held: Vec<Held>,
    /// How many passes to ask for.
    want: u32,
    /// When the key was last asked for.
    asked_at: Option<Duration>,
    /// Until when a question that wants passes is on its way.
    wanting_until: Option<Duration>,
}

#[derive(Debug)]
struct Held {
    lease: u64,
    left: u32,
    asked_at: Duration,
    ttl: Duration,
    granted: Granted,
}

// === impl Asker ===

impl Equivalent<Key> for Asker<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.tenant == key.tenant
            && self.tier == key.tier
            && self.limits == key.limits.as_ref()
            && self.subject == key.subject.as_deref()
            && self.route == key.route
            && self.cost == key.cost
    }
}

impl Asker<'_> {
    pub(crate) fn key(&self) -> Key {
        Key {
            tenant: self.tenant,
            tier: self.tier,
            limits: self.limits.cloned(),
            subject: self.subject.map(str::to_owned),
            route: self.route,
            cost: self.cost,
        }
    }
}

// === impl Held ===

impl Held {
    /// Whether a pass may still be used: strictly before the deadline.
    fn is_alive(&self, now: Duration) -> bool {
        now.checked_sub(self.asked_at).is_some_and(|age| age < self.ttl)
    }
}

// === impl Book ===

impl Book {
    /// Uses a pass, if there is one. `now` is the monotonic time.
    pub(crate) fn pass(&mut self, asker: &Asker<'_>, now: Duration) -> Option<Pass> {
        if self.young.is_empty() && self.old.is_empty() {
            return None;
        }
        if !self.young.contains_key(asker) {
            let (key, entry) = self.old.remove_entry(asker)?;
            self.put(key, entry);
        }
        let entry = self.young.get_mut(asker)?;
        let (returns, expired) = (&mut self.returns, &mut self.expired);
        entry.end(now, returns, expired);
        let held = entry.held.first_mut()?;
        held.left = held.left.saturating_sub(1);
        let unspent = held.left.saturating_mul(asker.cost);
        let remaining = held.granted.remaining.saturating_add(unspent);
        let pass = Pass {
            shown: Rc::clone(&held.granted.shown),
            remaining,
            reset_s: if remaining > 0 { 0 } else { held.granted.reset_s },
            degraded: held.granted.degraded,
        };
        if held.left == 0 {
            // Used up in less than half of its time: more were of use.
            if now.saturating_sub(held.asked_at) < held.ttl / 2 {
                entry.want = entry.want.saturating_mul(2).clamp(1, MAX_WANT);
            }
            entry.held.remove(0);
        }
        Some(pass)
    }

    /// Whether a request should ask though there are passes: few are left, and nobody brings more yet. So one request
    /// waits while the others go on, instead of all.
    pub(crate) fn runs_low(&self, asker: &Asker<'_>, now: Duration) -> bool {
        let Some(entry) = self.young.get(asker) else { return false };
        let [held] = entry.held.as_slice() else { return false };
        held.left <= entry.want / LOW && held.is_alive(now) && !entry.is_asking(now)
    }

    /// How many passes to ask for along with a request. `now` is the monotonic time of the sending, `patience` how
    /// long an answer may take: one question at a time wants passes.
    pub(crate) fn want(&mut self, asker: &Asker<'_>, now: Duration, patience: Duration) -> u32 {
        if !self.young.contains_key(asker) {
            match self.old.remove_entry(asker) {
                Some((key, entry)) => self.put(key, entry),
                None => self.put(asker.key(), Entry::default()),
            }
        }
        let Some(entry) = self.young.get_mut(asker) else { return 0 };
        let before = entry.asked_at.replace(now);
        let hot = before.is_some_and(|before| now.saturating_sub(before) < HOT);
        if hot && entry.want == 0 {
            entry.want = 1;
        }
        if entry.want == 0 || entry.is_asking(now) {
            return 0;
        }
        entry.wanting_until = Some(now.saturating_add(patience));
        entry.want
    }

    /// A question that wanted passes has ended, and this is what it brought. `asked_at` is when it was sent.
    pub(crate) fn answered(
        &mut self,
        asker: &Asker<'_>,
        asked_at: Duration,
        granted: Option<(Lease, Granted)>,
    ) {
        let entry = match self.young.get_mut(asker) {
            Some(entry) => Some(entry),
            None => self.old.get_mut(asker),
        };
        let returned = match (entry, granted) {
            (entry, Some((Lease { id, passes, ttl_ms }, granted))) if passes > 0 => {
                let ttl = Duration::from_millis(u64::from(ttl_ms)).min(MAX_TTL);
                match entry {
                    Some(entry) if entry.held.len() < LEASES_PER_KEY => {
                        entry.wanting_until = None;
                        entry.held.push(Held { lease: id, left: passes, asked_at, ttl, granted });
                        None
                    }
                    Some(_) | None => Some(LeaseReturn { lease: id, unused: passes }),
                }
            }
            // None were to be had: for a moment nobody wants any.
            (Some(entry), _) => {
                entry.wanting_until = Some(asked_at.saturating_add(AGAIN));
                None
            }
            (None, _) => None,
        };
        if let Some(returned) = returned {
            hand_back(&mut self.returns, returned);
        }
    }

    /// The sidecar has told anew what is left beyond the passes that are held, to a request that did not use them: they
    /// say no more than that (acceptance R9).
    pub(crate) fn heard(&mut self, asker: &Asker<'_>, remaining: u32) {
        if let Some(entry) = self.young.get_mut(asker) {
            for held in &mut entry.held {
                held.granted.remaining = held.granted.remaining.min(remaining);
            }
        }
    }

    /// What this tenant's requests took along is handed back: its facts changed.
    pub(crate) fn drop_tenant(&mut self, tenant: TenantId) {
        let returns = &mut self.returns;
        for half in [&mut self.young, &mut self.old] {
            half.retain(|key, entry| {
                if key.tenant == tenant {
                    entry.hand_back(returns);
                }
                key.tenant != tenant
            });
        }
    }

    /// Everything is handed back: what is known may be old.
    pub(crate) fn drop_all(&mut self) {
        for half in [&mut self.young, &mut self.old] {
            for (_key, mut entry) in half.drain() {
                entry.hand_back(&mut self.returns);
            }
        }
    }

    /// Ends what is over. `now` is the monotonic time. Answers how many passes ended unused since the last time.
    pub(crate) fn sweep(&mut self, now: Duration) -> u64 {
        let (returns, expired) = (&mut self.returns, &mut self.expired);
        for half in [&mut self.young, &mut self.old] {
            half.retain(|_key, entry| {
                entry.end(now, returns, expired);
                let idle = entry.asked_at.is_none_or(|at| now.saturating_sub(at) >= IDLE);
                !entry.held.is_empty() || !idle
            });
        }
        std::mem::take(expired)
    }

    /// What is to be handed back with the next question: whoever takes it sends it, once.
    pub(crate) fn take_returns(&mut self) -> Vec<LeaseReturn> {
        let keep = self.returns.len().saturating_sub(RETURNS_AT_ONCE);
        self.returns.split_off(keep)
    }

    fn put(&mut self, key: Key, entry: Entry) {
        if self.young.len() >= KEYS_PER_HALF {
            for (_key, mut entry) in std::mem::take(&mut self.old) {
                entry.hand_back(&mut self.returns);
            }
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, entry);
    }
}

// === impl Entry ===

impl Entry {
    /// Whether a question that wants passes is on its way.
    fn is_asking(&self, now: Duration) -> bool {
        self.wanting_until.is_some_and(|until| now < until)
    }

    /// Hands back what is over.
    fn end(&mut self, now: Duration, returns: &mut Vec<LeaseReturn>, expired: &mut u64) {
        while let Some(held) = self.held.first() {
            if held.is_alive(now) {
                break;
            }
            let Held { lease, left: unused, .. } = self.held.remove(0);
            // The greater part was not used in time: fewer would have done.
            if unused > self.want / 2 {
                self.want /= 2;
            }
            *expired = expired.saturating_add(u64::from(unused));
            hand_back(returns, LeaseReturn { lease, unused });
        }
    }

    fn hand_back(&mut self, returns: &mut Vec<LeaseReturn>) {
        for Held { lease, left: unused, .. } in self.held.drain(..) {
            hand_back(returns, LeaseReturn { lease, unused });
        }
    }
}

fn hand_back(returns: &mut Vec<LeaseReturn>, returned: LeaseReturn) {
    if returned.unused > 0 && returns.len() < MAX_RETURNS {
        returns.push(returned);
    }
}

#[cfg(test)]
mod tests;
