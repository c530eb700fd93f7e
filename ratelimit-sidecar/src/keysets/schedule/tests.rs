//! Budgets over hours, without waiting.

use super::*;

const AGES: Ages = Ages {
    refresh: Duration::from_secs(300),
    refresh_min: Duration::from_secs(60),
    refresh_max: Duration::from_secs(900),
    max_stale: Duration::from_secs(24 * 3600),
    cool_down: Duration::from_secs(30),
};

/// `steps`: (seconds, whether a key is missed, whether the fetch that is called for succeeds, what is called
/// for). A step's fetch ends at once.
fn check(steps: &[(u64, bool, bool, Next)]) {
    let (mut schedule, start) = (Schedule::new(AGES), Instant::now());
    for (index, (at_s, misses_key, succeeds, expected)) in steps.iter().enumerate() {
        let now = start + Duration::from_secs(*at_s);
        let next = schedule.next(question(now, *misses_key), now);
        assert_eq!(next, *expected, "step {index} at {at_s} s");
        if next != Next::Serve {
            schedule.begin(*misses_key, now);
            if *succeeds { schedule.succeeded(now, None) } else { schedule.failed(now, 0.5) }
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
fn j14_an_unknown_key_is_refetched_once_and_then_only_brings_a_refresh_forward() {
    check(&[
        (0, false, true, Next::Fetch),
        (1, true, true, Next::Fetch),
        (2, true, true, Next::Serve),
        (10, true, true, Next::Serve),
        (11, true, true, Next::Fetch),
        (20, true, true, Next::Serve),
        (21, true, true, Next::Fetch),
    ]);
}

#[test]
fn j14_while_an_issuer_fails_no_unknown_key_makes_anyone_wait_for_it_before_the_cool_down() {
    check(&[
        (0, false, true, Next::Fetch),
        (1, true, false, Next::Fetch),
        (12, true, false, Next::Refresh),
        (42, true, true, Next::Fetch),
    ]);
}

/// One hour of invented keys, hundreds each second.
#[test]
fn j14_random_keys_neither_exceed_the_budget_nor_starve_a_rotation() {
    let (mut schedule, start) = (Schedule::new(AGES), Instant::now());
    let (mut fetched, mut last, mut longest) = (0, start, Duration::ZERO);
    for ms in (0..3_600_000).step_by(20) {
        let now = start + Duration::from_millis(ms);
        if schedule.next(question(now, true), now) != Next::Serve {
            schedule.begin(true, now);
            schedule.succeeded(now, None);
            fetched += 1;
            longest = longest.max(now - last);
            last = now;
        }
    }
    assert!(fetched <= 361, "{fetched} in an hour");
    assert!(longest <= Duration::from_secs(11), "a new key waited for {longest:?}");
}

#[test]
fn j14_an_unknown_keys_failed_refetch_does_not_use_up_the_refreshes() {
    check(&[
        (0, false, true, Next::Fetch),
        (299, true, false, Next::Fetch),
        // The pause after a failure, 2 s.
        (300, true, false, Next::Serve),
        (301, false, false, Next::Refresh),
        // 4 s.
        (304, true, false, Next::Serve),
        (305, false, true, Next::Refresh),
    ]);
}

#[test]
fn j15_a_stale_set_serves_while_the_issuer_is_away_for_a_day_and_pauses_grow() {
    let day = 24 * 3600;
    let (mut schedule, start) = (Schedule::new(AGES), Instant::now());
    schedule.begin(false, start);
    schedule.succeeded(start, None);
    let (mut attempts, mut now) = (0, start);
    while schedule.is_usable(now) {
        now += schedule.until_due(now);
        schedule.begin(false, now);
        schedule.failed(now, f64::from(attempts % 11) / 10.0);
        attempts += 1;
    }
    assert!(now - start >= Duration::from_secs(day), "{:?}", now - start);
    let per_minute = f64::from(attempts) / (day as f64 / 60.0);
    assert!((0.8..=1.4).contains(&per_minute), "{per_minute} a minute");
    let at = |s| schedule.max_age(start + Duration::from_secs(s)).is_some();
    assert_eq!((at(0), at(day - 1), at(day)), (true, true, false));
}

#[test]
fn j15_a_pause_is_spread_by_a_quarter_each_way() {
    for (chance, expected_ms) in [(0.0, 1500), (0.5, 2000), (1.0, 2500)] {
        let (mut schedule, start) = (Schedule::new(AGES), Instant::now());
        schedule.succeeded(start, None);
        schedule.failed(start, chance);
        assert_eq!(schedule.until_due(start), Duration::from_millis(expected_ms));
    }
}

#[test]
fn j17_the_issuers_word_counts_within_bounds() {
    for (said_s, expected_s) in [(None, 300), (Some(0), 60), (Some(120), 120), (Some(90_000), 900)]
    {
        let (mut schedule, start) = (Schedule::new(AGES), Instant::now());
        schedule.succeeded(start, said_s.map(Duration::from_secs));
        let age = schedule.max_age(start).unwrap();
        assert_eq!(age, Duration::from_secs(expected_s), "{said_s:?}");
    }
}

#[test]
fn j19_an_issuer_that_was_never_there_is_asked_again_soon_and_ever_more_rarely() {
    let (mut schedule, start) = (Schedule::new(AGES), Instant::now());
    let mut now = start;
    for expected_ms in [0, 250, 500, 1000, 2000, 4000, 8000, 8000] {
        assert_eq!(schedule.until_due(now), Duration::from_millis(expected_ms));
        now += schedule.until_due(now);
        assert_eq!(schedule.next(question(now, false), now), Next::Fetch);
        schedule.begin(false, now);
        schedule.failed(now, 0.5);
        assert_eq!(schedule.next(question(now, false), now), Next::Serve);
        assert_eq!(schedule.max_age(now), None);
    }
}

#[test]
fn j18_word_of_other_keys_is_followed_at_most_once_a_second() {
    let (mut schedule, start) = (Schedule::new(AGES), Instant::now());
    let at = |ms| start + Duration::from_millis(ms);
    schedule.begin(false, start);
    // Said while the fetch was under way: it may have missed it.
    schedule.pushed(at(100));
    schedule.succeeded(start, None);
    assert_eq!(schedule.until_due(at(100)), Duration::from_millis(900));
    schedule.begin(false, at(1000));
    schedule.succeeded(at(1000), None);
    assert_eq!(schedule.until_due(at(1000)), Duration::from_secs(300));
    schedule.pushed(at(5000));
    assert_eq!(schedule.until_due(at(5000)), Duration::ZERO);
}

#[test]
fn a_set_that_came_after_the_question_is_not_fetched_again_for_it() {
    let (mut schedule, start) = (Schedule::new(AGES), Instant::now());
    let later = start + Duration::from_secs(1);
    schedule.succeeded(later, None);
    assert_eq!(schedule.next(question(start, true), later), Next::Serve);
    let after = later + Duration::from_millis(1);
    assert_eq!(schedule.next(question(after, true), after), Next::Fetch);
}

#[test]
fn whoever_lacks_something_waits_for_the_fetch_that_is_under_way() {
    let (mut schedule, start) = (Schedule::new(AGES), Instant::now());
    let joins = |schedule: &Schedule, at: Instant, misses_key| {
        schedule.next(Question { under_way: true, ..question(at, misses_key) }, at)
    };
    schedule.begin(false, start);
    assert_eq!(joins(&schedule, start, false), Next::Fetch);
    schedule.succeeded(start, None);
    let later = start + Duration::from_secs(1);
    schedule.begin(true, later);
    assert_eq!(joins(&schedule, later, true), Next::Fetch);
    assert_eq!(joins(&schedule, later, false), Next::Serve);
}
