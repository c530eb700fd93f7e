//! Chaos under load: Redis, a sidecar and Envoy are stalled, killed and started again while 32 clients never stop
//! asking; the checker reads what they saw. Each case prints its line.

use std::time::Duration;

use gatehouse_tests::chaos::{CASES, Case, play};

fn check(names: &[&str]) {
    let cases: Vec<&Case> = CASES.iter().filter(|case| names.contains(&case.name)).collect();
    assert_eq!(cases.len(), names.len(), "no such case");
    let mut red = Vec::new();
    for case in cases {
        let line = play(case, 1, Duration::from_secs(2)).unwrap();
        println!("{line}");
        red.extend(line.broken);
    }
    assert_eq!(red, [""; 0]);
}

#[test]
fn r14_chaos_of_redis_under_the_closed_policy() {
    check(&["redis-stalled-closed", "redis-killed-closed", "redis-emptied-closed"]);
}

#[test]
fn r14_chaos_of_redis_under_the_local_policy() {
    check(&["redis-stalled-local", "redis-killed-local", "redis-emptied-local"]);
}

#[test]
fn r14_chaos_of_sidecars() {
    check(&["sidecar-stalled", "sidecar-killed"]);
}

#[test]
fn r14_chaos_of_envoy() {
    check(&["envoy-killed"]);
}
