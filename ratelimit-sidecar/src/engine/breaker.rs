//! When a store is left alone: after failures in a row, or when too many answers are late. While it is open nobody
//! waits for the store; a probe now and then finds out whether it is back.
//! Knows no store and no clock: `now` counts from the engine's start.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

/// Over this time the late share is taken.
const PERIOD: Duration = Duration::from_secs(1);
/// Fewer asks within a period say nothing about shares.
const ASKS: u32 = 10;

/// When it opens, and how often it is tried then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Failures in a row that open it.
    pub failures: u32,
    /// More than this part of a second's answers, late, opens it.
    pub late_percent: u32,
    /// Between two probes; up to a quarter more.
    pub probe: Duration,
}

/// How an ask of the store ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Answered,
    /// No answer before the deadline.
    Late,
    /// Refused, broken off, not to be reached.
    Failed,
}

/// What an end changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    Opened,
    Closed,
    No,
}

/// One per store.
#[derive(Debug)]
pub struct Breaker {
    bounds: Bounds,
    open: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_a_row: u32,
    period: Duration,
    asks: u32,
    late: u32,
    /// Since when it is open, as far as [`Breaker::open_for`] was told.
    since: Duration,
    probe_at: Duration,
}

impl Breaker {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, open: AtomicBool::new(false), state: Mutex::default() }
    }

    /// Whether the store must not be asked. One load: every check asks this.
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Notes how an ask ended. While open, only a probe's answer closes it again: an answer that was under way when
    /// it opened says nothing.
    pub fn ended(&self, now: Duration, how: Ended) -> Turned {
        let mut state = self.lock();
        if self.is_open() {
            return Turned::No;
        }
        if now.saturating_sub(state.period) >= PERIOD {
            (state.period, state.asks, state.late) = (now, 0, 0);
        }
        state.asks += 1;
        match how {
            Ended::Answered => state.in_a_row = 0,
            Ended::Late => {
                state.late += 1;
                state.in_a_row += 1;
            }
            Ended::Failed => state.in_a_row += 1,
        }
        let (late, asks) = (u64::from(state.late), u64::from(state.asks));
        let often_late =
            state.asks >= ASKS && late * 100 > asks * u64::from(self.bounds.late_percent);
        if state.in_a_row < self.bounds.failures && !often_late {
            return Turned::No;
        }
        (state.since, state.probe_at) = (now, now);
        self.open.store(true, Relaxed);
        Turned::Opened
    }

    /// Whether a probe may go now: one at a time, the next one after a pause. `chance` is from 0 to 1.
    pub fn may_probe(&self, now: Duration, chance: f64) -> bool {
        let mut state = self.lock();
        if !self.is_open() || now < state.probe_at {
            return false;
        }
        state.probe_at = now + self.bounds.probe.mul_f64(1.0 + chance.clamp(0.0, 1.0) / 4.0);
        true
    }

    /// A probe was answered: the store is asked again.
    pub fn probed(&self, now: Duration) -> Turned {
        let mut state = self.lock();
        if !self.is_open() {
            return Turned::No;
        }
        *state = State { period: now, ..State::default() };
        self.open.store(false, Relaxed);
        Turned::Closed
    }

    /// How long it has been open since this was last asked.
    pub fn open_for(&self, now: Duration) -> Duration {
        let mut state = self.lock();
        if !self.is_open() {
            return Duration::ZERO;
        }
        let passed = now.saturating_sub(state.since);
        state.since = now;
        passed
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds =
        Bounds { failures: 5, late_percent: 20, probe: Duration::from_millis(200) };

    /// `ends` are `+` answered, `l` late, `f` failed, each `step_ms` after the one before. Which one opened it?
    fn check(ends: &str, step_ms: u64, expected: Option<usize>) {
        let breaker = Breaker::new(BOUNDS);
        let opened = ends.chars().enumerate().position(|(index, end)| {
            let how = match end {
                '+' => Ended::Answered,
                'l' => Ended::Late,
                _ => Ended::Failed,
            };
            let now = Duration::from_millis(step_ms * index as u64);
            breaker.ended(now, how) == Turned::Opened
        });
        assert_eq!(opened, expected, "{ends} every {step_ms} ms");
        assert_eq!(breaker.is_open(), expected.is_some());
    }

    #[test]
    fn opens_after_five_failures_in_a_row_and_not_after_four() {
        check("fffff", 2000, Some(4));
        check("lflfl", 2000, Some(4));
        check("ffff+ffff+", 2000, None);
    }

    #[test]
    fn opens_when_more_than_a_fifth_of_a_second_is_late_and_not_at_a_fifth() {
        check("l++++l++++", 10, None);
        check("l++++l+++l", 10, Some(9));
        check("l++l++l++", 10, None);
        check("l++l++l++l++l++l++", 300, None);
        check("f++f++f++f++", 10, None);
    }

    #[test]
    fn only_a_probe_closes_it_and_probes_are_apart() {
        let (breaker, ms) = (Breaker::new(BOUNDS), Duration::from_millis);
        assert!(!breaker.may_probe(ms(0), 0.0), "closed");
        for _ in 0..5 {
            breaker.ended(ms(1000), Ended::Failed);
        }
        assert_eq!(breaker.ended(ms(1001), Ended::Answered), Turned::No);
        assert!(breaker.is_open());
        for (at_ms, chance, expected) in [
            (1000, 0.0, true),
            (1199, 0.0, false),
            (1200, 1.0, true),
            (1449, 0.0, false),
            (1450, 0.0, true),
        ] {
            assert_eq!(breaker.may_probe(ms(at_ms), chance), expected, "{at_ms} ms");
        }
        assert_eq!(breaker.open_for(ms(1450)), ms(450));
        assert_eq!(breaker.open_for(ms(1500)), ms(50));
        assert_eq!(breaker.probed(ms(1500)), Turned::Closed);
        assert_eq!((breaker.is_open(), breaker.open_for(ms(1600))), (false, ms(0)));
        assert_eq!(breaker.probed(ms(1600)), Turned::No);
    }
}
