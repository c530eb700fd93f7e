//! The checker against windows that are broken on purpose, and against counting every window by hand.

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// `count` allowed requests of key 1, 1 ms apart from `from` on, each answered after `took`.
fn burst(from: u64, count: u32, took: u64) -> Vec<Entry> {
    let entry = |n: u32| {
        let sent = ms(from + u64::from(n));
        Entry { key: 1, sent, answered: sent + ms(took), outcome: Outcome::Allowed }
    };
    (0..count).map(entry).collect()
}

fn verdict(promise: &Promise, log: &[Entry]) -> Vec<String> {
    promise.broken(log).iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(limit: u32, bursts: &[(u64, u32)], expected: u32) {
    let log: Vec<Entry> = bursts.iter().flat_map(|(from, n)| burst(*from, *n, 1)).collect();
    assert_eq!(fullest(&log, ms(1000)).allowed, expected, "{bursts:?}");
    let broken = Promise::strict(ms(1000), limit).broken(&log);
    assert_eq!(broken.is_empty(), expected <= limit, "{bursts:?}: {broken:?}");
}

#[test]
fn what_a_fixed_window_admits_around_its_edge_is_found() {
    // The fault of every fixed window: a whole limit before the edge and a whole limit after it.
    check(60, &[(900, 60), (1000, 60)], 120);
    // The same by one request: 59 and 2 within a window that is on no grid.
    check(60, &[(700, 59), (1600, 2)], 61);
    // Nothing wrong: a second lies between the first of each.
    check(60, &[(0, 60), (1002, 60)], 60);
    check(60, &[(0, 60), (1001, 60), (2002, 60), (3003, 60)], 60);
    // One is early.
    check(60, &[(0, 60), (1002, 60), (2000, 1)], 61);
    // A single window that is too full.
    check(60, &[(5, 61)], 61);
    check(60, &[], 0);
}

#[test]
fn a_request_counts_only_where_it_was_both_sent_and_answered() {
    let mut log = burst(0, 60, 1);
    // It may have been decided before or after the others' window: nobody can be accused.
    log.push(Entry { key: 1, sent: ms(10), answered: ms(1000), outcome: Outcome::Allowed });
    assert_eq!(fullest(&log, ms(1000)).allowed, 60);
    // A millisecond less and it was decided within.
    log.last_mut().unwrap().answered = ms(999);
    assert_eq!(fullest(&log, ms(1000)), Fullest { allowed: 61, begin: ms(0) });
}

#[test]
fn only_allowed_requests_count_and_keys_are_apart() {
    let mut log = burst(0, 60, 1);
    for outcome in [Outcome::Denied, Outcome::Unavailable] {
        log.push(Entry { key: 1, sent: ms(5), answered: ms(6), outcome });
    }
    log.push(Entry { key: 2, sent: ms(5), answered: ms(6), outcome: Outcome::Allowed });
    let strict = Promise::strict(ms(1000), 60);
    assert_eq!(verdict(&strict, &log), [""; 0]);
    log.push(Entry { key: 1, sent: ms(7), answered: ms(8), outcome: Outcome::Lost });
    assert_eq!(verdict(&strict, &log), ["key 1: no answer to the request of 7ms"]);
    log.push(Entry { key: 1, sent: ms(5), answered: ms(6), outcome: Outcome::Allowed });
    assert_eq!(
        verdict(&strict, &log),
        [
            "key 1: no answer to the request of 7ms",
            "key 1: 61 allowed in the window from 0ns, at most 60 may be"
        ]
    );
    assert_eq!(tally(&log), [62, 1, 1, 1]);
}

#[test]
fn shares_are_allowed_only_where_a_window_contains_a_switch() {
    let promise = |shares, switches: &[(u64, u64)]| Promise {
        window: ms(1000),
        limit: 60,
        shares,
        switches: switches.iter().map(|(from, to)| (ms(*from), ms(*to))).collect(),
    };
    // A limit before the switch, the shares after it.
    let log: Vec<Entry> = [burst(2000, 60, 1), burst(2200, 30, 1)].concat();
    assert_eq!(verdict(&promise(30, &[(2100, 2150)]), &log), [""; 0]);
    let beyond = ["key 1: 90 allowed in the window from 2s, at most 89 may be"];
    assert_eq!(verdict(&promise(29, &[(2100, 2150)]), &log), beyond);
    // The same requests, but the switch was long before or long after: the shares excuse nothing.
    let plain = ["key 1: 90 allowed in the window from 2s, at most 60 may be"];
    assert_eq!(verdict(&promise(30, &[(500, 600)]), &log), plain);
    assert_eq!(verdict(&promise(30, &[(5000, 5100)]), &log), plain);
    // Between two switches that lie further apart than a window.
    assert_eq!(verdict(&promise(30, &[(500, 600), (5000, 5100)]), &log), plain);
    // Between two that do not: every window contains one of them.
    assert_eq!(verdict(&promise(30, &[(1700, 1800), (2400, 2500)]), &log), [""; 0]);
}

/// Numbers that look random and are the same in every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[test]
fn every_window_is_looked_at() {
    for seed in 1..200 {
        let mut numbers = Numbers(seed * 0x9e37_79b9);
        let log: Vec<Entry> = (0..numbers.below(60))
            .map(|_| {
                let sent = ms(numbers.below(300));
                let answered = sent + ms(numbers.below(120));
                let outcome =
                    if numbers.below(4) == 0 { Outcome::Denied } else { Outcome::Allowed };
                Entry { key: 1, sent, answered, outcome }
            })
            .collect();
        let counted = |begin: u64| {
            let within = |entry: &&Entry| {
                entry.outcome == Outcome::Allowed
                    && entry.sent >= ms(begin)
                    && entry.answered < ms(begin + 100)
            };
            log.iter().filter(within).count()
        };
        let most = (0..400).map(counted).max().unwrap();
        let found = fullest(&log, ms(100));
        assert_eq!(found.allowed as usize, most, "seed {seed}");
        let begin = u64::try_from(found.begin.as_millis()).unwrap();
        assert_eq!(counted(begin), most, "seed {seed}: the window that it names");
    }
}
