//! What the engine holds for the checks of one tenant that weigh the same limits at the same cost: who waits, what is
//! leased, what was denied. Knows no other group and no clock: `now` counts from the engine's start.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use gatehouse_contract::TenantId;
use gatehouse_ratelimit::{
    Decision, Return, Rule, Run, Standing, Taken, Timestamp,
    policy::{longest_hold, most_ahead},
};

/// How long a denial is told from memory at most: a limit that was raised, and passes that came back, act after this.
const DENIED_FOR: Duration = Duration::from_millis(250);
/// The smallest lease; one pass alone saves nothing.
const LEAST: u32 = 2;

/// How leases begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Small, and only where checks come one upon the other.
    Auto,
    /// As large as they may be.
    Lease,
    /// There are none.
    Strict,
}

/// One group.
#[derive(Debug)]
pub struct Group<W> {
    pub tenant: TenantId,
    pub rules: Arc<[Rule]>,
    pub cost: u32,
    pub forced: bool,
    pub waiters: VecDeque<Waiter<W>>,
    /// It stands in the queue, or its take is under way.
    pub busy: bool,
    pub lease: Option<Own>,
    pub denial: Option<Denial>,
    /// Of its last check or answer.
    pub touched: Duration,
    /// Its limits divided by so many sidecars, for when the store is away.
    pub shares: Option<(u32, Arc<[Rule]>)>,
    /// The most that may go ahead, and for how long.
    most: u32,
    hold: Duration,
    mode: Mode,
    /// How many are wanted ahead now.
    ahead: u32,
    /// When the last take was sent.
    sent: Option<Duration>,
}

/// Somebody who waits for the store's word.
#[derive(Debug)]
pub struct Waiter<W> {
    pub whom: W,
    /// What its VM would take along.
    pub vm: Option<Wants>,
}

/// Passes for a VM.
#[derive(Debug, Clone)]
pub struct Wants {
    pub holder: Arc<str>,
    pub passes: u32,
}

/// Where passes were booked: names a lease of ours, and is what its return needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub at: Timestamp,
    pub hold: Duration,
    pub run: Run,
    pub rules: Arc<[Rule]>,
    /// The end of use: counted from the take's sending.
    pub until: Duration,
}

/// Passes that are charged already.
#[derive(Debug)]
pub struct Own {
    pub origin: Origin,
    pub left: u32,
    seen: Seen,
}

/// What the store said, and when.
#[derive(Debug)]
pub struct Seen {
    standings: Vec<Standing>,
    at: Duration,
}

/// A denial that still holds.
#[derive(Debug)]
pub struct Denial {
    seen: Seen,
    until: Duration,
}

// === impl Group ===

impl<W> Group<W> {
    pub fn new(tenant: TenantId, rules: &Arc<[Rule]>, cost: u32, forced: bool, mode: Mode) -> Self {
        let mut group = Self {
            tenant,
            rules: Arc::clone(rules),
            cost,
            forced,
            waiters: VecDeque::new(),
            busy: false,
            lease: None,
            denial: None,
            touched: Duration::ZERO,
            shares: None,
            most: 0,
            hold: Duration::ZERO,
            mode,
            ahead: 0,
            sent: None,
        };
        group.weigh();
        group
    }

    fn weigh(&mut self) {
        self.hold = longest_hold(&self.rules);
        let leased = self.cost > 0 && !self.forced && self.mode != Mode::Strict;
        self.most = if leased { most_ahead(&self.rules, self.cost) } else { 0 };
        self.ahead = if self.mode == Mode::Lease { self.most } else { self.ahead.min(self.most) };
    }

    /// Goes over to other values of the same limits. What the old ones said no longer counts; the lease is over.
    #[must_use]
    pub fn adopt(&mut self, rules: &Arc<[Rule]>) -> Option<Return> {
        self.rules = Arc::clone(rules);
        (self.denial, self.shares) = (None, None);
        self.weigh();
        self.end()
    }

    /// Ends the lease; what is left of it goes back.
    #[must_use]
    pub fn end(&mut self) -> Option<Return> {
        let own = self.lease.take()?;
        own.origin.back(self.tenant, self.cost, own.left)
    }

    /// Ends the lease if its time is over. Unused, it was too large.
    #[must_use]
    pub fn expire(&mut self, now: Duration) -> Option<Return> {
        let own = self.lease.as_ref()?;
        if now < own.origin.until {
            return None;
        }
        if own.left > 0 {
            self.ahead = if self.ahead > LEAST { self.ahead / 2 } else { 0 };
        }
        self.end()
    }

    /// Whether there is enough for a VM that would take `passes` along; with less it would be back at once, and the
    /// store gives all of it.
    pub fn serves(&self, now: Duration, passes: u32) -> bool {
        let enough = passes.min(self.most) / 2;
        self.lease
            .as_ref()
            .is_some_and(|own| own.left > enough && own.origin.time_for_a_vm(now).is_some())
    }

    /// One pass of the lease, while it may be used.
    pub fn pass(&mut self, now: Duration) -> Option<Decision> {
        let cost = self.cost;
        let own = self.lease.as_mut()?;
        if own.left == 0 || now >= own.origin.until {
            return None;
        }
        own.left -= 1;
        Some(own.seen.allowed(&self.rules, now, cost.saturating_mul(own.left)))
    }

    /// What a denial of a moment ago still says.
    pub fn denied(&mut self, now: Duration) -> Option<Decision> {
        if self.denial.as_ref().is_some_and(|denial| now >= denial.until) {
            self.denial = None;
        }
        self.denial.as_ref().map(|denial| denial.seen.denied(now))
    }

    /// What to take ahead now, for how long; `wanted` is what VMs would take along.
    pub fn ahead(&mut self, now: Duration, wanted: u32) -> (u32, Duration) {
        if self.most == 0 {
            return (0, self.hold);
        }
        // Asked again so soon, more ahead would have saved it: the lease is used up, or there was none.
        let soon = self.sent.is_some_and(|sent| now.saturating_sub(sent) < self.hold / 2);
        if soon && self.lease.as_ref().is_none_or(|own| own.left == 0) {
            self.ahead = self.ahead.saturating_mul(2).clamp(LEAST, self.most);
        }
        self.sent = Some(now);
        (self.ahead.saturating_add(wanted).min(self.most), self.hold)
    }

    /// The store granted `taken` to a take that was sent at `sent`. Gives back what came too late to be used, and an
    /// older lease.
    pub fn granted(
        &mut self,
        now: Duration,
        origin: Origin,
        taken: &Taken,
        returns: &mut Vec<Return>,
    ) {
        if taken.ahead == 0 {
            return;
        }
        let same = Arc::ptr_eq(&origin.rules, &self.rules);
        if !same || now >= origin.until {
            returns.extend(origin.back(self.tenant, self.cost, taken.ahead));
            return;
        }
        returns.extend(self.end());
        let seen = Seen { standings: taken.decision.standings.clone(), at: now };
        self.lease = Some(Own { origin, left: taken.ahead, seen });
    }

    /// The store denied: for a moment nobody need ask again.
    pub fn deny(&mut self, now: Duration, decision: &Decision) {
        if self.cost == 0 || self.forced {
            return;
        }
        let wait = decision.retry_after().unwrap_or(DENIED_FOR).min(DENIED_FOR);
        let seen = Seen { standings: decision.standings.clone(), at: now };
        self.denial = Some(Denial { seen, until: now + wait });
    }

    /// Whether nothing would be lost with it.
    pub fn is_idle(&self) -> bool {
        !self.busy && self.waiters.is_empty() && self.lease.is_none()
    }
}

// === impl Origin ===

impl Origin {
    /// Hands back `passes` that nobody used and nobody will.
    #[must_use]
    pub fn back(&self, tenant: TenantId, cost: u32, passes: u32) -> Option<Return> {
        let (at, hold, run) = (self.at, self.hold, self.run);
        let rules = Arc::clone(&self.rules);
        (passes > 0).then_some(Return { tenant, rules, cost, passes, at, hold, run })
    }
}

// === impl Seen ===

impl Seen {
    /// The verdict on one who passes while `unspent` of what the store counts is still ours: what is left for others
    /// is the store's word, what is left for us on top of that.
    fn allowed(&self, rules: &[Rule], now: Duration, unspent: u32) -> Decision {
        let waited = now.saturating_sub(self.at);
        allowed(&self.standings, rules, waited, unspent)
    }

    fn denied(&self, now: Duration) -> Decision {
        let waited = now.saturating_sub(self.at);
        let less = |wait: Option<Duration>| wait.map(|wait| wait.saturating_sub(waited));
        let standings = self.standings.iter().map(|standing| Standing {
            used: standing.used,
            free_in: less(standing.free_in),
            pass_in: less(standing.pass_in),
        });
        Decision { allowed: false, standings: standings.collect() }
    }
}

/// See [`Seen::allowed`].
pub fn allowed(standings: &[Standing], rules: &[Rule], waited: Duration, unspent: u32) -> Decision {
    let standings = standings.iter().zip(rules).map(|(standing, rule)| {
        let used = standing.used.saturating_sub(unspent);
        let free_in = if used < rule.max {
            Some(Duration::ZERO)
        } else {
            standing.free_in.map(|wait| wait.saturating_sub(waited))
        };
        Standing { used, free_in, pass_in: Some(Duration::ZERO) }
    });
    Decision { allowed: true, standings: standings.collect() }
}
