//! When an issuer may be asked for its keys. Two budgets: refreshes by age, and refetches because a token names a
//! key that is not in the set; the second cannot be used up to starve the first, nor to hammer the issuer.
//! Knows no key; time comes by argument.

use std::time::Duration;

use tokio::time::Instant;

/// A set is served without a refresh for this long.
const FRESH: Duration = Duration::from_secs(300);
/// While refreshes fail, a set is served for this long, and then no more.
const MAX_STALE: Duration = Duration::from_secs(24 * 3600);
/// After an attempt, the next by age is at least this much later.
const RETRY: Duration = Duration::from_secs(2);
/// Between two refetches for unknown keys (acceptance J13).
const UNKNOWN_KEY_COOLDOWN: Duration = Duration::from_secs(30);

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
    /// It names a key that is not in the set.
    pub misses_key: bool,
    /// A fetch is under way.
    pub under_way: bool,
}

#[derive(Debug, Default)]
pub struct Schedule {
    fetched: Option<Instant>,
    by_age: Option<Instant>,
    by_unknown_key: Option<Instant>,
}

impl Schedule {
    /// What a question calls for at `now`. Whoever is told to fetch while a fetch is under way waits for that one
    /// and asks again.
    pub fn next(&self, question: Question, now: Instant) -> Next {
        let Question { asked, misses_key, under_way } = question;
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let rested = since(self.by_age).is_none_or(|since| since >= RETRY);
        let Some(fetched) = self.fetched else {
            return if rested || under_way { Next::Fetch } else { Next::Serve };
        };
        let cool = since(self.by_unknown_key).is_none_or(|since| since >= UNKNOWN_KEY_COOLDOWN);
        if misses_key && fetched < asked && (cool || under_way) {
            return Next::Fetch;
        }
        let age = now.saturating_duration_since(fetched);
        match rested {
            true if age >= MAX_STALE => Next::Fetch,
            true if age >= FRESH => Next::Refresh,
            _ => Next::Serve,
        }
    }

    /// An attempt begins; it counts whatever comes of it.
    pub fn begin(&mut self, for_unknown_key: bool, now: Instant) {
        if for_unknown_key {
            self.by_unknown_key = Some(now);
        } else {
            self.by_age = Some(now);
        }
    }

    /// The attempt that began at `begun` brought a set.
    pub fn succeeded(&mut self, begun: Instant) {
        self.fetched = Some(begun);
    }

    /// For how long the set may be used without asking us again: until its refresh is due, at least for `RETRY`.
    /// None when there is no set that may be used.
    pub fn max_age(&self, now: Instant) -> Option<Duration> {
        let age = now.saturating_duration_since(self.fetched?);
        (age < MAX_STALE).then(|| FRESH.saturating_sub(age).max(RETRY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `steps`: (seconds, whether a key is missed, whether the fetch that is called for succeeds, what is called
    /// for). A step's fetch ends at once.
    fn check(steps: &[(u64, bool, bool, Next)]) {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        for (index, (at_s, misses_key, succeeds, expected)) in steps.iter().enumerate() {
            let now = start + Duration::from_secs(*at_s);
            let next = schedule.next(question(now, *misses_key), now);
            assert_eq!(next, *expected, "step {index} at {at_s} s");
            if next != Next::Serve {
                schedule.begin(*misses_key, now);
                if *succeeds {
                    schedule.succeeded(now);
                }
            }
        }
    }

    fn question(asked: Instant, misses_key: bool) -> Question {
        Question { asked, misses_key, under_way: false }
    }

    #[test]
    fn a_set_is_fetched_once_and_refreshed_by_age_while_it_serves() {
        check(&[
            (0, false, true, Next::Fetch),
            (1, false, true, Next::Serve),
            (299, false, true, Next::Serve),
            (300, false, true, Next::Refresh),
            (301, false, true, Next::Serve),
        ]);
    }

    #[test]
    fn an_unknown_key_is_refetched_once_within_its_cool_down() {
        check(&[
            (0, false, true, Next::Fetch),
            (1, true, true, Next::Fetch),
            (2, true, true, Next::Serve),
            (30, true, true, Next::Serve),
            (31, true, true, Next::Fetch),
            (32, true, false, Next::Serve),
        ]);
    }

    #[test]
    fn a_failed_refetch_uses_its_budget_up_but_not_that_of_refreshes() {
        check(&[
            (0, false, true, Next::Fetch),
            (299, true, false, Next::Fetch),
            (300, true, true, Next::Refresh),
        ]);
    }

    #[test]
    fn a_stale_set_serves_while_the_issuer_is_away_for_a_day() {
        let day = 24 * 3600;
        check(&[
            (0, false, true, Next::Fetch),
            (300, false, false, Next::Refresh),
            (301, false, false, Next::Serve),
            (302, false, false, Next::Refresh),
            (day - 1, false, false, Next::Refresh),
            (day + 9, false, false, Next::Fetch),
            (day + 10, false, false, Next::Serve),
        ]);
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.succeeded(start);
        let at = |s| schedule.max_age(start + Duration::from_secs(s)).map(|age| age.as_secs());
        assert_eq!((at(0), at(100), at(400), at(day)), (Some(300), Some(200), Some(2), None));
    }

    #[test]
    fn an_issuer_that_was_never_there_is_asked_every_other_second() {
        check(&[
            (0, false, false, Next::Fetch),
            (1, false, false, Next::Serve),
            (2, false, true, Next::Fetch),
        ]);
    }

    #[test]
    fn a_set_that_came_after_the_question_is_not_fetched_again_for_it() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        let later = start + Duration::from_secs(1);
        schedule.succeeded(later);
        assert_eq!(schedule.next(question(start, true), later), Next::Serve);
        let after = later + Duration::from_millis(1);
        assert_eq!(schedule.next(question(after, true), after), Next::Fetch);
    }

    #[test]
    fn whoever_lacks_something_waits_for_the_fetch_that_is_under_way() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        let joins = |schedule: &Schedule, at: Instant, misses_key| {
            schedule.next(Question { under_way: true, ..question(at, misses_key) }, at)
        };
        schedule.begin(false, start);
        assert_eq!(joins(&schedule, start, false), Next::Fetch);
        schedule.succeeded(start);
        let later = start + Duration::from_secs(1);
        schedule.begin(true, later);
        assert_eq!(joins(&schedule, later, true), Next::Fetch);
        assert_eq!(joins(&schedule, later, false), Next::Serve);
    }
}
