//! What lasts longer than a window: the day's quota; and what must not: a tenant's memory.

use std::time::Duration;

use gatehouse_contract::Tier;
use gatehouse_tests::{
    fleet::{Settings, ask, tenant},
    wait,
};

use super::Stage;

#[test]
fn r25_a_days_quota_is_counted_by_the_utc_day_and_warns_from_80_percent_on() {
    let settings = Settings { per_day: Some(20), ..Settings::default() };
    let stage = Stage::single(1, &settings);
    let (sidecar, tenant) = (&stage.fleet.sidecars[0], tenant());
    let check = |cost| sidecar.check(&ask(tenant, Tier::Pro, "GET", cost)).unwrap();
    let seconds = || -> u64 {
        let time = stage.fleet.store.redis().unwrap().ask(&["TIME"]).unwrap();
        time.lines().next().unwrap().parse().unwrap()
    };
    let left_of_day = |at: u64| 86_400 - at % 86_400;
    let before = seconds();
    let fifteen = check(15);
    assert!(fifteen.allowed && fifteen.day_used_percent.is_none(), "{fifteen:?}");
    let sixteen = check(1);
    assert!(sixteen.allowed, "{sixteen:?}");
    assert_eq!(sixteen.day_used_percent, Some(80));
    assert!(!check(5).allowed, "more than the day has left");
    assert_eq!(check(3).day_used_percent, Some(95));
    assert_eq!(check(1).day_used_percent, Some(100));
    let denied = check(1);
    assert!(!denied.allowed, "{denied:?}");
    assert_eq!(denied.day_used_percent, Some(100));
    let after = seconds();
    if before / 86_400 != after / 86_400 {
        return; // Midnight fell into these few requests: the quota began anew, as it should.
    }
    let day = &denied.limits[0];
    assert_eq!((day.name.as_str(), day.limit, day.remaining), ("day", 20, 0), "{denied:?}");
    // It begins anew at midnight, not a day after the first request.
    let (most, least) = (left_of_day(before) + 1, left_of_day(after).saturating_sub(1));
    for told in [denied.retry_after_s.unwrap(), day.reset_s] {
        assert!((least..=most).contains(&u64::from(told)), "{told}: {least} to {most}");
    }
    // Another tenant's day is its own.
    let other = sidecar.check(&ask(gatehouse_tests::fleet::tenant(), Tier::Pro, "GET", 1)).unwrap();
    assert!(other.allowed && other.day_used_percent.is_none(), "{other:?}");
}

#[test]
fn r26_of_idle_tenants_nothing_is_left_in_redis() {
    let window = Duration::from_secs(2);
    let settings = Settings { window, burst: 5, ..Settings::default() };
    let stage = Stage::single(1, &settings);
    let (sidecar, redis) = (&stage.fleet.sidecars[0], stage.fleet.store.redis().unwrap());
    let keys = || -> Vec<String> {
        let said = redis.ask(&["--scan", "--pattern", "rl:{*"]).unwrap();
        said.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    };
    for n in 0..50 {
        let tier = [Tier::Free, Tier::Pro, Tier::Enterprise][n % 3];
        let answer = sidecar.check(&ask(tenant(), tier, "GET", 1)).unwrap();
        assert!(answer.allowed, "{answer:?}");
    }
    let there = keys();
    assert!(there.len() >= 50, "{} keys", there.len());
    for key in &there {
        let left: i64 = redis.ask(&["PTTL", key]).unwrap().parse().unwrap();
        // -2: gone meanwhile. -1 would be: for ever.
        assert!((0..=4000).contains(&left) || left == -2, "{key} lives for {left} ms");
    }
    wait::until("every key is gone", 4 * window, || Ok(keys().is_empty().then_some(()))).unwrap();
}
