//! What a log comes to: how many of what, how fast. Knows no limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    checker::{Outcome, tally},
    load::Log,
};

/// A log in numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Requests that passed.
    pub allowed: usize,
    /// Requests over the limit.
    pub denied: usize,
    /// Requests that were refused for another reason.
    pub unavailable: usize,
    /// Requests without an answer.
    pub lost: usize,
    /// For how long was asked.
    pub seconds: f64,
    /// The median from sending to answer, in µs.
    pub p50_us: f64,
    /// The 95th percentile of the same.
    pub p95_us: f64,
    /// The 99th.
    pub p99_us: f64,
}

impl Summary {
    /// Of a log that took `span`.
    pub fn new(log: &Log, span: Duration) -> Self {
        let [allowed, denied, unavailable, lost] = tally(&log.entries);
        let mut took: Vec<Duration> = log
            .entries
            .iter()
            .filter(|entry| entry.outcome != Outcome::Lost)
            .map(|entry| entry.answered.saturating_sub(entry.sent))
            .collect();
        took.sort_unstable();
        let at = |hundredths: usize| {
            let rank = took.len().saturating_sub(1) * hundredths / 100;
            took.get(rank).map_or(0.0, |took| took.as_secs_f64() * 1e6)
        };
        Self {
            allowed,
            denied,
            unavailable,
            lost,
            seconds: span.as_secs_f64(),
            p50_us: at(50),
            p95_us: at(95),
            p99_us: at(99),
        }
    }

    /// How many were answered, in whatever way.
    pub fn answered(&self) -> usize {
        self.allowed + self.denied + self.unavailable
    }

    /// Answers per second.
    pub fn rate(&self) -> f64 {
        // More requests than a double counts exactly would take years.
        self.answered() as f64 / self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Entry;

    #[test]
    fn a_log_in_numbers() {
        let entry = |n: u64| Entry {
            key: 0,
            sent: Duration::from_micros(n),
            answered: Duration::from_micros(2 * n),
            outcome: if n == 200 { Outcome::Lost } else { Outcome::Allowed },
        };
        let log = Log { entries: (1..=200).rev().map(entry).collect(), cut: 0 };
        let summary = Summary::new(&log, Duration::from_secs(2));
        assert_eq!((summary.allowed, summary.lost, summary.answered()), (199, 1, 199));
        assert_eq!((summary.p50_us, summary.p95_us, summary.p99_us), (100.0, 189.0, 197.0));
        assert_eq!(summary.rate(), 99.5);
    }
}
