//! The checker of rate limits: reads the clients' log and says whether any window held more than it may.
//!
//! A window is broken when more requests than the limit were allowed that have both their sending and their answer
//! inside it: whenever the limiter decided, it was between the two, so that no clock but the clients' own is needed
//! and no honest limiter is accused. All windows are looked at, not only those of a grid.
//! Pure: knows neither sockets nor clocks, and nothing of how the product counts.

use std::{fmt, time::Duration};

#[cfg(test)]
mod tests;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It passed.
    Allowed,
    /// It was over the limit.
    Denied,
    /// It was refused for another reason than its limit, such as a limiter that is away.
    Unavailable,
    /// Nobody answered it.
    Lost,
}

/// One line of the clients' log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Whose limit: keys have nothing to do with each other.
    pub key: u32,
    /// When it was sent, since the log began, by the one clock of all clients.
    pub sent: Duration,
    /// When its answer was there, by the same clock.
    pub answered: Duration,
    /// What the answer was.
    pub outcome: Outcome,
}

/// The fullest window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fullest {
    /// How many allowed requests were sent and answered within it.
    pub allowed: u32,
    /// When it begins.
    pub begin: Duration,
}

/// What is promised of every key.
#[derive(Debug, Clone)]
pub struct Promise {
    /// The length of a window.
    pub window: Duration,
    /// What a window may hold.
    pub limit: u32,
    /// What a window may hold beyond it when it contains a switch to local counting or back.
    pub shares: u32,
    /// When such a switch happened, from and to, in order and apart from each other.
    pub switches: Vec<(Duration, Duration)>,
}

/// A promise that was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// A window held more than it may.
    Window {
        /// Whose.
        key: u32,
        /// What it held.
        fullest: Fullest,
        /// What it may hold.
        most: u32,
    },
    /// A request got no answer.
    Unanswered {
        /// Whose.
        key: u32,
        /// When it was sent.
        sent: Duration,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window { key, fullest, most } => write!(
                f,
                "key {key}: {} allowed in the window from {:?}, at most {most} may be",
                fullest.allowed, fullest.begin
            ),
            Self::Unanswered { key, sent } => {
                write!(f, "key {key}: no answer to the request of {sent:?}")
            }
        }
    }
}

impl Promise {
    /// The plain one: no window ever holds more than the limit.
    pub fn strict(window: Duration, limit: u32) -> Self {
        Self { window, limit, shares: 0, switches: Vec::new() }
    }

    /// Whatever is broken, at most one window per key and stretch between switches.
    pub fn broken(&self, log: &[Entry]) -> Vec<Broken> {
        let mut broken: Vec<Broken> = log
            .iter()
            .filter(|entry| entry.outcome == Outcome::Lost)
            .map(|entry| Broken::Unanswered { key: entry.key, sent: entry.sent })
            .collect();
        let mut keys: Vec<u32> = log.iter().map(|entry| entry.key).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let own: Vec<Entry> = log.iter().filter(|entry| entry.key == key).copied().collect();
            let mut judge = |entries: &[Entry], most: u32| {
                let fullest = fullest(entries, self.window);
                if fullest.allowed > most {
                    broken.push(Broken::Window { key, fullest, most });
                }
            };
            if !self.switches.is_empty() {
                judge(&own, self.limit.saturating_add(self.shares));
            }
            // A window without a switch lies in a stretch between two of them, and so does all that it counts.
            for (from, to) in self.stretches() {
                let within = |entry: &&Entry| from <= entry.sent && entry.answered <= to;
                let stretch: Vec<Entry> = own.iter().filter(within).copied().collect();
                // A stretch that is shorter than a window is no window without a switch.
                if to.saturating_sub(from) >= self.window {
                    judge(&stretch, self.limit);
                }
            }
        }
        broken
    }

    fn stretches(&self) -> Vec<(Duration, Duration)> {
        let mut from = Duration::ZERO;
        let mut stretches = Vec::new();
        for (begin, end) in &self.switches {
            stretches.push((from, *begin));
            from = *end;
        }
        stretches.push((from, Duration::MAX));
        stretches
    }
}

/// The fullest window of `log`, whatever its keys: from `begin` on, up to but without `begin + window`.
///
/// A window may begin where an allowed request was sent: moved there from the left it loses nothing.
pub fn fullest(log: &[Entry], window: Duration) -> Fullest {
    let mut allowed: Vec<&Entry> =
        log.iter().filter(|entry| entry.outcome == Outcome::Allowed).collect();
    let mut answers: Vec<Duration> = allowed.iter().map(|entry| entry.answered).collect();
    answers.sort_unstable();
    // From the last sending to the first: those seen so far were sent within or after the window.
    allowed.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.sent));
    let mut seen = Counts::new(answers.len());
    let mut fullest = Fullest::default();
    let mut rest = allowed.as_slice();
    while let Some(first) = rest.first() {
        let begin = first.sent;
        let together = rest.iter().take_while(|entry| entry.sent == begin).count();
        let (now, later) = rest.split_at(together);
        for entry in now {
            seen.add(answers.partition_point(|answer| *answer < entry.answered));
        }
        let end = begin.saturating_add(window);
        let within = seen.below(answers.partition_point(|answer| *answer < end));
        if within >= fullest.allowed {
            fullest = Fullest { allowed: within, begin };
        }
        rest = later;
    }
    fullest
}

/// How many lines there are of each outcome: allowed, denied, unavailable, lost.
pub fn tally(log: &[Entry]) -> [usize; 4] {
    [Outcome::Allowed, Outcome::Denied, Outcome::Unavailable, Outcome::Lost]
        .map(|outcome| log.iter().filter(|entry| entry.outcome == outcome).count())
}

/// Counts by rank, with sums of the lowest ranks in logarithmic time (a Fenwick tree).
struct Counts(Vec<u32>);

impl Counts {
    fn new(ranks: usize) -> Self {
        Self(vec![0; ranks + 1])
    }

    fn add(&mut self, rank: usize) {
        let mut at = rank + 1;
        while let Some(count) = self.0.get_mut(at) {
            *count += 1;
            at += at & at.wrapping_neg();
        }
    }

    /// Of the ranks below `ranks`.
    fn below(&self, ranks: usize) -> u32 {
        let (mut at, mut sum) = (ranks, 0);
        while at > 0 {
            sum += self.0.get(at).copied().unwrap_or(0);
            at &= at - 1;
        }
        sum
    }
}
