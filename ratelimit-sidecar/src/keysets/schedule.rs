//! When an issuer may be asked for its keys. Budgets of their own: refreshes by age, with a growing pause after
//! failures; refetches because a token names a key that is not in the set, one per cool-down; and refreshes that
//! such tokens bring forward, so that whoever spends the second budget on invented keys does not keep a real new
//! key waiting. None can be used up to starve another, and all together are bounded.
//! Knows no key; time and chance come by argument.

use std::time::Duration;

use tokio::time::Instant;

/// A refresh that a missing key brings forward comes this long after the last attempt.
const FORWARD: Duration = Duration::from_secs(10);
/// After the word that an issuer published other keys, it is asked this long after the last attempt.
const PUSHED: Duration = Duration::from_secs(1);
/// The pauses after failures: the first, and the longest. Shorter while there is nothing to serve.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
const PAUSE_COLD: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));
/// Filters are told to keep a set at least this long.
const KEEP: Duration = Duration::from_secs(2);

/// How old a set may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// Refreshed after this long, when the issuer does not say.
    pub refresh: Duration,
    /// What the issuer says counts within these.
    pub refresh_min: Duration,
    pub refresh_max: Duration,
    /// While refreshes fail, served for this long.
    pub max_stale: Duration,
    /// Between two refetches for unknown keys (acceptance J14).
    pub cool_down: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Answer with what is there.
    Serve,
    /// Answer with what is there, and fetch meanwhile.
    Refresh,
    /// Fetch, then answer.
    Fetch,
}

/// Someone wants an issuer's keys.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// When it came.
    pub asked: Instant,
    /// It names a key that is not in the set, and not known to be at the issuer neither.
    pub misses_key: bool,
    /// A fetch is under way.
    pub under_way: bool,
}

#[derive(Debug)]
pub struct Schedule {
    ages: Ages,
    /// When the fetch began that brought the set.
    fetched: Option<Instant>,
    attempted: Option<Instant>,
    by_unknown_key: Option<Instant>,
    /// When the issuer was said to have other keys.
    pushed: Option<Instant>,
    /// Since the last success.
    failures: u32,
    /// When the next refresh by age is due; at once without one.
    due: Option<Instant>,
}

impl Schedule {
    pub fn new(ages: Ages) -> Self {
        Self {
            ages,
            fetched: None,
            attempted: None,
            by_unknown_key: None,
            pushed: None,
            failures: 0,
            due: None,
        }
    }

    /// What a question calls for at `now`. Whoever is told to fetch while a fetch is under way waits for that one
    /// and asks again.
    pub fn next(&self, question: Question, now: Instant) -> Next {
        let Question { asked, misses_key, under_way } = question;
        let rested = |since: Option<Instant>, pause: Duration| {
            since.is_none_or(|since| now.saturating_duration_since(since) >= pause)
        };
        let due = self.due.is_none_or(|due| now >= due);
        let Some(fetched) = self.fetched.filter(|_| self.is_usable(now)) else {
            return if due || under_way { Next::Fetch } else { Next::Serve };
        };
        if misses_key && fetched < asked {
            let cool = rested(self.by_unknown_key, self.ages.cool_down);
            let forward = !self.is_failing() && rested(self.attempted, FORWARD);
            if under_way || cool || forward {
                return Next::Fetch;
            }
        }
        if due { Next::Refresh } else { Next::Serve }
    }

    /// An attempt begins; it counts whatever comes of it.
    pub fn begin(&mut self, for_unknown_key: bool, now: Instant) {
        self.attempted = Some(now);
        if for_unknown_key {
            self.by_unknown_key = Some(now);
        }
    }

    /// The attempt that began at `begun` brought a set, which the issuer calls fresh for `fresh`.
    pub fn succeeded(&mut self, begun: Instant, fresh: Option<Duration>) {
        let Ages { refresh, refresh_min, refresh_max, .. } = self.ages;
        let fresh = fresh.map_or(refresh, |fresh| fresh.clamp(refresh_min, refresh_max));
        self.fetched = Some(begun);
        self.failures = 0;
        self.due = Some(begun + fresh);
        // What was said after the fetch began may not be in it.
        match self.pushed {
            Some(pushed) if pushed > begun => self.bring_forward(begun + PUSHED),
            _ => self.pushed = None,
        }
    }

    /// The attempt failed at `now`. `chance` spreads many sidecars' next ones: from 0 to 1.
    pub fn failed(&mut self, now: Instant, chance: f64) {
        let (first, longest) = if self.is_usable(now) { PAUSE } else { PAUSE_COLD };
        let pause = first.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now + pause.mul_f64(0.75 + chance.clamp(0.0, 1.0) / 2.0));
    }

    /// The issuer was said to have other keys.
    pub fn pushed(&mut self, now: Instant) {
        self.pushed = Some(now);
        let rested = self.attempted.map_or(now, |attempted| attempted + PUSHED);
        self.bring_forward(rested.max(now));
    }

    fn bring_forward(&mut self, due: Instant) {
        self.due = self.due.map(|other| other.min(due));
    }

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Whether there is a set, and not too old a one.
    pub fn is_usable(&self, now: Instant) -> bool {
        let young = |at: Instant| now.saturating_duration_since(at) < self.ages.max_stale;
        self.fetched.is_some_and(young)
    }

    /// Whether the set came by a fetch that began at `asked` or later.
    pub fn is_newer_than(&self, asked: Instant) -> bool {
        self.fetched.is_some_and(|fetched| fetched >= asked)
    }

    /// How long until a refresh is due by itself.
    pub fn until_due(&self, now: Instant) -> Duration {
        self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
    }

    /// For how long filters may use the set without asking again. None when there is no set that may be used.
    pub fn max_age(&self, now: Instant) -> Option<Duration> {
        self.is_usable(now).then(|| self.until_due(now).max(KEEP))
    }
}

#[cfg(test)]
mod tests;
