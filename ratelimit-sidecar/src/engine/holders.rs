//! Which VMs asked lately: among them this sidecar's share of a limit is divided for the time when it is away.
//! Bounded. Knows no lease.

use std::{collections::HashMap, time::Duration};

/// A VM that did not ask for longer is gone: it asks on every tick while it has leases.
const LATELY: Duration = Duration::from_secs(2);
const HOLDERS: usize = 1024;

#[derive(Debug, Default)]
pub struct Holders {
    seen: HashMap<String, Duration>,
    swept: Duration,
}

impl Holders {
    /// Notes that one asks; how many do, at least 1.
    pub fn seen(&mut self, holder: &str, now: Duration) -> u32 {
        if let Some(at) = self.seen.get_mut(holder) {
            *at = now;
        } else if self.seen.len() < HOLDERS {
            self.seen.insert(holder.to_owned(), now);
        }
        if now.saturating_sub(self.swept) >= LATELY / 4 {
            self.swept = now;
            self.seen.retain(|_, at| now.saturating_sub(*at) < LATELY);
        }
        u32::try_from(self.seen.len()).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_asked_within_two_seconds_count() {
        let mut holders = Holders::default();
        for (at_ms, who, expected) in [
            (0, "a", 1),
            (500, "b", 2),
            (600, "a", 2),
            (2499, "a", 2),
            (2999, "a", 1),
            (3000, "c", 2),
        ] {
            assert_eq!(holders.seen(who, Duration::from_millis(at_ms)), expected, "{at_ms} ms");
        }
    }

    #[test]
    fn their_number_is_bounded() {
        let mut holders = Holders::default();
        for n in 0..2 * HOLDERS {
            holders.seen(&n.to_string(), Duration::ZERO);
        }
        assert_eq!(holders.seen.len(), HOLDERS);
    }
}
