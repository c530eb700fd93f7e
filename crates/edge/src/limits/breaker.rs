//! Whether the sidecar is worth asking: an outage must not cost every request a time-out (acceptance R14).
//! Knows no questions.

use std::time::Duration;

/// So many questions in a row without an answer open it.
const FAILURES: u32 = 5;
/// While it is open, one question in this time is asked.
const PROBE: Duration = Duration::from_millis(200);

/// Closed while answers come.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    failures: u32,
    /// When the last question was let through since it opened, by the monotonic clock.
    probed_at: Option<Duration>,
}

impl Breaker {
    /// Whether to ask now. Without a clock there is nothing to wait by: then always.
    pub(crate) fn admits(&mut self, now: Option<Duration>) -> bool {
        let (Some(probed_at), Some(now)) = (self.probed_at, now) else { return true };
        let due = now.checked_sub(probed_at).is_none_or(|since| since >= PROBE);
        if due {
            self.probed_at = Some(now);
        }
        due
    }

    /// Whether answers come, as far as is known.
    pub(crate) fn is_closed(&self) -> bool {
        self.probed_at.is_none()
    }

    /// Nobody answered a question that was asked at `asked_at`. `true` if that opened it.
    pub(crate) fn failed(&mut self, asked_at: Option<Duration>) -> bool {
        self.failures = self.failures.saturating_add(1);
        let opens = self.failures >= FAILURES && self.probed_at.is_none() && asked_at.is_some();
        if opens {
            self.probed_at = asked_at;
        }
        opens
    }

    /// Somebody answered.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Option<Duration> {
        Some(Duration::from_millis(ms))
    }

    #[test]
    fn r14_five_failures_in_a_row_open_it_and_one_answer_closes_it() {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            assert!(!breaker.failed(at(0)));
        }
        breaker.succeeded();
        for _ in 0..4 {
            assert!(!breaker.failed(at(10)));
            assert!(breaker.admits(at(10)));
        }
        assert!(breaker.failed(at(10)), "the fifth in a row");
        assert!(!breaker.failed(at(11)), "opened once");
        assert!(!breaker.admits(at(209)));
        assert!(breaker.admits(at(210)), "one probe");
        assert!(!breaker.admits(at(210)), "and no other");
        assert!(!breaker.admits(at(409)));
        assert!(breaker.admits(at(410)));
        breaker.succeeded();
        assert!(breaker.admits(at(410)) && breaker.admits(at(410)));
    }

    #[test]
    fn without_a_clock_it_stays_closed() {
        let mut breaker = Breaker::default();
        for _ in 0..9 {
            breaker.failed(None);
            assert!(breaker.admits(None));
        }
    }
}
