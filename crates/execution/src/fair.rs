//! Whose turn it is: of what waits, what is offered to the workers next (specification AEX-002, design §5).
//!
//! Deficit round-robin per stream and tenant: every execution costs one, a visit gives a tenant as many as its weight, and
//! what a full stream cuts short of a visit is made up for when there is room again. What has waited long goes into a more
//! urgent stream, for a bounded part of it. Nothing is offered beyond a tenant's slots. Retries are offered within budgets.
//!
//! Knows neither how what waits is found nor what a stream is; `now` is any clock that only goes on.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use gatehouse_contract::TenantId;

mod budget;
mod pace;

use budget::Budgets;
pub use pace::{Pace, Room};

/// Priorities, and streams: P0 to P3.
pub const LEVELS: usize = 4;
/// Whoever has waited so long is as urgent as the next priority, and so on.
pub const AGE: Duration = Duration::from_secs(30);
/// One of so many of a stream's places is for what waited long in less urgent ones.
pub const AGED_SHARE: u32 = 8;

/// What a tenant has waiting in one priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// Whose.
    pub tenant: TenantId,
    /// 0 is the most urgent, 3 the least.
    pub priority: u8,
    /// How many wait that were never run, or were lost: at least, where not all are counted.
    pub first: u32,
    /// How many retries are due, likewise.
    pub again: u32,
    /// How long the oldest has waited.
    pub waited: Duration,
}

/// What a tenant may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// How many may run at once.
    pub slots: u32,
    /// Its part where others wait, too.
    pub weight: NonZeroU32,
    /// How many run.
    pub running: u32,
    /// How many of each priority are offered and not taken yet.
    pub queued: [u32; LEVELS],
}

/// What waits, in the order of priority and tenant, and what those tenants may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    /// At most one of each priority and tenant.
    pub classes: Vec<Class>,
    /// Who has no share here gets nothing.
    pub shares: BTreeMap<TenantId, Share>,
}

/// What is to be offered: the oldest of a tenant's priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Whose.
    pub tenant: TenantId,
    /// Their own priority.
    pub priority: u8,
    /// The stream that they go into; never less urgent.
    pub stream: u8,
    /// How many that were never run, or were lost.
    pub first: u32,
    /// How many retries.
    pub again: u32,
}

/// What is offered in a round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// At most one of each tenant, priority and stream.
    pub picks: Vec<Pick>,
    /// In which order: places in `picks`, each as often as that one has executions.
    pub order: Vec<usize>,
}

/// Where a visit was.
#[derive(Debug, Clone, Copy, Default)]
struct Ring {
    last: Option<TenantId>,
    /// What is left to it of its visit.
    left: u32,
}

/// Whose turn it was. Lost with its process: then it begins anew, and nobody is worse off than by one visit.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    rings: [Ring; LEVELS],
    aged: [Ring; LEVELS],
    /// Places of each stream since the last one that was for what waited long.
    since_aged: [u32; LEVELS],
    budgets: Budgets,
}

/// What is left while a round is being decided.
struct Round<'w> {
    classes: Vec<Class>,
    shares: &'w mut BTreeMap<TenantId, Share>,
    chosen: Chosen,
}

// === impl Turns ===

impl Turns {
    /// What is offered now of `waiting`, where `rooms` has the places that are free in each stream.
    ///
    /// - A tenant's running, offered and picked executions of a priority and of more urgent ones are never more than its
    ///   slots: what is less urgent and was offered before does not keep out what is more urgent, and the claim decides.
    /// - Of a stream with something waiting at its own level one place in [`AGED_SHARE`] is for what waited long elsewhere;
    ///   else one at a time.
    pub fn choose(&mut self, now: Duration, waiting: &Waiting, rooms: [Room; LEVELS]) -> Chosen {
        self.budgets.refill(now);
        let mut shares = waiting.shares.clone();
        let (classes, chosen) = (waiting.classes.clone(), Chosen::default());
        let mut round = Round { classes, shares: &mut shares, chosen };
        for (stream, room) in (0_u8..).zip(rooms) {
            self.fill(stream, room, &mut round);
        }
        round.chosen
    }

    fn fill(&mut self, stream: u8, room: Room, round: &mut Round<'_>) {
        let at = usize::from(stream);
        let Self { rings, aged, since_aged, budgets } = self;
        let (Some(ring), Some(aged), Some(since)) =
            (rings.get_mut(at), aged.get_mut(at), since_aged.get_mut(at))
        else {
            return;
        };
        let own = |class: &Class| class.priority == stream;
        let old = |class: &Class| {
            class.priority > stream
                && class.waited >= AGE.saturating_mul(u32::from(class.priority - stream))
        };
        let mut left = room.free;
        while left > 0 {
            let aged_turn = since.saturating_add(1) >= AGED_SHARE;
            if aged_turn && aged.pick(stream, old, round, budgets) {
                *since = 0;
            } else if ring.pick(stream, own, round, budgets) {
                *since = since.saturating_add(1).min(AGED_SHARE);
            } else {
                break;
            }
            left -= 1;
        }
        // Nobody is kept waiting by one: what comes next finds the stream no deeper than that.
        if left == room.free && left > 0 && room.empty {
            aged.pick(stream, old, round, budgets);
        }
    }
}

// === impl Ring ===

impl Ring {
    /// Picks one of the classes that are `wanted`: of the tenant whose visit it is, or of the next. Whether there was one.
    fn pick(
        &mut self,
        stream: u8,
        wanted: impl Fn(&Class) -> bool,
        round: &mut Round<'_>,
        budgets: &mut Budgets,
    ) -> bool {
        let can = |round: &Round<'_>, class: &Class| wanted(class) && round.may(class, budgets);
        let visited = if self.left > 0 { self.last } else { None };
        let same = visited.and_then(|tenant| {
            round.classes.iter().position(|class| class.tenant == tenant && can(round, class))
        });
        let found = same.or_else(|| {
            let behind = |class: &Class| self.last.is_none_or(|last| class.tenant > last);
            let mut next: Option<(bool, TenantId, usize)> = None;
            for (place, class) in round.classes.iter().enumerate() {
                if can(round, class) {
                    // Those behind the last one come before those in front of it.
                    let this = (!behind(class), class.tenant, place);
                    next = Some(next.map_or(this, |best| best.min(this)));
                }
            }
            next.map(|(_, _, place)| place)
        });
        let Some(place) = found else { return false };
        let Some((tenant, weight)) = round.take(place, stream, budgets) else { return false };
        if same.is_none() {
            self.last = Some(tenant);
            self.left = weight.get();
        }
        self.left = self.left.saturating_sub(1);
        true
    }
}

// === impl Round ===

impl Round<'_> {
    /// Whether one of the class may be offered.
    fn may(&self, class: &Class, budgets: &Budgets) -> bool {
        let Some(share) = self.shares.get(&class.tenant) else { return false };
        let before = share.queued.iter().take(usize::from(class.priority).saturating_add(1));
        let held = before.fold(share.running, |held, queued| held.saturating_add(*queued));
        held < share.slots && (class.first > 0 || (class.again > 0 && budgets.allow(class.tenant)))
    }

    /// Takes one: what was never run before what is tried again.
    fn take(
        &mut self,
        place: usize,
        stream: u8,
        budgets: &mut Budgets,
    ) -> Option<(TenantId, NonZeroU32)> {
        let class = self.classes.get_mut(place)?;
        let share = self.shares.get_mut(&class.tenant)?;
        let queued = share.queued.get_mut(usize::from(class.priority))?;
        *queued = queued.saturating_add(1);
        let (tenant, priority) = (class.tenant, class.priority);
        let picks = &mut self.chosen.picks;
        let at = picks.iter().position(|pick| {
            (pick.tenant, pick.priority, pick.stream) == (tenant, priority, stream)
        });
        let at = at.unwrap_or_else(|| {
            picks.push(Pick { tenant, priority, stream, first: 0, again: 0 });
            picks.len() - 1
        });
        let pick = picks.get_mut(at)?;
        // Neither waits for the other for ever: a retry goes every other time, as long as its budgets last.
        let again = class.again > 0
            && budgets.allow(tenant)
            && (class.first == 0 || pick.again < pick.first);
        if again {
            budgets.spend(tenant);
            class.again -= 1;
            pick.again += 1;
        } else {
            class.first = class.first.checked_sub(1)?;
            pick.first += 1;
        }
        self.chosen.order.push(at);
        Some((tenant, share.weight))
    }
}

#[cfg(test)]
mod tests;
