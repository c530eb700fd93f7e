//! A calendar window: what was charged on one UTC day. A day begins at midnight, whatever was used the day before.
//! Knows no limit's name and no key.

use std::time::Duration;

use crate::window::Timestamp;

/// Milliseconds of a UTC day (Unix time has no leap seconds).
pub const DAY_MS: u64 = 86_400_000;
/// For how long a record outlives its day: a clock that is set back a little still finds it.
const GRACE_MS: u64 = 1000;

/// What was charged on one day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Day {
    day: u64,
    used: u32,
}

/// Days since the Unix epoch.
pub const fn number(at: Timestamp) -> u64 {
    at.as_ms() / DAY_MS
}

impl Day {
    /// Begins anew where `now` is on a later day. A clock that steps back stands still; a record more than a day
    /// ahead of it is dropped.
    pub fn advance(&mut self, now: Timestamp) {
        let today = number(now);
        if today > self.day || self.day - today > 1 {
            *self = Self { day: today, used: 0 };
        }
    }

    /// What is charged on the day.
    pub const fn used(&self) -> u32 {
        self.used
    }

    /// Whether what is used up to `hold` after `now` belongs to this day.
    pub fn reaches(&self, now: Timestamp, hold: Duration) -> bool {
        number(now) == self.day && number(now.plus(hold)) == self.day
    }

    /// Adds `amount`, at most up to `u32::MAX`.
    pub fn add(&mut self, amount: u32) {
        self.used = self.used.saturating_add(amount);
    }

    /// Takes back what was charged at `at`, no more than the day holds; another day is left alone.
    pub fn credit(&mut self, at: Timestamp, amount: u32) {
        if number(at) == self.day {
            self.used = self.used.saturating_sub(amount);
        }
    }

    /// The day that is counted.
    pub const fn day(&self) -> u64 {
        self.day
    }

    /// How long until `weight` fits under `max`: zero when it does now, `None` when it never will.
    pub fn wait(&self, now: Timestamp, max: u32, weight: u32) -> Option<Duration> {
        let bearable = max.checked_sub(weight)?;
        if self.used <= bearable {
            return Some(Duration::ZERO);
        }
        let midnight = (self.day + 1).saturating_mul(DAY_MS);
        Some(Duration::from_millis(midnight.saturating_sub(now.as_ms())))
    }

    /// For how long a record that is written at `now` means anything.
    pub fn lifetime(&self, now: Timestamp) -> Duration {
        let midnight = (self.day + 1).saturating_mul(DAY_MS);
        Duration::from_millis(midnight.saturating_sub(now.as_ms()) + GRACE_MS)
    }
}
