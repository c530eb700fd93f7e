//! Random traces with leases against a log of every use: whatever holders do with their passes, no window of uses
//! holds more than the limit.

use std::time::Duration;

use super::*;
use crate::{
    keys,
    policy::{Algorithm, Name},
    take::Run,
    window::Span,
};

/// Far from zero, and not at a slot's or a day's edge.
const START_MS: u64 = 1_766_000_000_123;

/// xorshift64*: the same traces on every run.
struct Random(u64);

impl Random {
    fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(ms)
}

fn of(algorithm: Algorithm, max: u32, window_s: u32) -> Rule {
    Rule::counted(Name::Tenant, max, Span::from_secs(window_s), algorithm, keys::ANY)
}

fn asking(rules: &[Rule], cost: u32) -> Take {
    let tenant = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap();
    Take::one(tenant, rules.into(), cost)
}

fn grant_at(take: &Take, states: &mut [State], now_ms: u64) -> Granted {
    super::take(take, &mut states.iter_mut().collect::<Vec<_>>(), at(now_ms))
}

fn states(rules: &[Rule]) -> Vec<State> {
    rules.iter().map(|rule| State::new(rule.algorithm())).collect()
}

/// The most uses in any window of `width_ms`.
fn fullest(uses: &mut [(u64, u32)], width_ms: u64) -> u64 {
    uses.sort_unstable();
    let (mut from, mut held, mut most) = (0, 0, 0);
    for to in 0..uses.len() {
        held += u64::from(uses[to].1);
        while uses[from].0 + width_ms <= uses[to].0 {
            held -= u64::from(uses[from].1);
            from += 1;
        }
        most = most.max(held);
    }
    most
}

/// Passes that went ahead and are not used up.
struct Lease {
    until_ms: u64,
    taken_ms: u64,
    left: u32,
}

/// Many holders, delayed uses, returns that are late, doubled or never made.
#[test]
fn no_window_of_uses_ever_holds_more_than_the_limit_whatever_holders_do() {
    for seed in 1..=40 {
        let mut random = Random::seeded(seed);
        let mut pick = |choices: &[u64]| choices[random.below(choices.len() as u64) as usize];
        let (max, window_s) = (pick(&[60, 600, 6000]) as u32, pick(&[5, 60]) as u32);
        let hold_ms = pick(&[20, 100, u64::from(window_s) * 20]);
        let pause_ms = pick(&[2, 20, 200]);
        let rules = [of(Algorithm::SubBuckets, max, window_s)];
        let hold = Duration::from_millis(hold_ms);
        let mut states = states(&rules);
        let (mut uses, mut leases): (Vec<(u64, u32)>, Vec<Lease>) = (vec![], vec![]);
        let (mut now, mut went_ahead) = (START_MS, 0);
        for _ in 0..6000 {
            now += random.below(pause_ms);
            let take = Take {
                waiting: 1 + random.below(4) as u32,
                ahead: random.below(60) as u32,
                divisor: 1 + random.below(8) as u32,
                hold,
                ..asking(&rules, 1)
            };
            let granted = grant_at(&take, &mut states, now);
            uses.push((now, granted.waiting));
            went_ahead += granted.ahead;
            leases.push(Lease { until_ms: now + hold_ms, taken_ms: now, left: granted.ahead });
            for lease in &mut leases {
                if random.below(3) == 0 && now <= lease.until_ms {
                    let spent = random.below(u64::from(lease.left) + 1) as u32;
                    // At the latest moment that is allowed, more often than not.
                    let when = if random.below(4) == 0 { now } else { lease.until_ms };
                    uses.push((when, spent));
                    lease.left -= spent;
                }
            }
            let ended = |lease: &Lease| lease.until_ms < now;
            for lease in leases.iter().filter(|lease| ended(lease)) {
                if random.below(2) == 0 {
                    let give = Return {
                        tenant: take.tenant,
                        rules: take.rules.clone(),
                        cost: 1,
                        passes: lease.left,
                        at: at(lease.taken_ms),
                        hold,
                        run: Run(1),
                    };
                    give_back(&give, &mut states.iter_mut().collect::<Vec<_>>(), at(now));
                }
            }
            leases.retain(|lease| !ended(lease));
        }
        let most = fullest(&mut uses, u64::from(window_s) * 1000);
        assert!(most <= u64::from(max), "seed {seed}: {most} of {max} in {window_s} s");
        assert!(most + 4 > u64::from(max) || pause_ms > 2, "seed {seed}: {most}, shows nothing");
        assert!(went_ahead > 0, "seed {seed}: no lease was taken");
    }
}

/// The limit's promise by algorithm, in uses of any window: exact, and twice the limit for a level.
#[test]
fn every_algorithm_keeps_its_promise() {
    for (algorithm, times) in [
        (Algorithm::SubBuckets, 1),
        (Algorithm::Ring, 1),
        (Algorithm::SortedSet, 1),
        (Algorithm::Gcra, 2),
    ] {
        for seed in 1..=10 {
            let mut random = Random::seeded(seed);
            let (max, rules) = (50, [of(algorithm, 50, 5)]);
            let mut states = states(&rules);
            let (mut uses, mut now, mut denied) = (vec![], START_MS, 0);
            for step in 0..3000 {
                now += random.below(60) + if random.below(300) == 0 { 6000 } else { 0 };
                let cost = 1 + random.below(3) as u32;
                let granted = grant_at(&asking(&rules, cost), &mut states, now);
                if granted.decision.allowed {
                    uses.push((now, cost));
                    continue;
                }
                denied += 1;
                // Whoever waits as long as told passes; a millisecond earlier nobody would.
                let wait = granted.decision.retry_after().unwrap().as_millis() as u64;
                for (later, expected) in [(wait, true), (wait - 1, false)] {
                    let mut copy = states.clone();
                    let again = grant_at(&asking(&rules, cost), &mut copy, now + later);
                    let told = format!("{algorithm:?}, seed {seed}, step {step}, after {later} ms");
                    assert_eq!(again.decision.allowed, expected, "{told}");
                }
            }
            let most = fullest(&mut uses, 5000);
            assert!(denied > 0 && most <= max * times, "{algorithm:?}, seed {seed}: {most}");
        }
    }
}

#[test]
fn an_exact_log_frees_a_charge_on_the_millisecond() {
    for algorithm in [Algorithm::Ring, Algorithm::SortedSet] {
        let rules = [of(algorithm, 1, 60)];
        let mut states = states(&rules);
        for (after_ms, expected) in [(0, true), (59_999, false), (60_000, true), (60_001, false)] {
            let granted = grant_at(&asking(&rules, 1), &mut states, START_MS + after_ms);
            assert_eq!(granted.decision.allowed, expected, "{after_ms}");
        }
    }
}

#[test]
fn a_days_quota_begins_anew_at_midnight_and_leases_nothing_across_it() {
    let midnight = (START_MS / 86_400_000 + 1) * 86_400_000;
    let rules = [Rule::new(Name::Day, 100, Span::from_secs(1), keys::ANY)];
    let mut states = states(&rules);
    let leased = Take { ahead: 2, hold: Duration::from_millis(200), ..asking(&rules, 1) };
    assert_eq!(grant_at(&leased, &mut states, midnight - 201).ahead, 2);
    assert_eq!(grant_at(&leased, &mut states, midnight - 200).ahead, 0);
    let all = grant_at(&asking(&rules, 96), &mut states, midnight - 50);
    assert!(all.decision.allowed);
    let none = grant_at(&asking(&rules, 1), &mut states, midnight - 1).decision;
    assert_eq!((none.allowed, none.retry_after()), (false, Some(Duration::from_millis(1))));
    let anew = grant_at(&asking(&rules, 1), &mut states, midnight);
    assert_eq!((anew.decision.allowed, anew.decision.standings[0].used), (true, 1));
}

/// A clock that steps back stands still for every algorithm, and leases nothing, since its slots could not be told.
#[test]
fn a_clock_that_steps_back_frees_nothing_and_leases_nothing() {
    for algorithm in [
        Algorithm::SubBuckets,
        Algorithm::Ring,
        Algorithm::SortedSet,
        Algorithm::Gcra,
        Algorithm::Day,
    ] {
        let rules = [of(algorithm, 100, 60)];
        let mut states = states(&rules);
        assert!(grant_at(&asking(&rules, 50), &mut states, START_MS).decision.allowed);
        let back = Take { ahead: 9, ..asking(&rules, 50) };
        let granted = grant_at(&back, &mut states, START_MS - 30_000);
        assert_eq!(
            (granted.waiting, granted.decision.standings[0].used),
            (1, 100),
            "{algorithm:?}"
        );
        let step = if algorithm == Algorithm::Day { 86_400_000 } else { 30_000 };
        let mut early = states.clone();
        assert!(!grant_at(&asking(&rules, 1), &mut early, START_MS - step).decision.allowed);
        let lease = Take { ahead: 9, ..asking(&[of(algorithm, 500, 60)], 1) };
        let granted = grant_at(&lease, &mut states, START_MS - step);
        assert_eq!((granted.waiting, granted.ahead), (1, 0), "{algorithm:?}");
    }
}

#[test]
fn what_is_forced_without_end_counts_up_to_a_bound_and_leaves_again() {
    for algorithm in [Algorithm::SubBuckets, Algorithm::Ring, Algorithm::SortedSet, Algorithm::Gcra]
    {
        let rules = [of(algorithm, 100, 5)];
        let mut states = states(&rules);
        let forced = Take { forced: true, waiting: 64, ..asking(&rules, u32::MAX) };
        for ms in 0..9 {
            grant_at(&forced, &mut states, START_MS + ms);
        }
        let wait = grant_at(&asking(&rules, 1), &mut states, START_MS + 10).decision.retry_after();
        let wait = wait.unwrap().as_millis() as u64;
        assert!(wait <= 5100, "{algorithm:?}: {wait} ms");
        let free = grant_at(&asking(&rules, 1), &mut states, START_MS + 10 + wait);
        assert!(free.decision.allowed, "{algorithm:?}");
    }
}

#[test]
fn little_goes_ahead_near_the_limit_and_nothing_where_it_cannot_be_booked() {
    let rules = [of(Algorithm::SubBuckets, 100, 60)];
    let ask = |ahead, divisor, hold_s| Take {
        ahead,
        divisor,
        hold: Duration::from_secs(hold_s),
        ..asking(&rules, 1)
    };
    let mut states = states(&rules);
    let mut ahead = |take: &Take| grant_at(take, &mut states, START_MS).ahead;
    assert_eq!(ahead(&ask(64, 4, 3)), 0, "more than two slots ahead");
    assert_eq!(ahead(&ask(10, 4, 2)), 10);
    assert_eq!(ahead(&ask(64, 4, 0)), 21, "one part in four of the 87 that are left");
    assert_eq!(ahead(&ask(64, 100, 0)), 0);
}

#[test]
fn what_is_charged_between_declarations_stays_on_top_of_them() {
    let rules = [of(Algorithm::SubBuckets, 100, 60)];
    let (mut states, mut sums) = (states(&rules), Declared::default());
    let used = |states: &mut [State]| {
        grant_at(&asking(&rules, 0), states, START_MS).decision.standings[0].used
    };
    let declaration = |amount| Declaration {
        tenant: asking(&rules, 0).tenant,
        rule: rules[0].clone(),
        charges: vec![(at(START_MS), amount)],
        run: Run(1),
    };
    grant_at(&asking(&rules, 10), &mut states, START_MS);
    for (declared, charged, holds) in [(4, 0, 10), (9, 5, 18), (2, 0, 20)] {
        declare(&declaration(declared), &mut states[0], &mut sums, at(START_MS));
        grant_at(&asking(&rules, charged), &mut states, START_MS);
        assert_eq!(used(&mut states), holds, "{declared} more declared");
    }
}

/// What a window of 60 s holds, by a look that charges nothing.
fn used_at(rules: &[Rule], states: &mut [State], now_ms: u64) -> u32 {
    grant_at(&asking(rules, 0), states, now_ms).decision.standings[0].used
}

#[test]
fn r1_a_pass_that_goes_ahead_counts_until_a_window_after_its_hold() {
    let rules = [of(Algorithm::SubBuckets, 1000, 60)];
    let mut states = states(&rules);
    // A tenth of a second before a slot ends: the hold ends in the next one.
    let (slot, hold) = (1_766_000_000_000, Duration::from_millis(200));
    let take = Take { ahead: 10, divisor: 1, hold, ..asking(&rules, 1) };
    let granted = grant_at(&take, &mut states, slot + 900);
    assert_eq!((granted.waiting, granted.ahead), (1, 10));
    for (now_ms, used) in
        [(slot + 60_999, 11), (slot + 61_000, 10), (slot + 61_999, 10), (slot + 62_000, 0)]
    {
        assert_eq!(used_at(&rules, &mut states, now_ms), used, "{} ms later", now_ms - slot);
    }
}

#[test]
fn r1_a_return_credits_no_more_than_its_slot_holds() {
    let rules = [of(Algorithm::SubBuckets, 1000, 60)];
    let mut states = states(&rules);
    let (slot, hold) = (1_766_000_000_000, Duration::from_millis(200));
    let take = Take { cost: 1, ahead: 5, divisor: 1, hold, ..asking(&rules, 1) };
    assert_eq!(grant_at(&take, &mut states, slot + 900).ahead, 5);
    grant_at(&Take { waiting: 7, ..asking(&rules, 1) }, &mut states, slot + 3000);
    let give = Return {
        tenant: take.tenant,
        rules: take.rules.clone(),
        cost: 1,
        passes: 9,
        at: at(slot + 900),
        hold,
        run: Run(1),
    };
    super::give_back(&give, &mut states.iter_mut().collect::<Vec<_>>(), at(slot + 3000));
    assert_eq!(
        used_at(&rules, &mut states, slot + 3000),
        8,
        "the one that waited, and seven later"
    );
}
