//! What one shard of the engine decides, as a state machine without IO: it is told asks and answers with their times
//! and says what to send. The simulation of `engine/simulation.rs` runs several of these against a model of the store.
//!
//! **No window holds more uses than its limit, leases included.** A take is sent at `s`, and charged by the store at
//! `g ≥ s`. Who waits for it uses the pass at `g`: asked before, answered after. What goes ahead is booked `hold`
//! after `g`, counts from `g` on, and leaves a window after `g + hold`. It is used at `u` with `g ≤ u < s + hold ≤
//! g + hold`, since `until = s + hold` is counted from the sending, by the monotonic clock of the machine that sent it.
//! Take any window that ends at the last of its uses, and of the passes that it uses the one that was granted last, at
//! `G`: every other one was granted before and is counted at `G`, since it leaves only a window after `g + hold ≥ u`.
//! So the store counted all of them at `G`, and it grants no more than the limit.
//!
//! **Leases of VMs** are parts of ours. A VM counts the time of its lease from the sending of its own ask, which is
//! before we received it; we book the lease's end from our receipt, `r + ttl`, and keep that [`MARGIN`] before our
//! own `until`. A pass of a VM's lease is thus used before `until`, by any clock that runs less than a fifth wrong.
//! What a VM hands back, it does not use any more: it goes into our lease while that lives, and else to the store.
//!
//! **What is lost is lost**: an answer that is late, a return that nobody took, a VM that vanished. Their passes stay
//! charged until their slot leaves. Nothing that was charged is ever charged again, and nothing is returned twice: a
//! VM's lease leaves the book with its return, ours with its end.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use gatehouse_contract::{TenantId, sidecar::Lease};
use gatehouse_ratelimit::{Decision, Return, Rule, Run, Take, Taken};
use hashbrown::{DefaultHashBuilder, HashTable};

use super::{
    book::{Book, MARGIN},
    group::{Group, Mode, Origin, Waiter, Wants, allowed},
    ledger::{Full, Ledger},
};

/// Groups of one shard; beyond it, checks of new ones are decided as if the store were away.
const GROUPS: usize = 16 * 1024;
/// How long a group that nobody asks for is remembered.
const IDLE: Duration = Duration::from_secs(2);
/// Returns that wait to be sent; more are lost, which costs passes and no more.
const RETURNS: usize = 4096;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    pub tenant: TenantId,
    pub rules: &'a Arc<[Rule]>,
    pub cost: u32,
    pub forced: bool,
    pub vm: Option<Wants>,
}

/// A verdict, and what to take along.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub rules: Arc<[Rule]>,
    pub decision: Decision,
    pub lease: Option<Lease>,
}

/// What comes of a check.
#[derive(Debug)]
pub enum Step {
    Decided(Verdict),
    /// [`Core::join`] the group.
    Wait(GroupId),
    /// There is no room for another group.
    Full,
}

/// Names a group until it is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupId {
    index: u32,
    life: u32,
}

/// Who waits for a take that is under way.
#[derive(Debug)]
pub struct Asking<W> {
    pub group: GroupId,
    pub waiters: Vec<Waiter<W>>,
    sent: Duration,
}

/// What became of passes since it was last asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub granted: u64,
    /// Spent on checks, or handed down to a VM.
    pub used: u64,
    pub returned: u64,
    pub lost: u64,
    pub vm_granted: u64,
    pub vm_used: u64,
    pub vm_returned: u64,
    pub vm_lost: u64,
}

/// See the module. `W` is how somebody who waits is reached.
#[derive(Debug)]
pub struct Core<W> {
    groups: Vec<(u32, Option<Group<W>>)>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    mode: Mode,
    pub ledger: Ledger,
    pub book: Book,
    ends: BinaryHeap<Reverse<(Duration, GroupId)>>,
    returns: Vec<Return>,
    tally: Tally,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.granted += other.granted;
        self.used += other.used;
        self.returned += other.returned;
        self.lost += other.lost;
        self.vm_granted += other.vm_granted;
        self.vm_used += other.vm_used;
        self.vm_returned += other.vm_returned;
        self.vm_lost += other.vm_lost;
    }
}

impl<W> Core<W> {
    pub fn new(mode: Mode, ledger: Ledger, book: Book) -> Self {
        Self {
            groups: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            mode,
            ledger,
            book,
            ends: BinaryHeap::new(),
            returns: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Decides from what is at hand, or says where to wait.
    pub fn check(&mut self, now: Duration, ask: &Ask<'_>) -> Step {
        let Some(id) = self.find(now, ask) else { return Step::Full };
        let Some(group) = get(&mut self.groups, id) else { return Step::Full };
        group.touched = now;
        let mut over = None;
        if !Arc::ptr_eq(&group.rules, ask.rules) && *group.rules != **ask.rules {
            over = group.adopt(ask.rules);
        }
        let late = group.expire(now);
        let enough = ask.vm.as_ref().is_none_or(|vm| group.serves(now, vm.passes));
        let found = match enough.then(|| group.pass(now)).flatten() {
            Some(decision) => {
                self.tally.used += 1;
                Some(decision)
            }
            None => group.denied(now),
        };
        let decided = found.map(|decision| {
            let vm = ask.vm.as_ref().filter(|_| decision.allowed);
            let lease =
                vm.and_then(|vm| carve(&mut self.book, &mut self.tally, id, group, now, vm));
            Verdict { rules: Arc::clone(&group.rules), decision, lease }
        });
        self.hand_back(over);
        self.hand_back(late);
        decided.map_or(Step::Wait(id), Step::Decided)
    }

    /// Waits in a group for the store's word. True when the group must be queued: nobody asks for it yet.
    pub fn join(&mut self, id: GroupId, waiter: Waiter<W>) -> bool {
        let Some(group) = get(&mut self.groups, id) else { return false };
        group.waiters.push_back(waiter);
        !std::mem::replace(&mut group.busy, true)
    }

    /// The take of a queued group, for all who still wait; `None` when nobody does. `live` is how many sidecars share
    /// the store, `run` the one of the whole store where it has one.
    ///
    /// # Errors
    /// [`Full`], and those who wait are dropped: what they would be charged could not be declared.
    pub fn ask(
        &mut self,
        now: Duration,
        id: GroupId,
        (live, run): (u32, Option<Run>),
        waits: impl Fn(&W) -> bool,
    ) -> Result<Option<(Take, Asking<W>)>, Full> {
        let Some(group) = get(&mut self.groups, id) else { return Ok(None) };
        let waiters: Vec<_> =
            std::mem::take(&mut group.waiters).into_iter().filter(|w| waits(&w.whom)).collect();
        if waiters.is_empty() {
            group.busy = false;
            return Ok(None);
        }
        if let Err(full) = self.ledger.open(group.tenant, &group.rules) {
            group.busy = false;
            return Err(full);
        }
        let wanted = waiters.iter().filter_map(|waiter| waiter.vm.as_ref());
        let wanted = wanted.fold(0u32, |sum, vm| sum.saturating_add(vm.passes));
        let late = group.expire(now);
        let (ahead, hold) = group.ahead(now, wanted);
        let take = Take {
            tenant: group.tenant,
            rules: Arc::clone(&group.rules),
            cost: group.cost,
            waiting: u32::try_from(waiters.len()).unwrap_or(u32::MAX),
            ahead,
            divisor: live.saturating_mul(2).max(1),
            hold,
            forced: group.forced,
            run: self.ledger.run(group.tenant).or(run),
        };
        self.hand_back(late);
        Ok(Some((take, Asking { group: id, waiters, sent: now })))
    }

    /// The store's word. True when others wait already: the group must be queued again.
    pub fn answered(
        &mut self,
        now: Duration,
        asking: Asking<W>,
        take: &Take,
        taken: &Taken,
        waits: impl Fn(&W) -> bool,
        mut tell: impl FnMut(W, Verdict),
    ) -> bool {
        let Asking { group: id, waiters, sent } = asking;
        let (tenant, rules, cost, hold) = (take.tenant, &take.rules, take.cost, take.hold);
        let spent = |passes: u32| cost.saturating_mul(passes);
        self.ledger.is_in(tenant, taken.run);
        self.ledger.charged(tenant, rules, taken.at, spent(taken.waiting));
        self.ledger.charged(tenant, rules, taken.at.plus(hold), spent(taken.ahead));
        self.tally.granted += u64::from(taken.ahead);
        let (at, run) = (taken.at, taken.run);
        let origin = Origin { at, hold, run, rules: Arc::clone(rules), until: sent + hold };
        let Some(group) = get(&mut self.groups, id) else { return false };
        let mut back = Vec::new();
        group.granted(now, origin, taken, &mut back);
        if let Some(own) = &group.lease {
            self.ends.push(Reverse((own.origin.until, id)));
        }
        let mut granted = taken.waiting;
        let mut waiting = waiters.into_iter().filter(|waiter| waits(&waiter.whom));
        // Those who wait are told in their order, so that what is left falls from one to the next.
        while granted > 0
            && let Some(Waiter { whom, vm }) = waiting.next()
        {
            granted -= 1;
            let lease =
                vm.and_then(|vm| carve(&mut self.book, &mut self.tally, id, group, now, &vm));
            let left = group.lease.as_ref().map_or(0, |own| own.left);
            let along = lease.map_or(0, |lease: Lease| lease.passes);
            let unspent = spent(granted.saturating_add(left).saturating_add(along));
            let standings = &taken.decision.standings;
            let decision = allowed(standings, rules, Duration::ZERO, unspent);
            tell(whom, Verdict { rules: Arc::clone(rules), decision, lease });
        }
        // Whoever went away meanwhile uses nothing.
        if cost > 0 && !take.forced {
            let here =
                Origin { at, hold: Duration::ZERO, run, rules: Arc::clone(rules), until: now };
            back.extend(here.back(tenant, cost, granted));
        }
        if !taken.decision.allowed && Arc::ptr_eq(rules, &group.rules) {
            group.deny(now, &taken.decision);
        }
        for Waiter { whom, .. } in waiting {
            let (rules, decision) = (Arc::clone(rules), taken.decision.clone());
            tell(whom, Verdict { rules, decision, lease: None });
        }
        // Those who came meanwhile need no take of their own while a lease or a denial answers them.
        while let Some(waiter) = group.waiters.pop_front() {
            if !waits(&waiter.whom) {
                continue;
            }
            let passed = group.pass(now);
            self.tally.used += u64::from(passed.is_some());
            let Some(decision) = passed.or_else(|| group.denied(now)) else {
                group.waiters.push_front(waiter);
                break;
            };
            let vm = waiter.vm.filter(|_| decision.allowed);
            let lease =
                vm.and_then(|vm| carve(&mut self.book, &mut self.tally, id, group, now, &vm));
            tell(waiter.whom, Verdict { rules: Arc::clone(&group.rules), decision, lease });
        }
        let again = self.settle(id);
        back.into_iter().for_each(|give| self.hand_back(Some(give)));
        again
    }

    /// The store did not say. Whether it charged is unknown: nobody uses it, nobody asks for it again. True as in
    /// [`Self::answered`].
    pub fn failed(&mut self, id: GroupId) -> bool {
        self.settle(id)
    }

    fn settle(&mut self, id: GroupId) -> bool {
        let Some(group) = get(&mut self.groups, id) else { return false };
        group.busy = !group.waiters.is_empty();
        group.busy
    }

    /// A VM hands back what it did not use of a lease. Anything but the first return by its holder is nothing.
    pub fn returned(&mut self, now: Duration, holder: &str, lease: u64, unused: u32) -> u32 {
        let Some((back, granted)) = self.book.end(holder, lease, unused) else { return 0 };
        self.tally.vm_returned += u64::from(back.passes);
        self.tally.vm_used += u64::from(granted - back.passes);
        let group = get(&mut self.groups, back.group);
        let own = group.and_then(|group| group.lease.as_mut());
        match own.filter(|own| own.origin == back.origin && now < own.origin.until) {
            Some(own) => {
                own.left = own.left.saturating_add(back.passes);
                self.tally.used = self.tally.used.saturating_sub(u64::from(back.passes));
            }
            None => self.hand_back(back.origin.back(back.tenant, back.cost, back.passes)),
        }
        back.passes
    }

    /// Ends what is over by `now`.
    pub fn due(&mut self, now: Duration) {
        while let Some(Reverse((until, id))) = self.ends.peek().copied()
            && until <= now
        {
            self.ends.pop();
            let back = get(&mut self.groups, id).and_then(|group| group.expire(now));
            self.hand_back(back);
        }
        self.tally.vm_lost += self.book.forget(now);
    }

    /// Ends every lease of ours: what is left of them, to be handed back.
    pub fn end_all(&mut self, now: Duration) -> Vec<Return> {
        self.due(now);
        let groups = self.groups.iter_mut().filter_map(|(_, group)| group.as_mut());
        let backs: Vec<_> = groups.filter_map(Group::end).collect();
        backs.into_iter().for_each(|give| self.hand_back(Some(give)));
        self.returns()
    }

    /// What became of passes since the last time.
    pub fn tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// What is to be handed back to the store now; sent once.
    pub fn returns(&mut self) -> Vec<Return> {
        std::mem::take(&mut self.returns)
    }

    /// Forgets groups that nobody asks for.
    pub fn sweep(&mut self, now: Duration) {
        for index in 0..u32::try_from(self.groups.len()).unwrap_or(u32::MAX) {
            let Some((life, place)) = self.groups.get_mut(index as usize) else { return };
            let old =
                |group: &Group<W>| group.is_idle() && now.saturating_sub(group.touched) >= IDLE;
            let Some(group) = place.take_if(|group| old(group)) else { continue };
            *life = life.wrapping_add(1);
            let hash = hash(&self.hasher, group.tenant, &group.rules, group.cost, group.forced);
            if let Ok(entry) = self.index.find_entry(hash, |at| *at == index) {
                entry.remove();
            }
            self.free.push(index);
        }
    }

    /// The group's limits, each divided by `live` sidecars: what this one lets pass while the store is away.
    pub fn shares(&mut self, now: Duration, ask: &Ask<'_>, live: u32) -> Option<Arc<[Rule]>> {
        let id = self.find(now, ask)?;
        let group = get(&mut self.groups, id)?;
        if let Some((known, rules)) = &group.shares
            && *known == live
            && *group.rules == **ask.rules
        {
            return Some(Arc::clone(rules));
        }
        let part = |rule: &Rule| {
            let mut rule = rule.clone();
            rule.max /= live.max(1);
            rule
        };
        let shares: Arc<[Rule]> = ask.rules.iter().map(part).collect();
        group.shares = Some((live, Arc::clone(&shares)));
        Some(shares)
    }

    fn find(&mut self, now: Duration, ask: &Ask<'_>) -> Option<GroupId> {
        let hash = hash(&self.hasher, ask.tenant, ask.rules, ask.cost, ask.forced);
        let groups = &self.groups;
        let same = |at: &u32| {
            groups.get(*at as usize).and_then(|(_, group)| group.as_ref()).is_some_and(|group| {
                group.tenant == ask.tenant
                    && group.cost == ask.cost
                    && group.forced == ask.forced
                    && (Arc::ptr_eq(&group.rules, ask.rules)
                        || of_the_same_windows(&group.rules, ask.rules))
            })
        };
        if let Some(at) = self.index.find(hash, same) {
            let life = self.groups.get(*at as usize)?.0;
            return Some(GroupId { index: *at, life });
        }
        if self.index.len() >= GROUPS {
            return None;
        }
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                self.groups.push((0, None));
                u32::try_from(self.groups.len() - 1).ok()?
            }
        };
        let (life, place) = self.groups.get_mut(at as usize)?;
        let id = GroupId { index: at, life: *life };
        let mut group = Group::new(ask.tenant, ask.rules, ask.cost, ask.forced, self.mode);
        group.touched = now;
        *place = Some(group);
        let (groups, hasher) = (&self.groups, &self.hasher);
        self.index.insert_unique(hash, at, |at| {
            let group = groups.get(*at as usize).and_then(|(_, group)| group.as_ref());
            group.map_or(0, |g| self::hash(hasher, g.tenant, &g.rules, g.cost, g.forced))
        });
        Some(id)
    }

    fn hand_back(&mut self, give: Option<Return>) {
        let Some(give) = give else { return };
        let amount = give.cost.saturating_mul(give.passes);
        self.ledger.credited(give.tenant, &give.rules, give.at.plus(give.hold), amount);
        let passes = u64::from(give.passes);
        if self.returns.len() < RETURNS {
            // A pass that somebody waited for and did not fetch was no lease's.
            self.tally.returned += if give.hold.is_zero() { 0 } else { passes };
            self.returns.push(give);
        } else {
            self.tally.lost += passes;
        }
    }
}

/// Takes a VM's lease out of ours, when enough of its time is left.
fn carve<W>(
    book: &mut Book,
    tally: &mut Tally,
    id: GroupId,
    group: &mut Group<W>,
    now: Duration,
    vm: &Wants,
) -> Option<Lease> {
    let own = group.lease.as_mut()?;
    let lease =
        book.begin(now, id, &own.origin, group.tenant, group.cost, vm, vm.passes.min(own.left))?;
    own.left -= lease.passes;
    tally.used += u64::from(lease.passes);
    tally.vm_granted += u64::from(lease.passes);
    debug_assert!(now + Duration::from_millis(lease.ttl_ms.into()) + MARGIN <= own.origin.until);
    Some(lease)
}

fn get<W>(groups: &mut [(u32, Option<Group<W>>)], id: GroupId) -> Option<&mut Group<W>> {
    let (life, group) = groups.get_mut(id.index as usize)?;
    group.as_mut().filter(|_| *life == id.life)
}

/// The limits' values are no part of a group: a change of them must meet the lease that the old ones had.
fn of_the_same_windows(one: &[Rule], other: &[Rule]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(one, other)| one.span == other.span && one.key_tail() == other.key_tail())
}

fn hash(
    hasher: &DefaultHashBuilder,
    tenant: TenantId,
    rules: &[Rule],
    cost: u32,
    forced: bool,
) -> u64 {
    let mut state = hasher.build_hasher();
    (tenant, cost, forced).hash(&mut state);
    rules.iter().for_each(|rule| rule.key_tail().hash(&mut state));
    state.finish()
}
