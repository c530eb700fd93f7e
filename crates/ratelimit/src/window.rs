//! A sliding window in sub-buckets: what was charged in each of the last 60 slots and the current one.
//! Never more than the limit in any window, wherever it begins; a charge is freed at most one slot late.
//! Knows no limit's name and no key.

use std::time::Duration;

/// Slots per window. More make freeing finer and the record longer; at 60 s a slot is a second.
pub const SLOTS: u64 = 60;

/// The current slot and the [`SLOTS`] before it: a window that begins within the oldest one is covered whole.
const RING: u64 = SLOTS + 1;
const RING_LEN: usize = RING as usize;

/// A moment: milliseconds since the Unix epoch, by the store's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

/// A window's length, divided into slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

    /// For how long a record means anything after its last charge.
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
        let current = now.0 / span.slot_ms;
        if current >= self.latest {
            let left_behind = current - self.latest;
            if left_behind >= RING {
                *self = Self { latest: current, ..Self::default() };
                return;
            }
            for slot in self.latest + 1..=current {
                let freed = self.slot_mut(slot).map_or(0, std::mem::take);
                self.total = self.total.saturating_sub(freed);
            }
            self.latest = current;
        } else if self.latest - current >= RING {
            *self = Self { latest: current, ..Self::default() };
        }
    }

    /// What is charged within the window.
    pub const fn used(&self) -> u32 {
        self.total
    }

    /// Charges `cost` to the current slot.
    pub fn charge(&mut self, cost: u32) {
        let latest = self.latest;
        if let Some(slot) = self.slot_mut(latest) {
            *slot = slot.saturating_add(cost);
        }
        self.total = self.total.saturating_add(cost);
    }

    /// How long until `weight` fits under `max`, when nothing else is charged: zero when it does now, `None` when
    /// it never will.
    pub fn wait(&self, span: Span, now: Timestamp, max: u32, weight: u32) -> Option<Duration> {
        let bearable = max.checked_sub(weight)?;
        let mut left = self.total;
        if left <= bearable {
            return Some(Duration::ZERO);
        }
        for slot in self.latest.saturating_sub(SLOTS)..=self.latest {
            left = left.saturating_sub(self.slot(slot));
            if left <= bearable {
                let free_ms = (slot + RING).saturating_mul(span.slot_ms);
                return Some(Duration::from_millis(free_ms.saturating_sub(now.0)));
            }
        }
        None
    }

    fn slot(&self, slot: u64) -> u32 {
        self.ring.get((slot % RING) as usize).copied().unwrap_or(0)
    }

    fn slot_mut(&mut self, slot: u64) -> Option<&mut u32> {
        self.ring.get_mut((slot % RING) as usize)
    }
}
