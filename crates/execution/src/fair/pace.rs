//! How deep a stream is kept: what the workers take from it in about two seconds. What is offered cannot be put into
//! another order any more, so that less is better; with nothing left in it workers would wait for the feeder.

use std::time::Duration;

/// The depth, as time.
const DEPTH: Duration = Duration::from_secs(2);
/// However slowly it is drained.
const SHALLOWEST: u32 = 16;
/// However fast.
const DEEPEST: u32 = 1024;
/// What is measured over less says little.
const SHORTEST: Duration = Duration::from_millis(50);

/// The places of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// How many may be added.
    pub free: u32,
    /// Whether there is nothing in it.
    pub empty: bool,
}

/// How fast one stream is drained, as it was seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    seen: Option<(Duration, u32)>,
    pushed: u32,
    /// Messages per 1000 s.
    rate: u64,
}

impl Pace {
    /// The room where the stream holds `depth` messages now.
    pub fn room(&mut self, now: Duration, depth: u32) -> Room {
        match self.seen {
            None => self.seen = Some((now, depth)),
            Some((at, before)) => {
                let passed = now.saturating_sub(at);
                if passed >= SHORTEST {
                    let drained = before.saturating_add(self.pushed).saturating_sub(depth);
                    let passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
                    let rate = u64::from(drained).saturating_mul(1_000_000) / passed_ms;
                    // Faster is believed at once, slower by a quarter each time: a stream that ran dry says nothing.
                    self.rate = if rate > self.rate { rate } else { (self.rate * 3 + rate) / 4 };
                    (self.seen, self.pushed) = (Some((now, depth)), 0);
                }
            }
        }
        Room { free: self.deepest().saturating_sub(depth), empty: depth == 0 }
    }

    /// So many were added.
    pub fn pushed(&mut self, messages: u32) {
        self.pushed = self.pushed.saturating_add(messages);
    }

    /// How deep it may be.
    fn deepest(&self) -> u32 {
        let deep = self.rate.saturating_mul(DEPTH.as_secs()) / 1000;
        u32::try_from(deep).unwrap_or(DEEPEST).clamp(SHALLOWEST, DEEPEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drains as fast as `per_s` says for ten seconds, filling up each 100 ms; returns how deep it is kept then.
    fn check(per_s: u32, expected: u32) {
        let (mut pace, mut depth) = (Pace::default(), 0_u32);
        for tick in 0..100_u64 {
            let room = pace.room(Duration::from_millis(tick * 100), depth);
            assert_eq!(room.empty, depth == 0);
            depth += room.free;
            pace.pushed(room.free);
            assert!(depth <= DEEPEST, "{depth}");
            depth = depth.saturating_sub(per_s / 10);
        }
        assert_eq!(pace.deepest(), expected, "{per_s} a second");
    }

    #[test]
    fn a_stream_is_kept_two_seconds_deep_within_bounds() {
        check(0, SHALLOWEST);
        check(10, 20);
        check(100, 200);
        check(400, 800);
        check(100_000, DEEPEST);
    }

    #[test]
    fn a_stream_that_is_drained_no_more_becomes_shallow() {
        let mut pace = Pace::default();
        pace.room(Duration::ZERO, 0);
        pace.pushed(500);
        assert_eq!(pace.room(Duration::from_secs(1), 0).free, 1000);
        for second in 2..40 {
            pace.room(Duration::from_secs(second), 0);
        }
        assert_eq!(pace.room(Duration::from_secs(40), 0).free, SHALLOWEST);
        // A clock that goes back, and depths that nobody pushed.
        assert_eq!(pace.room(Duration::from_secs(3), u32::MAX).free, 0);
    }
}
