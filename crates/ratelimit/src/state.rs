//! What is kept of one limit, by the algorithm that counts it, behind one form. All of them are told `now`, free
//! what time has freed, and add what is charged. Knows neither tenants nor keys.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    day::{self, Day},
    gcra::Gcra,
    log::Log,
    policy::{Algorithm, Rule},
    window::{Timestamp, Window},
};

/// What is kept of one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// [`Algorithm::SubBuckets`].
    SubBuckets(Box<Window>),
    /// [`Algorithm::Ring`] and [`Algorithm::SortedSet`].
    Log(Log),
    /// [`Algorithm::Gcra`].
    Gcra(Gcra),
    /// [`Algorithm::Day`].
    Day(Day),
}

/// What sidecars declared of one limit since the store began anew: by slot, what the store had then and the sum of
/// what was declared. A calendar day is one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared(BTreeMap<u64, Sums>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sums {
    had: u32,
    declared: u32,
}

impl State {
    /// Nothing charged.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::SubBuckets => Self::SubBuckets(Box::default()),
            Algorithm::Ring | Algorithm::SortedSet => Self::Log(Log::default()),
            Algorithm::Gcra => Self::Gcra(Gcra::default()),
            Algorithm::Day => Self::Day(Day::default()),
        }
    }

    /// Frees what has left by `now`. Call it before anything else.
    pub fn advance(&mut self, rule: &Rule, now: Timestamp) {
        match self {
            Self::SubBuckets(window) => window.advance(rule.span, now),
            Self::Log(log) => log.advance(rule.span, now),
            Self::Gcra(_) => {}
            Self::Day(day) => day.advance(now),
        }
    }

    /// What counts now. May exceed a limit that was lowered.
    pub fn used(&self, rule: &Rule, now: Timestamp) -> u32 {
        match self {
            Self::SubBuckets(window) => window.used(),
            Self::Log(log) => log.used(),
            Self::Gcra(gcra) => gcra.used(rule.span, rule.max, now),
            Self::Day(day) => day.used(),
        }
    }

    /// What fits now.
    pub fn room(&self, rule: &Rule, now: Timestamp) -> u32 {
        match self {
            Self::Gcra(gcra) => {
                u32::try_from(gcra.room(rule.span, rule.max, now)).unwrap_or(u32::MAX)
            }
            _ => rule.max.saturating_sub(self.used(rule, now)),
        }
    }

    /// Whether passes that are used up to `hold` after `now` can be booked: a log and a level have no place for them.
    pub fn reaches(&self, rule: &Rule, now: Timestamp, hold: Duration) -> bool {
        match self {
            Self::SubBuckets(window) => window.ahead(rule.span, now, rule.hold(hold)).is_some(),
            Self::Day(day) => day.reaches(now, hold),
            Self::Log(_) | Self::Gcra(_) => false,
        }
    }

    /// Charges `here` for now and `ahead` for up to `hold` later, which [`Self::reaches`].
    pub fn charge(&mut self, rule: &Rule, now: Timestamp, here: u32, ahead: u32, hold: Duration) {
        match self {
            Self::SubBuckets(window) => {
                window.charge(here);
                if let Some(slot) = window.ahead(rule.span, now, rule.hold(hold)) {
                    window.add(slot, ahead);
                }
            }
            Self::Log(log) => log.add(now, here),
            Self::Gcra(gcra) => gcra.add(rule.span, rule.max, now, here),
            Self::Day(day) => day.add(here.saturating_add(ahead)),
        }
    }

    /// How long until `weight` fits: zero when it does now, `None` when it never will.
    pub fn wait(&self, rule: &Rule, now: Timestamp, weight: u32) -> Option<Duration> {
        match self {
            Self::SubBuckets(window) => window.wait(rule.span, now, rule.max, weight),
            Self::Log(log) => log.wait(rule.span, now, rule.max, weight),
            Self::Gcra(gcra) => gcra.wait(rule.span, now, rule.max, weight),
            Self::Day(day) => day.wait(now, rule.max, weight),
        }
    }

    /// For how long it means anything when nothing else is charged; it may be forgotten then.
    pub fn lifetime(&self, rule: &Rule, now: Timestamp) -> Duration {
        match self {
            Self::SubBuckets(_) => rule.span.lifetime(),
            Self::Log(_) | Self::Gcra(_) => Duration::from_millis(rule.span.ms()),
            Self::Day(day) => day.lifetime(now),
        }
    }

    /// Takes back what went ahead at `at` for `hold`, no more than its slot still holds.
    pub fn credit(&mut self, rule: &Rule, at: Timestamp, hold: Duration, amount: u32) {
        match self {
            Self::SubBuckets(window) => {
                window.credit(rule.span.slot(at.plus(rule.hold(hold))), amount);
            }
            Self::Day(day) => day.credit(at, amount),
            Self::Log(_) | Self::Gcra(_) => {}
        }
    }

    /// Raises what counts to what was declared, slot by slot. A store that lost nothing holds it already.
    pub fn declare(
        &mut self,
        rule: &Rule,
        declared: &mut Declared,
        charges: &[(Timestamp, u32)],
        now: Timestamp,
    ) {
        for (at, amount) in charges {
            match self {
                Self::SubBuckets(window) => {
                    // A clock that came back behind the old one: as far ahead as can be.
                    let slot = rule.span.slot(*at).min(window.farthest());
                    let more = declared.add(slot, window.count(slot), *amount);
                    window.add(slot, more);
                }
                Self::Log(log) => {
                    let slot = rule.span.slot(*at).min(rule.span.slot(now));
                    let more = declared.add(slot, log.count(rule.span, slot), *amount);
                    if more > 0 && rule.span.slot_end(slot) + rule.span.ms() > now.as_ms() {
                        log.insert(rule.span, slot, more);
                    }
                }
                Self::Gcra(_) => {
                    let slot = rule.span.slot(*at).min(rule.span.slot(now));
                    declared.add(slot, 0, *amount);
                }
                Self::Day(day) => {
                    if day::number(*at) == day.day() {
                        let more = declared.add(day.day(), day.used(), *amount);
                        day.add(more);
                    }
                }
            }
        }
        if let Self::Gcra(gcra) = self {
            let mut replayed = Gcra::default();
            for (slot, sums) in &declared.0 {
                let end = Timestamp::from_ms(rule.span.slot_end(*slot).min(now.as_ms()));
                replayed.add(rule.span, rule.max, end, sums.declared);
            }
            gcra.raise(&replayed, rule.span, rule.max, now);
        }
    }
}

impl Declared {
    /// Adds a declaration to a slot that `has` so much; says by how much the slot must grow. What was charged since
    /// the first declaration of the slot stays on top.
    fn add(&mut self, slot: u64, has: u32, amount: u32) -> u32 {
        let sums = self.0.entry(slot).or_insert(Sums { had: has, declared: 0 });
        let before = sums.declared.saturating_sub(sums.had);
        sums.declared = sums.declared.saturating_add(amount);
        sums.declared.saturating_sub(sums.had) - before
    }
}
