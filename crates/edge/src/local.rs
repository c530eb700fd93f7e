//! The limit that a VM keeps by itself, per tenant, without a call-out: the exact sliding window of
//! [`gatehouse_ratelimit::window`] over what this VM let pass. Bounded: where all places are taken by windows that
//! still count, newcomers are refused, as an evicted window would be a limit that begins anew.
//! Knows no tiers, no routes and no clock.

use std::time::Duration;

use gatehouse_contract::TenantId;
use gatehouse_ratelimit::{Span, Timestamp, Window};
use hashbrown::HashMap;

/// The most tenants: about 3 MiB.
const MAX_TENANTS: usize = 8192;
const SPAN: Span = Span::from_secs(60);

/// Windows by tenant, in the order of use.
#[derive(Debug, Default)]
pub(crate) struct LocalLimits {
    places: HashMap<TenantId, usize>,
    entries: Vec<Entry>,
    /// The ends of the order, by place; equal to `entries.len()` or beyond for none.
    newest: Option<usize>,
    oldest: Option<usize>,
}

#[derive(Debug)]
struct Entry {
    tenant: TenantId,
    window: Window,
    charged_at: Duration,
    newer: Option<usize>,
    older: Option<usize>,
}

/// Whether a request may pass, and what a client may know of the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Local {
    pub(crate) allowed: bool,
    pub(crate) limit: u32,
    pub(crate) window_s: u32,
    pub(crate) remaining: u32,
    /// Seconds until one more passes, rounded up; 0 when one does now.
    pub(crate) reset_s: u32,
}

/// No place for another tenant: nothing is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl LocalLimits {
    /// Weighs one request of `tenant` against `per_minute` at `now`, the time since the Unix epoch, and charges it
    /// when it passes. A tenant that is known costs no allocation.
    ///
    /// # Errors
    /// [`Full`].
    pub(crate) fn check(
        &mut self,
        tenant: TenantId,
        per_minute: u32,
        now: Duration,
    ) -> Result<Local, Full> {
        self.check_within(tenant, per_minute, now, MAX_TENANTS)
    }

    fn check_within(
        &mut self,
        tenant: TenantId,
        per_minute: u32,
        now: Duration,
        most: usize,
    ) -> Result<Local, Full> {
        let place = match self.places.get(&tenant) {
            Some(place) => *place,
            None => self.admit(tenant, now, most)?,
        };
        self.touch(place);
        let entry = self.entries.get_mut(place).ok_or(Full)?;
        let at = Timestamp::from_ms(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        entry.window.advance(SPAN, at);
        let allowed = entry.window.used() < per_minute;
        if allowed {
            entry.window.charge(1);
            entry.charged_at = now;
        }
        let remaining = per_minute.saturating_sub(entry.window.used());
        let reset_s = if remaining > 0 {
            0
        } else {
            let wait = entry.window.wait(SPAN, at, per_minute, 1);
            wait.map_or(SPAN.seconds(), whole_seconds)
        };
        Ok(Local { allowed, limit: per_minute, window_s: SPAN.seconds(), remaining, reset_s })
    }

    /// A place for a tenant that has none: a new one, or that of the tenant that was idle for longest.
    fn admit(&mut self, tenant: TenantId, now: Duration, most: usize) -> Result<usize, Full> {
        let fresh =
            Entry { tenant, window: Window::default(), charged_at: now, newer: None, older: None };
        let place = if self.entries.len() < most {
            self.entries.push(fresh);
            self.entries.len().saturating_sub(1)
        } else {
            let place = self.oldest.ok_or(Full)?;
            let entry = self.entries.get(place).ok_or(Full)?;
            // A clock that was set back says nothing of how long ago that was.
            let idle_for = now.checked_sub(entry.charged_at).unwrap_or(Duration::ZERO);
            if idle_for < SPAN.lifetime() {
                return Err(Full);
            }
            let evicted = entry.tenant;
            self.detach(place);
            self.places.remove(&evicted);
            *self.entries.get_mut(place).ok_or(Full)? = fresh;
            place
        };
        self.places.insert(tenant, place);
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

fn whole_seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
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
            let got = limits.check(tenant(1), 2, at(ms)).unwrap();
            assert_eq!((got.allowed, got.remaining, got.reset_s), expected, "at {ms} ms");
        };
        check(0, (true, 1, 0));
        check(30_000, (true, 0, 31));
        check(30_001, (false, 0, 31));
        // The nearest deny: a slot is freed at most a second late, never early.
        check(60_999, (false, 0, 1));
        check(61_000, (true, 0, 30));
        assert_eq!(limits.check(tenant(2), 2, at(61_000)).unwrap().remaining, 1, "its own window");
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
            if limits.check(tenant(1), 25, at(ms)).unwrap().allowed {
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
        let got = LocalLimits::default().check(tenant(1), 0, at(0)).unwrap();
        assert_eq!((got.allowed, got.remaining, got.reset_s), (false, 0, 60));
    }

    #[test]
    fn tenants_are_bounded_and_a_live_window_is_never_evicted() {
        let mut limits = LocalLimits::default();
        let mut check = |number, ms, expected: Option<u32>| {
            let got = limits.check_within(tenant(number), 9, at(ms), 3);
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
        check(4, 62_000, Some(8));
        check(5, 62_000, Some(8));
        check(6, 62_000, None);
        check(1, 62_000, Some(7));
        check(4, 62_000, Some(7));
        check(5, 62_000, Some(7));
    }

    #[test]
    fn j40_a_clock_that_jumps_neither_traps_nor_blocks_for_ever() {
        let hour = 3_600_000;
        let mut limits = LocalLimits::default();
        for ms in [hour, 2 * hour, 0, hour] {
            let got = limits.check_within(tenant(1), 1, at(ms), 1).unwrap();
            assert!(got.allowed, "at {ms} ms");
            assert!(!limits.check_within(tenant(1), 1, at(ms), 1).unwrap().allowed);
        }
        assert_eq!(limits.check_within(tenant(2), 1, at(0), 1), Err(Full));
    }
}
