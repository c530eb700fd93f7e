//! A sliding window in sub-buckets: what was charged in each of the last 60 slots, in the current one, and ahead of
//! it for the next two (a lease's passes are booked where the lease ends).
//! Never more than the limit in any window, wherever it begins; a charge is freed at most one slot late.
//! Knows no limit's name and no key.

use std::time::Duration;

/// Slots per window. More make freeing finer and the record longer; at 60 s a slot is a second.
pub const SLOTS: u64 = 60;

/// How many slots ahead of the current one may be booked.
pub const AHEAD: u64 = 2;

/// The most that one slot counts: the Redis record has three bytes for it. Only forced charges can reach it.
pub const MAX_COUNT: u32 = 0xFF_FFFF;

/// A charge leaves when the current slot is this many behind its own: the window before the current slot is then
/// covered whole, wherever in the slot it began.
const LEAVES: u64 = SLOTS + 1;
/// The current slot, the [`SLOTS`] before it and the [`AHEAD`] after it.
const RING: u64 = LEAVES + AHEAD;
const RING_LEN: usize = RING as usize;

/// A moment: milliseconds since the Unix epoch, by the store's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

/// A window's length, divided into slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    seconds: u32,
    slot_ms: u64,
}

/// What was charged lately, by slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    latest: u64,
    total: u32,
    ring: [u32; RING_LEN],
}

// === impl Timestamp ===

impl Timestamp {
    /// `ms` milliseconds after the Unix epoch.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// `later` after this one.
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }
}

// === impl Span ===

impl Span {
    /// A window of `seconds`; 0 counts as 1.
    pub const fn from_secs(seconds: u32) -> Self {
        let seconds = if seconds == 0 { 1 } else { seconds };
        // Rounded up, so that the slots cover the window whole.
        Self { seconds, slot_ms: (seconds as u64 * 1000).div_ceil(SLOTS) }
    }

    /// The window's length in seconds.
    pub const fn seconds(self) -> u32 {
        self.seconds
    }

    /// A slot's length in milliseconds.
    pub const fn slot_ms(self) -> u64 {
        self.slot_ms
    }

    /// The slot of a moment.
    pub const fn slot(self, at: Timestamp) -> u64 {
        at.0 / self.slot_ms
    }

    /// The last millisecond of a slot.
    pub const fn slot_end(self, slot: u64) -> u64 {
        (slot + 1).saturating_mul(self.slot_ms).saturating_sub(1)
    }

    /// The window's length in milliseconds.
    pub const fn ms(self) -> u64 {
        self.seconds as u64 * 1000
    }

    /// For how long a record in sub-buckets means anything after its last charge.
    pub const fn lifetime(self) -> Duration {
        Duration::from_millis(self.slot_ms * (RING + 1))
    }
}

// === impl Window ===

impl Default for Window {
    fn default() -> Self {
        Self { latest: 0, total: 0, ring: [0; RING_LEN] }
    }
}

impl Window {
    /// Forgets what has left the window by `now`; call it before anything else.
    ///
    /// A clock that steps back counts as standing still, since freeing is what time does. A record more than a
    /// window ahead of the clock was written by a clock that was wrong; it is dropped, or it would block for as long.
    pub fn advance(&mut self, span: Span, now: Timestamp) {
        let current = span.slot(now);
        if current >= self.latest {
            let left_behind = current - self.latest;
            if left_behind >= RING {
                *self = Self { latest: current, ..Self::default() };
                return;
            }
            // The place of a slot that leaves is that of the farthest slot that may now be booked.
            for slot in self.latest + 1..=current {
                let freed = self.slot_mut(slot + AHEAD).map_or(0, std::mem::take);
                self.total = self.total.saturating_sub(freed);
            }
            self.latest = current;
        } else if self.latest - current >= RING {
            *self = Self { latest: current, ..Self::default() };
        }
    }

    /// What is charged within the window and ahead of it.
    pub const fn used(&self) -> u32 {
        self.total
    }

    /// Charges `cost` to the current slot.
    pub fn charge(&mut self, cost: u32) {
        let latest = self.latest;
        self.add(latest, cost);
    }

    /// Where what is used up to `hold` after `now` is booked: `None` when it cannot be, since it is too far ahead, or
    /// since the clock has stepped back, so that nobody could tell the slot again.
    pub fn ahead(&self, span: Span, now: Timestamp, hold: Duration) -> Option<u64> {
        let slot = span.slot(now.plus(hold));
        (span.slot(now) == self.latest && slot <= self.latest + AHEAD).then_some(slot)
    }

    /// Adds to a slot that the window covers, at most up to [`MAX_COUNT`]; says how much.
    pub fn add(&mut self, slot: u64, amount: u32) -> u32 {
        if !self.covers(slot) {
            return 0;
        }
        let Some(count) = self.slot_mut(slot) else { return 0 };
        let added = amount.min(MAX_COUNT.saturating_sub(*count));
        *count += added;
        self.total += added;
        added
    }

    /// Takes back at most `amount` from a slot, no more than it holds.
    pub fn credit(&mut self, slot: u64, amount: u32) {
        if !self.covers(slot) {
            return;
        }
        let Some(count) = self.slot_mut(slot) else { return };
        let freed = amount.min(*count);
        *count -= freed;
        self.total = self.total.saturating_sub(freed);
    }

    /// What a slot holds; nothing when the window does not cover it.
    pub fn count(&self, slot: u64) -> u32 {
        if self.covers(slot) { self.at(slot) } else { 0 }
    }

    /// The farthest slot that may be booked.
    pub const fn farthest(&self) -> u64 {
        self.latest + AHEAD
    }

    /// How long until `weight` fits under `max`, when nothing else is charged: zero when it does now, `None` when
    /// it never will.
    pub fn wait(&self, span: Span, now: Timestamp, max: u32, weight: u32) -> Option<Duration> {
        let bearable = max.checked_sub(weight)?;
        let mut left = self.total;
        if left <= bearable {
            return Some(Duration::ZERO);
        }
        for slot in self.latest.saturating_sub(SLOTS)..=self.farthest() {
            left = left.saturating_sub(self.at(slot));
            if left <= bearable {
                let free_ms = (slot + LEAVES).saturating_mul(span.slot_ms);
                return Some(Duration::from_millis(free_ms.saturating_sub(now.0)));
            }
        }
        None
    }

    fn covers(&self, slot: u64) -> bool {
        slot + SLOTS >= self.latest && slot <= self.farthest()
    }

    fn at(&self, slot: u64) -> u32 {
        self.ring.get((slot % RING) as usize).copied().unwrap_or(0)
    }

    fn slot_mut(&mut self, slot: u64) -> Option<&mut u32> {
        self.ring.get_mut((slot % RING) as usize)
    }
}
