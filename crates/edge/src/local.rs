//! The limit that a VM keeps by itself, per tenant or per client, without a call-out: the exact sliding window of
//! [`gatehouse_ratelimit::window`] over what this VM counted. Bounded: where all places are taken by windows that
//! still count, newcomers are refused, as an evicted window would be a limit that begins anew.
//! Knows no tiers, no routes and no clock.

use std::{hash::Hash, time::Duration};

use gatehouse_ratelimit::{Span, Timestamp, Window};
use hashbrown::HashMap;

/// The most windows: about 3 MiB.
const MAX_WINDOWS: usize = 8192;
/// The window of every limit that a VM keeps.
pub(crate) const SPAN: Span = Span::from_secs(60);

/// Windows by whom they count, in the order of use.
#[derive(Debug)]
pub(crate) struct LocalLimits<K> {
    places: HashMap<K, usize>,
    entries: Vec<Entry<K>>,
    /// The ends of the order, by place; equal to `entries.len()` or beyond for none.
    newest: Option<usize>,
    oldest: Option<usize>,
}

#[derive(Debug)]
struct Entry<K> {
    key: K,
    window: Window,
    charged_at: Duration,
    newer: Option<usize>,
    older: Option<usize>,
}

/// Whether a request may pass, and what a client may know of the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Local {
    pub(crate) allowed: bool,
    pub(crate) remaining: u32,
    /// Seconds until one more passes, rounded up; 0 when one does now.
    pub(crate) reset_s: u32,
}

/// No place for another window: nothing is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl<K> Default for LocalLimits<K> {
    fn default() -> Self {
        Self { places: HashMap::new(), entries: Vec::new(), newest: None, oldest: None }
    }
}

impl<K: Hash + Eq + Copy> LocalLimits<K> {
    /// Weighs `cost` for `key` against `limit` per [`SPAN`] at `now`, the time since the Unix epoch, and charges it
    /// when it passes. A key that is known costs no allocation.
    ///
    /// # Errors
    /// [`Full`].
    pub(crate) fn check(
        &mut self,
        key: K,
        limit: u32,
        cost: u32,
        now: Duration,
    ) -> Result<Local, Full> {
        self.check_within(key, (limit, cost), now, MAX_WINDOWS)
    }

    /// Charges `cost` whether it fits or not: it is known only after the fact. Where there is no place, it is lost.
    pub(crate) fn charge(&mut self, key: K, cost: u32, now: Duration) -> bool {
        if self.check(key, 0, 1, now).is_err() {
            return false;
        }
        let entry = self.places.get(&key).and_then(|place| self.entries.get_mut(*place));
        let Some(entry) = entry else { return false };
        entry.window.charge(cost);
        entry.charged_at = now;
        true
    }

    /// Seconds until one more passes for a key that has used up `limit`; charges nothing and takes no place.
    pub(crate) fn used_up(&mut self, key: K, limit: u32, now: Duration) -> Option<u32> {
        let entry = self.entries.get_mut(*self.places.get(&key)?)?;
        let at = timestamp(now);
        entry.window.advance(SPAN, at);
        let wait = entry.window.wait(SPAN, at, limit, 1);
        (entry.window.used() >= limit).then(|| wait.map_or(SPAN.seconds(), whole_seconds))
    }

    /// Whether nothing is counted for anyone.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets everything once nothing counts any more, so that [`Self::is_empty`] is true again.
    pub(crate) fn forget_the_idle(&mut self, now: Duration) {
        let idle = |entry: &Entry<K>| idle_for(entry.charged_at, now) >= SPAN.lifetime();
        if !self.entries.is_empty() && self.entries.iter().all(idle) {
            *self = Self::default();
        }
    }

    fn check_within(
        &mut self,
        key: K,
        (limit, cost): (u32, u32),
        now: Duration,
        most: usize,
    ) -> Result<Local, Full> {
        let place = match self.places.get(&key) {
            Some(place) => *place,
            None => self.admit(key, now, most)?,
        };
        self.touch(place);
        let entry = self.entries.get_mut(place).ok_or(Full)?;
        let at = timestamp(now);
        entry.window.advance(SPAN, at);
        let allowed = entry.window.used().checked_add(cost).is_some_and(|used| used <= limit);
        if allowed {
            entry.window.charge(cost);
            entry.charged_at = now;
        }
        let remaining = limit.saturating_sub(entry.window.used());
        // Whoever is denied waits for its own cost, and whoever passed learns when one more does.
        let weight = if allowed { 1 } else { cost };
        let reset_s = if remaining >= weight {
            0
        } else {
            let wait = entry.window.wait(SPAN, at, limit, weight);
            wait.map_or(SPAN.seconds(), whole_seconds)
        };
        Ok(Local { allowed, remaining, reset_s })
    }

    /// A place for a key that has none: a new one, or that of the key that was idle for longest.
    fn admit(&mut self, key: K, now: Duration, most: usize) -> Result<usize, Full> {
        let fresh =
            Entry { key, window: Window::default(), charged_at: now, newer: None, older: None };
        let place = if self.entries.len() < most {
            self.entries.push(fresh);
            self.entries.len().saturating_sub(1)
        } else {
            let place = self.oldest.ok_or(Full)?;
            let entry = self.entries.get(place).ok_or(Full)?;
            if idle_for(entry.charged_at, now) < SPAN.lifetime() {
                return Err(Full);
            }
            let evicted = entry.key;
            self.detach(place);
            self.places.remove(&evicted);
            *self.entries.get_mut(place).ok_or(Full)? = fresh;
            place
        };
        self.places.insert(key, place);
        Ok(place)
    }

    /// Makes an entry the newest.
    fn touch(&mut self, place: usize) {
        if self.newest == Some(place) {
            return;
        }
        self.detach(place);
        let before = self.newest.replace(place);
        if let Some(entry) = self.entries.get_mut(place) {
            entry.older = before;
        }
        match before.and_then(|before| self.entries.get_mut(before)) {
            Some(before) => before.newer = Some(place),
            None => self.oldest = Some(place),
        }
    }

    /// Takes an entry out of the order, if it is in there.
    fn detach(&mut self, place: usize) {
        let Some(entry) = self.entries.get_mut(place) else { return };
        let (newer, older) = (entry.newer.take(), entry.older.take());
        match newer.and_then(|newer| self.entries.get_mut(newer)) {
            Some(newer) => newer.older = older,
            None if self.newest == Some(place) => self.newest = older,
            None => {}
        }
        match older.and_then(|older| self.entries.get_mut(older)) {
            Some(older) => older.newer = newer,
            None if self.oldest == Some(place) => self.oldest = newer,
            None => {}
        }
    }
}

/// A clock that was set back says nothing of how long ago that was.
fn idle_for(charged_at: Duration, now: Duration) -> Duration {
    now.checked_sub(charged_at).unwrap_or(Duration::ZERO)
}

/// The time since the Unix epoch as windows count it.
fn timestamp(now: Duration) -> Timestamp {
    Timestamp::from_ms(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

fn whole_seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use gatehouse_contract::TenantId;

    use super::*;

    fn tenant(number: u16) -> TenantId {
        format!("0191d6b0-7c3e-7aaa-8bbb-01234567{number:04x}").parse().unwrap()
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(1_800_000_000_000 + ms)
    }

    #[test]
    fn denies_after_the_limit_and_says_when_to_return() {
        let mut limits = LocalLimits::default();
        let mut check = |ms, expected| {
            let got = limits.check(tenant(1), 2, 1, at(ms)).unwrap();
            assert_eq!((got.allowed, got.remaining, got.reset_s), expected, "at {ms} ms");
        };
        check(0, (true, 1, 0));
        check(30_000, (true, 0, 31));
        check(30_001, (false, 0, 31));
        // The nearest deny: a slot is freed at most a second late, never early.
        check(60_999, (false, 0, 1));
        check(61_000, (true, 0, 30));
        assert_eq!(
            limits.check(tenant(2), 2, 1, at(61_000)).unwrap().remaining,
            1,
            "its own window"
        );
    }

    #[test]
    fn no_window_admits_more_than_the_limit_wherever_it_begins() {
        let mut limits = LocalLimits::default();
        let mut random = 7_u64;
        let mut passed: Vec<u64> = Vec::new();
        let mut ms = 0;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ms += random >> 53;
            if limits.check(tenant(1), 25, 1, at(ms)).unwrap().allowed {
                passed.push(ms);
            }
        }
        for window in passed.windows(26) {
            assert!(window[25] - window[0] > 60_000, "{window:?}");
        }
        assert!(passed.len() > 20_000 * 1024 / 62_000 * 20, "{}", passed.len());
    }

    #[test]
    fn a_limit_of_none_blocks() {
        let got = LocalLimits::default().check(tenant(1), 0, 1, at(0)).unwrap();
        assert_eq!((got.allowed, got.remaining, got.reset_s), (false, 0, 60));
    }

    #[test]
    fn r24_a_cost_is_charged_whole_or_not_at_all() {
        let mut limits = LocalLimits::default();
        let mut check = |cost, expected| {
            let got = limits.check(tenant(1), 5, cost, at(0)).unwrap();
            assert_eq!((got.allowed, got.remaining, got.reset_s), expected, "{cost}");
        };
        check(3, (true, 2, 0));
        check(3, (false, 2, 61));
        check(2, (true, 0, 61));
        check(1, (false, 0, 61));
        assert_eq!(limits.used_up(tenant(1), 5, at(0)), Some(61));
        assert_eq!(limits.used_up(tenant(1), 6, at(0)), None);
        assert_eq!(limits.used_up(tenant(1), 5, at(61_000)), None);
        assert_eq!(limits.used_up(tenant(2), 0, at(0)), None, "takes no place");
        assert!(limits.charge(tenant(1), 9, at(61_000)), "what is known afterwards");
        assert_eq!(limits.used_up(tenant(1), 9, at(61_000)), Some(61));
    }

    #[test]
    fn what_is_idle_is_forgotten_all_at_once() {
        let mut limits = LocalLimits::default();
        assert!(limits.check(tenant(1), 5, 1, at(0)).unwrap().allowed);
        limits.forget_the_idle(at(30_000));
        assert!(!limits.is_empty());
        limits.forget_the_idle(at(200_000));
        assert!(limits.is_empty());
    }

    #[test]
    fn tenants_are_bounded_and_a_live_window_is_never_evicted() {
        let mut limits = LocalLimits::default();
        let mut check = |number, ms, expected: Option<u32>| {
            let got = limits.check_within(tenant(number), (9, 1), at(ms), 3);
            assert_eq!(got.ok().map(|got| got.remaining), expected, "tenant {number} at {ms} ms");
            let LocalLimits { places, entries, .. } = &limits;
            assert!(entries.len() <= 3 && places.len() == entries.len());
        };
        for number in 1..=3 {
            check(number, 0, Some(8));
        }
        check(4, 1000, None);
        check(1, 30_000, Some(7));
        // 2 and 3 are dead now, 1 is not: the idlest go first.
        check(4, 65_000, Some(8));
        check(5, 65_000, Some(8));
        check(6, 65_000, None);
        check(1, 65_000, Some(7));
        check(4, 65_000, Some(7));
        check(5, 65_000, Some(7));
    }

    #[test]
    fn j40_a_clock_that_jumps_neither_traps_nor_blocks_for_ever() {
        let hour = 3_600_000;
        let mut limits = LocalLimits::default();
        for ms in [hour, 2 * hour, 0, hour] {
            let got = limits.check_within(tenant(1), (1, 1), at(ms), 1).unwrap();
            assert!(got.allowed, "at {ms} ms");
            assert!(!limits.check_within(tenant(1), (1, 1), at(ms), 1).unwrap().allowed);
        }
        assert_eq!(limits.check_within(tenant(2), (1, 1), at(0), 1), Err(Full));
    }
}
