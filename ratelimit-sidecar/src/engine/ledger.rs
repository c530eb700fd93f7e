//! What this sidecar charged lately, by tenant, limit and slot: declared to a store that lost its data. And what it let
//! pass while the store was away: charged when the store is back, so that no budget is had twice.
//! Times are the store's own. Knows no store; bounded, and what does not fit must not be charged.

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
    sync::Arc,
};

use gatehouse_contract::TenantId;
use gatehouse_ratelimit::{Algorithm, Declaration, Name, Rule, Run, Timestamp};
use hashbrown::{Equivalent, HashMap, HashSet};

/// There is no room for another window: a charge to it could not be declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ledger is full")]
pub struct Full;

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    windows: HashMap<Key, Held>,
    tenants: HashMap<TenantId, Account>,
    capacity: usize,
    owing: bool,
}

#[derive(Debug, Default)]
struct Account {
    /// The run to which everything here was charged or declared.
    run: Option<Run>,
    /// A declaration to this run is under way: a second one would add up.
    declaring: Option<Run>,
    windows: usize,
}

/// Names a window by its tenant and the end of its key; keeps its rule.
#[derive(Debug)]
struct Key {
    tenant: TenantId,
    rules: Arc<[Rule]>,
    index: usize,
}

#[derive(Hash)]
struct Named<'a> {
    tenant: TenantId,
    tail: &'a str,
}

#[derive(Debug, Default)]
struct Held {
    /// A charge may be under way since the last sweep.
    open: bool,
    charged: Charges,
    /// Let pass without the store, not yet charged there.
    owed: Charges,
}

/// Amounts by slot, oldest first: a slot in the upper 40 bits, its amount in the lower 24, as in the store's record.
#[derive(Debug, Default)]
struct Charges(VecDeque<u64>);

/// What a window is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debt {
    pub tenant: TenantId,
    pub rule: Rule,
    pub amount: u32,
    pub run: Option<Run>,
}

const DAY_MS: u64 = 86_400_000;
const AMOUNT_BITS: u32 = 24;
const MOST: u64 = (1 << AMOUNT_BITS) - 1;

// === impl Key ===

impl Key {
    fn rule(&self) -> Option<&Rule> {
        self.rules.get(self.index)
    }

    fn tail(&self) -> &str {
        self.rule().map_or("", Rule::key_tail)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Named { tenant: self.tenant, tail: self.tail() }.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.tenant == other.tenant && self.tail() == other.tail()
    }
}

impl Eq for Key {}

impl Equivalent<Key> for Named<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.tenant == key.tenant && self.tail == key.tail()
    }
}

// === impl Charges ===

impl Charges {
    fn add(&mut self, slot: u64, amount: u32) {
        if amount == 0 {
            return;
        }
        // Newest last; a lease is booked a slot or two ahead of what comes after it.
        let at = self.0.iter().rposition(|entry| entry >> AMOUNT_BITS <= slot);
        if let Some(entry) = at.and_then(|at| self.0.get_mut(at))
            && *entry >> AMOUNT_BITS == slot
        {
            *entry = pack(slot, (*entry & MOST) + u64::from(amount));
        } else {
            self.0.insert(at.map_or(0, |at| at + 1), pack(slot, u64::from(amount)));
        }
    }

    /// Takes back at most what is there.
    fn take_back(&mut self, slot: u64, amount: u32) {
        let entry = self.0.iter_mut().rev().find(|entry| **entry >> AMOUNT_BITS == slot);
        if let Some(entry) = entry {
            *entry = pack(slot, (*entry & MOST).saturating_sub(u64::from(amount)));
        }
    }

    fn forget_before(&mut self, slot: u64) {
        while self.0.front().is_some_and(|entry| entry >> AMOUNT_BITS < slot || entry & MOST == 0) {
            self.0.pop_front();
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u64, u32)> {
        self.0
            .iter()
            .map(|entry| (entry >> AMOUNT_BITS, u32::try_from(entry & MOST).unwrap_or(u32::MAX)))
    }

    fn sum(&self) -> u32 {
        self.iter().fold(0, |sum, (_, amount)| sum.saturating_add(amount))
    }
}

fn pack(slot: u64, amount: u64) -> u64 {
    slot << AMOUNT_BITS | amount.min(MOST)
}

// === impl Ledger ===

/// The burst guard's second is over before a store that began anew answers again: nothing is kept for it.
fn is_kept(rule: &Rule) -> bool {
    rule.name != Name::Burst
}

/// A calendar day is one slot.
fn slot_ms(rule: &Rule) -> u64 {
    match rule.algorithm() {
        Algorithm::Day => DAY_MS,
        _ => rule.span.slot_ms().max(1),
    }
}

fn slot(rule: &Rule, at: Timestamp) -> u64 {
    at.as_ms() / slot_ms(rule)
}

/// The oldest slot that still counts at `now`.
fn oldest(rule: &Rule, now: Timestamp) -> u64 {
    let life_ms = match rule.algorithm() {
        Algorithm::Day => 0,
        _ => u64::try_from(rule.span.lifetime().as_millis()).unwrap_or(u64::MAX),
    };
    now.as_ms().saturating_sub(life_ms) / slot_ms(rule)
}

impl Ledger {
    /// Of at most `capacity` windows.
    pub fn new(capacity: usize) -> Self {
        Self { windows: HashMap::new(), tenants: HashMap::new(), capacity, owing: false }
    }

    /// Makes room for charges to `rules`.
    ///
    /// # Errors
    /// [`Full`].
    pub fn open(&mut self, tenant: TenantId, rules: &Arc<[Rule]>) -> Result<(), Full> {
        for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| is_kept(rule)) {
            if let Some(held) = self.windows.get_mut(&Named { tenant, tail: rule.key_tail() }) {
                held.open = true;
                continue;
            }
            if self.windows.len() >= self.capacity {
                return Err(Full);
            }
            let key = Key { tenant, rules: Arc::clone(rules), index };
            self.windows.insert(key, Held { open: true, ..Held::default() });
            self.tenants.entry(tenant).or_default().windows += 1;
        }
        Ok(())
    }

    /// The run that the tenant's charges are in.
    pub fn run(&self, tenant: TenantId) -> Option<Run> {
        self.tenants.get(&tenant)?.run
    }

    /// Everything of the tenant's is charged or declared to `run`.
    pub fn is_in(&mut self, tenant: TenantId, run: Run) {
        if let Some(account) = self.tenants.get_mut(&tenant) {
            account.run = Some(run);
        }
    }

    /// Notes a charge of `amount` to each of `rules`, booked at `at`.
    pub fn charged(&mut self, tenant: TenantId, rules: &[Rule], at: Timestamp, amount: u32) {
        self.each(tenant, rules, |held, rule| {
            held.charged.forget_before(oldest(rule, at));
            held.charged.add(slot(rule, at), amount);
        });
    }

    /// Notes that it was handed back.
    pub fn credited(&mut self, tenant: TenantId, rules: &[Rule], at: Timestamp, amount: u32) {
        self.each(tenant, rules, |held, rule| held.charged.take_back(slot(rule, at), amount));
    }

    /// Notes what was let pass without the store.
    pub fn owe(&mut self, tenant: TenantId, rules: &[Rule], at: Timestamp, amount: u32) {
        self.owing = true;
        self.each(tenant, rules, |held, rule| {
            held.owed.forget_before(oldest(rule, at));
            held.owed.add(slot(rule, at), amount);
        });
    }

    /// Whether anything may be owed.
    pub fn is_owing(&self) -> bool {
        self.owing
    }

    /// Takes out up to `most` debts; those that nothing came of are [`Self::unpaid`].
    pub fn debts(&mut self, now: Timestamp, most: usize) -> Vec<Debt> {
        let mut debts = Vec::new();
        self.owing = false;
        for (key, held) in &mut self.windows {
            let Some(rule) = key.rule() else { continue };
            if held.owed.0.is_empty() {
                continue;
            }
            if debts.len() >= most {
                self.owing = true;
                break;
            }
            held.owed.forget_before(oldest(rule, now));
            let amount = held.owed.sum();
            held.owed.0.clear();
            if amount > 0 {
                let run = self.tenants.get(&key.tenant).and_then(|account| account.run);
                debts.push(Debt { tenant: key.tenant, rule: rule.clone(), amount, run });
            }
        }
        debts
    }

    /// It was charged at `at`.
    pub fn paid(&mut self, debt: &Debt, at: Timestamp, run: Run) {
        self.is_in(debt.tenant, run);
        self.charged(debt.tenant, std::slice::from_ref(&debt.rule), at, debt.amount);
    }

    /// Nothing came of a payment: it is owed again. Whether it was charged may be unknown; charging it twice costs
    /// passes, not charging it would grant some twice.
    pub fn unpaid(&mut self, debt: &Debt, now: Timestamp) {
        self.owe(debt.tenant, std::slice::from_ref(&debt.rule), now, debt.amount);
    }

    /// Everything of the tenants that are not in one of `runs`, for a store of which `run` is new. Each of them must
    /// be [`Self::declared`].
    pub fn declarations(&mut self, runs: &[Run], run: Run, now: Timestamp) -> Vec<Declaration> {
        let lost = |account: &Account| {
            let known = account.run.is_some_and(|known| !runs.contains(&known));
            known && account.declaring != Some(run)
        };
        let tenants = self.tenants.iter().filter(|(_, account)| lost(account));
        let tenants: HashSet<_> = tenants.map(|(tenant, _)| *tenant).collect();
        self.declare(run, now, &tenants)
    }

    /// As [`Self::declarations`], for one tenant; `None` when somebody else is at it.
    pub fn declarations_of(
        &mut self,
        tenant: TenantId,
        run: Run,
        now: Timestamp,
    ) -> Option<Vec<Declaration>> {
        let account = self.tenants.get(&tenant)?;
        if account.run == Some(run) {
            return Some(Vec::new());
        }
        if account.declaring == Some(run) {
            return None;
        }
        let declared = self.declare(run, now, &HashSet::from([tenant]));
        if declared.is_empty() {
            self.is_in(tenant, run);
        }
        Some(declared)
    }

    /// Whether the store took all that was declared of a tenant to `run`.
    pub fn declared(&mut self, tenant: TenantId, run: Run, done: bool) {
        if let Some(account) = self.tenants.get_mut(&tenant)
            && account.declaring == Some(run)
        {
            account.declaring = None;
            account.run = if done { Some(run) } else { account.run };
        }
    }

    fn declare(
        &mut self,
        run: Run,
        now: Timestamp,
        tenants: &HashSet<TenantId>,
    ) -> Vec<Declaration> {
        let mut declared = Vec::new();
        for (key, held) in &mut self.windows {
            let Some(rule) = key.rule().filter(|_| tenants.contains(&key.tenant)) else { continue };
            let Some(account) = self.tenants.get_mut(&key.tenant) else { continue };
            // What is owed goes with the rest: from here on it is charged.
            for (slot, amount) in std::mem::take(&mut held.owed).iter() {
                held.charged.add(slot, amount);
            }
            held.charged.forget_before(oldest(rule, now));
            let slot_ms = slot_ms(rule);
            let charges: Vec<_> = held
                .charged
                .iter()
                .filter(|(_, amount)| *amount > 0)
                .map(|(slot, amount)| (Timestamp::from_ms(slot.saturating_mul(slot_ms)), amount))
                .collect();
            if !charges.is_empty() {
                account.declaring = Some(run);
                let (tenant, rule) = (key.tenant, rule.clone());
                declared.push(Declaration { tenant, rule, charges, run });
            }
        }
        declared
    }

    /// Forgets windows that hold nothing any more, and for which no take is under way: one that was opened stays for
    /// a whole pause between two sweeps, which is longer than any call.
    pub fn sweep(&mut self, now: Timestamp) {
        let tenants = &mut self.tenants;
        self.windows.retain(|key, held| {
            if let Some(rule) = key.rule() {
                held.charged.forget_before(oldest(rule, now));
                held.owed.forget_before(oldest(rule, now));
            }
            let opened = std::mem::take(&mut held.open);
            let live = opened || !held.charged.0.is_empty() || !held.owed.0.is_empty();
            if !live && let Some(account) = tenants.get_mut(&key.tenant) {
                account.windows = account.windows.saturating_sub(1);
                if account.windows == 0 {
                    tenants.remove(&key.tenant);
                }
            }
            live
        });
    }

    /// How many windows are kept.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    fn each(&mut self, tenant: TenantId, rules: &[Rule], mut note: impl FnMut(&mut Held, &Rule)) {
        for rule in rules.iter().filter(|rule| is_kept(rule)) {
            if let Some(held) = self.windows.get_mut(&Named { tenant, tail: rule.key_tail() }) {
                note(held, rule);
            }
        }
    }
}

#[cfg(test)]
mod tests;
