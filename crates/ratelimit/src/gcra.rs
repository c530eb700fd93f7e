//! GCRA in its leaky-bucket form (ITU-T I.371): a level that drains evenly at the limit's rate, with the whole limit
//! as its burst. Smooth and small, and a weaker promise than a window's: after a pause a client may spend the limit
//! at once and go on at the rate, so that a window may hold up to twice the limit (never more).
//!
//! The level is kept in passes times the window's milliseconds: what drains in a millisecond is then the limit, and
//! every sum is a whole number below 2^53. Knows no limit's name and no key.

use std::time::Duration;

use crate::window::{Span, Timestamp};

/// The greatest level: forced charges stop there. Exact in a double.
pub const MAX_LEVEL: u64 = 1 << 52;

/// A level at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gcra {
    at_ms: u64,
    level: u64,
}

impl Gcra {
    /// What has not drained by `now`. A window after the last charge nothing counts; a clock that steps back stands
    /// still; a record more than a window ahead of it counts for nothing.
    pub fn level(&self, span: Span, max: u32, now: Timestamp) -> u64 {
        if now.as_ms() < self.at_ms {
            return if self.at_ms - now.as_ms() > span.ms() { 0 } else { self.level };
        }
        let elapsed_ms = now.as_ms() - self.at_ms;
        if elapsed_ms >= span.ms() {
            return 0;
        }
        self.level.saturating_sub(elapsed_ms * u64::from(max))
    }

    /// Passes that have not drained, rounded up.
    pub fn used(&self, span: Span, max: u32, now: Timestamp) -> u32 {
        u32::try_from(self.level(span, max, now).div_ceil(span.ms())).unwrap_or(u32::MAX)
    }

    /// Passes that fit, rounded down.
    pub fn room(&self, span: Span, max: u32, now: Timestamp) -> u64 {
        (u64::from(max) * span.ms()).saturating_sub(self.level(span, max, now)) / span.ms()
    }

    /// Adds passes.
    pub fn add(&mut self, span: Span, max: u32, now: Timestamp, amount: u32) {
        let more = u64::from(amount).saturating_mul(span.ms());
        let level = self.level(span, max, now).saturating_add(more).min(MAX_LEVEL);
        let ahead = self.at_ms.saturating_sub(now.as_ms()) <= span.ms();
        let at_ms = if ahead { self.at_ms.max(now.as_ms()) } else { now.as_ms() };
        *self = Self { at_ms, level };
    }

    /// Raises the level to another's.
    pub fn raise(&mut self, other: &Self, span: Span, max: u32, now: Timestamp) {
        let level = other.level(span, max, now);
        if level > self.level(span, max, now) {
            *self = Self { at_ms: now.as_ms(), level };
        }
    }

    /// How long until `weight` fits under `max`: zero when it does now, `None` when it never will.
    pub fn wait(&self, span: Span, now: Timestamp, max: u32, weight: u32) -> Option<Duration> {
        let bearable = u64::from(max.checked_sub(weight)?) * span.ms();
        let level = self.level(span, max, now);
        if level <= bearable {
            return Some(Duration::ZERO);
        }
        let drained_ms = self.at_ms.max(now.as_ms()) + (level - bearable).div_ceil(u64::from(max));
        // However much was forced: a window after the last charge nothing counts.
        let free_ms = drained_ms.min(self.at_ms + span.ms());
        Some(Duration::from_millis(free_ms.saturating_sub(now.as_ms())))
    }
}
