//! Traces: written ones with their verdicts, random ones against a log of every charge.

use super::*;
use crate::{
    keys, model,
    state::State,
    take::Take,
    window::{Span, Timestamp},
};

/// Far from zero, and not at a slot's edge.
const START_MS: u64 = 1_766_000_000_123;

fn rule(name: Name, max: u32, window_s: u32) -> Rule {
    Rule::new(name, max, Span::from_secs(window_s), keys::ANY)
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(START_MS + ms)
}

struct Trace {
    rules: Vec<Rule>,
    windows: Vec<State>,
}

impl Trace {
    fn new(rules: Vec<Rule>) -> Self {
        let windows = rules.iter().map(|rule| State::new(rule.algorithm())).collect();
        Self { rules, windows }
    }

    fn ask(&mut self, now: Timestamp, cost: u32) -> Decision {
        let tenant = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap();
        let take = Take::one(tenant, self.rules.as_slice().into(), cost);
        let mut windows: Vec<&mut State> = self.windows.iter_mut().collect();
        model::take(&take, &mut windows, now).decision
    }
}

/// `steps` are (ms, cost); the verdicts are shown as `+` and `-`, each limit's use behind them.
fn check(rules: &[Rule], steps: &[(u64, u32)], expected: &str) {
    let mut trace = Trace::new(rules.to_vec());
    let shown: Vec<String> = steps
        .iter()
        .map(|(ms, cost)| {
            let decision = trace.ask(at(*ms), *cost);
            let used: Vec<_> = decision.standings.iter().map(|s| s.used.to_string()).collect();
            format!("{}{}", if decision.allowed { '+' } else { '-' }, used.join(","))
        })
        .collect();
    assert_eq!(shown.join(" "), expected, "{steps:?}");
}

#[test]
fn a_charge_leaves_after_the_window_and_at_most_one_slot_late() {
    // START_MS is 123 ms into a slot of a second: the slot of the first charge leaves at 60 877 ms.
    check(
        &[rule(Name::Tenant, 1, 60)],
        &[(0, 1), (59_999, 1), (60_876, 1), (60_877, 1), (60_878, 1)],
        "+1 -1 -1 +1 -1",
    );
}

#[test]
fn the_edge_of_a_window_does_not_admit_twice() {
    // A fixed window would take 4 again as soon as the clock's minute ends.
    let steps: Vec<(u64, u32)> = (0..8).map(|i| (55_000 + i * 1000, 1)).collect();
    check(&[rule(Name::Tenant, 4, 60)], &steps, "+1 +2 +3 +4 -4 -4 -4 -4");
}

#[test]
fn a_denial_charges_no_limit() {
    check(
        &[rule(Name::Tenant, 9, 60), rule(Name::Endpoint, 2, 60)],
        &[(0, 1), (1, 1), (2, 1), (3, 1)],
        "+1,1 +2,2 -2,2 -2,2",
    );
    check(
        &[rule(Name::Tenant, 2, 60), rule(Name::Endpoint, 9, 60)],
        &[(0, 1), (1, 1), (2, 1)],
        "+1,1 +2,2 -2,2",
    );
}

#[test]
fn cost_counts_and_a_cost_of_none_only_asks() {
    check(
        &[rule(Name::Tenant, 5, 60)],
        &[(0, 0), (1, 3), (2, 3), (3, 2), (4, 0), (5, 6), (6, u32::MAX)],
        "+0 +3 -3 +5 -5 -5 -5",
    );
}

#[test]
fn a_limit_of_none_blocks() {
    check(&[rule(Name::Tenant, 0, 60)], &[(0, 1), (61_000, 0)], "-0 -0");
    let decision = Trace::new(vec![rule(Name::Tenant, 0, 60)]).ask(at(0), 1);
    assert_eq!(decision.retry_after(), None);
    assert_eq!(decision.answer(&[rule(Name::Tenant, 0, 60)]).limits[0].reset_s, 60);
}

#[test]
fn a_changed_limit_acts_at_once_and_keeps_the_count() {
    let mut trace = Trace::new(vec![rule(Name::Tenant, 3, 60)]);
    for (max, expected) in [(3, true), (3, true), (2, false), (1, false), (3, true), (3, false)] {
        trace.rules = vec![rule(Name::Tenant, max, 60)];
        assert_eq!(trace.ask(at(0), 1).allowed, expected, "limit {max}");
    }
    trace.rules = vec![rule(Name::Tenant, 1, 60)];
    let answer = trace.ask(at(0), 1).answer(&trace.rules);
    assert_eq!((answer.limits[0].remaining, answer.limits[0].limit), (0, 1));
}

#[test]
fn a_clock_that_steps_back_frees_nothing_and_one_that_was_far_ahead_is_forgotten() {
    let mut trace = Trace::new(vec![rule(Name::Tenant, 1, 60)]);
    assert!(trace.ask(at(30_000), 1).allowed);
    for back in [29_000, 0] {
        assert!(!trace.ask(at(back), 1).allowed);
    }
    assert!(!trace.ask(at(90_000), 1).allowed);
    assert!(trace.ask(at(3_600_000), 1).allowed);
    assert!(trace.ask(at(0), 1).allowed, "the record is an hour ahead of the clock");
}

/// Specification 2.3: 61 requests of a free tenant at 4 a second; pro and enterprise likewise.
#[test]
fn every_tier_gets_its_limit_within_a_minute_and_not_one_more() {
    for (limit, every_ms) in [(60_u32, 250), (600, 90), (6000, 9)] {
        let burst = rule(Name::Burst, limit * 5 / 60, 1);
        let mut trace = Trace::new(vec![rule(Name::Tenant, limit, 60), burst]);
        let passed =
            (0..=u64::from(limit)).filter(|i| trace.ask(at(i * every_ms), 1).allowed).count();
        assert_eq!(passed, limit as usize);
    }
}

#[test]
fn the_burst_guard_bounds_every_second() {
    let steps: Vec<(u64, u32)> = (0..8).map(|i| (i * 100, 1)).chain([(2000, 1)]).collect();
    check(
        &[rule(Name::Tenant, 60, 60), rule(Name::Burst, 5, 1)],
        &steps,
        "+1,1 +2,2 +3,3 +4,4 +5,5 -5,5 -5,5 -5,5 +6,1",
    );
}

#[test]
fn the_answer_shows_the_tightest_limit_first() {
    let first = |costs: &[u32], rules: Vec<Rule>| {
        let mut trace = Trace::new(rules);
        let mut last = None;
        for cost in costs {
            last = Some(trace.ask(at(0), *cost).answer(&trace.rules));
        }
        let answer = last.unwrap();
        let names: Vec<_> = answer
            .limits
            .iter()
            .map(|l| format!("{} {}/{} {}s", l.name, l.remaining, l.limit, l.reset_s))
            .collect();
        format!("{:?} {}", answer.retry_after_s, names.join(", "))
    };
    let rules =
        || vec![rule(Name::Tenant, 60, 60), rule(Name::Endpoint, 10, 60), rule(Name::Burst, 5, 1)];
    assert_eq!(first(&[1], rules()), "None endpoint 9/10 0s, tenant 59/60 0s, burst 4/5 0s");
    // 123 ms into the slot: the burst guard's slots are of 17 ms.
    assert_eq!(first(&[5, 1], rules()), "Some(2) burst 0/5 2s, endpoint 5/10 0s, tenant 55/60 0s");
    let both = vec![rule(Name::Tenant, 1, 60), rule(Name::Endpoint, 1, 120)];
    assert_eq!(first(&[1, 1], both), "Some(122) endpoint 0/1 122s, tenant 0/1 61s");
}

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

/// Every charge that was made, for an exact count.
#[derive(Default)]
struct Log(Vec<(u64, u32)>);

impl Log {
    /// Charges after `now - width`, up to `now`.
    fn within(&self, now: u64, width: u64) -> u64 {
        let charges = self.0.iter().rev().take_while(|(at, _)| at + width > now);
        charges.map(|(_, cost)| u64::from(*cost)).sum()
    }
}

#[test]
fn random_traces_never_exceed_a_window_nor_deny_more_than_a_slot_too_much() {
    for seed in 1..=60 {
        let mut random = Random::seeded(seed);
        let mut pick = |choices: &[u64]| choices[random.below(choices.len() as u64) as usize];
        let (max, window_s) = (pick(&[1, 2, 7, 60, 600]), pick(&[1, 5, 60]));
        let pause_ms = pick(&[1, 20, 300, 3000]);
        let rule = rule(Name::Tenant, max as u32, window_s as u32);
        let (window_ms, slot_ms) = (window_s * 1000, rule.span.slot_ms());
        let mut trace = Trace::new(vec![rule.clone()]);
        let (mut log, mut now) = (Log::default(), START_MS);
        for step in 0..4000 {
            now += random.below(pause_ms) + if random.below(400) == 0 { window_ms } else { 0 };
            let cost = random.below(4) as u32;
            let decision = trace.ask(Timestamp::from_ms(now), cost);
            let (weight, told) = (u64::from(weight(cost)), format!("seed {seed}, step {step}"));
            if decision.allowed {
                log.0.push((now, cost));
                assert!(log.within(now, window_ms) <= max, "{told}: over the limit");
            } else {
                let held = log.within(now, slot_ms * (crate::window::SLOTS + 1));
                assert!(held + weight > max, "{told}: denied without a cause");
                obey(&trace, &decision, cost, now, &told);
            }
        }
    }
}

/// Whoever waits as long as told passes; a millisecond earlier nobody would.
fn obey(trace: &Trace, decision: &Decision, cost: u32, now: u64, told: &str) {
    let Some(wait) = decision.retry_after() else {
        assert!(weight(cost) > trace.rules[0].max, "{told}: told that waiting does not help");
        return;
    };
    for (later, expected) in [(wait.as_millis() as u64, true), (wait.as_millis() as u64 - 1, false)]
    {
        let mut copy = Trace { rules: trace.rules.clone(), windows: trace.windows.clone() };
        let again = copy.ask(Timestamp::from_ms(now + later), cost);
        assert_eq!(again.allowed, expected, "{told}: after {later} ms of {wait:?}");
    }
}

#[test]
fn of_several_limits_all_are_charged_or_none() {
    for seed in 1..=20 {
        let mut random = Random::seeded(seed);
        let mut trace = Trace::new(vec![
            rule(Name::Tenant, 20, 5),
            rule(Name::Endpoint, 12, 2),
            rule(Name::Burst, 6, 1),
        ]);
        let (mut log, mut now) = (Log::default(), START_MS);
        for _ in 0..4000 {
            now += random.below(150);
            let cost = 1 + random.below(2) as u32;
            if trace.ask(Timestamp::from_ms(now), cost).allowed {
                log.0.push((now, cost));
            }
            for rule in &trace.rules {
                let width = u64::from(rule.span.seconds()) * 1000;
                assert!(
                    log.within(now, width) <= u64::from(rule.max),
                    "seed {seed}: {}",
                    rule.name
                );
            }
        }
    }
}
