//! What every store must do, run over all of them.

use std::sync::Arc;

use gatehouse_contract::TenantId;
use gatehouse_ratelimit::{Decision, Name, Rule, Span, keys};
use uuid::Uuid;

use super::*;

const DEADLINE: Duration = Duration::from_secs(5);

/// With this build's function: a server that tests share may still have another's.
async fn redis() -> RedisStore {
    let url = std::env::var("GATEHOUSE_TEST_REDIS")
        .expect("GATEHOUSE_TEST_REDIS is not set; run cargo xtask test");
    let limiter = redis_kit::Limiter::new(&url.parse().unwrap(), DEADLINE).unwrap();
    limiter.load().await.unwrap();
    RedisStore::new(limiter, Uuid::new_v4())
}

fn rule(name: Name, max: u32, window_s: u32) -> Rule {
    Rule::new(name, max, Span::from_secs(window_s), keys::ANY)
}

/// One request; a Redis that began a moment ago waits for declarations.
async fn decide(store: &impl Store, tenant: TenantId, rules: &[Rule], cost: u32) -> Decision {
    let begin = Instant::now();
    loop {
        let take = Take::one(tenant, rules.into(), cost);
        match store.take(&[take]).await.pop().unwrap() {
            Ok(taken) => return taken.decision,
            Err(Untaken::Refused(Refused::Settling(_))) => {
                assert!(begin.elapsed() < DEADLINE);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn tenant() -> TenantId {
    TenantId::new(Uuid::new_v4())
}

/// Runs one black-box test over every store.
macro_rules! over_every_store {
    ($($test:ident)+) => {
        mod in_memory { $(#[tokio::test] async fn $test() { super::$test(super::MemoryStore::new()).await; })+ }
        mod in_redis { $(#[tokio::test] async fn $test() { super::$test(super::redis().await).await; })+ }
    };
}

over_every_store! {
    of_many_at_once_exactly_the_limit_pass
    a_denial_by_one_limit_charges_none
    a_cost_of_none_only_asks
    a_limit_of_none_blocks
    a_changed_limit_acts_at_once_and_keeps_the_count
    tenants_do_not_share_a_window
    a_wait_that_is_told_suffices
}

async fn of_many_at_once_exactly_the_limit_pass(store: impl Store) {
    let (store, tenant) = (Arc::new(store), tenant());
    let rules = Arc::new([rule(Name::Tenant, 60, 60), rule(Name::Endpoint, 1000, 60)]);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (store, rules) = (Arc::clone(&store), Arc::clone(&rules));
        asking.spawn(async move { decide(&*store, tenant, &*rules, 1).await.allowed });
    }
    let mut passed = 0;
    while let Some(allowed) = asking.join_next().await {
        passed += u32::from(allowed.unwrap());
    }
    assert_eq!(passed, 60);
}

/// `asks` are costs; each verdict is `+` or `-` with what every window holds.
async fn check(store: &impl Store, tenant: TenantId, rules: &[Rule], asks: &[u32], expected: &str) {
    let mut shown = Vec::new();
    for cost in asks {
        let decision = decide(store, tenant, rules, *cost).await;
        let used: Vec<_> = decision.standings.iter().map(|s| s.used.to_string()).collect();
        shown.push(format!("{}{}", if decision.allowed { '+' } else { '-' }, used.join(",")));
    }
    assert_eq!(shown.join(" "), expected);
}

async fn a_denial_by_one_limit_charges_none(store: impl Store) {
    let rules = [rule(Name::Tenant, 9, 60), rule(Name::Endpoint, 2, 60)];
    check(&store, tenant(), &rules, &[1, 1, 1, 1], "+1,1 +2,2 -2,2 -2,2").await;
}

async fn a_cost_of_none_only_asks(store: impl Store) {
    let rules = [rule(Name::Tenant, 5, 60)];
    check(&store, tenant(), &rules, &[0, 3, 3, 2, 0, u32::MAX], "+0 +3 -3 +5 -5 -5").await;
}

async fn a_limit_of_none_blocks(store: impl Store) {
    let rules = [rule(Name::Tenant, 0, 60)];
    check(&store, tenant(), &rules, &[1, 0], "-0 -0").await;
    let decision = decide(&store, tenant(), &rules, 1).await;
    assert_eq!(decision.retry_after(), None);
}

async fn a_changed_limit_acts_at_once_and_keeps_the_count(store: impl Store) {
    let tenant = tenant();
    for (max, expected) in [(3, "+1"), (3, "+2"), (2, "-2"), (1, "-2"), (3, "+3"), (3, "-3")] {
        check(&store, tenant, &[rule(Name::Tenant, max, 60)], &[1], expected).await;
    }
}

async fn tenants_do_not_share_a_window(store: impl Store) {
    let rules = [rule(Name::Tenant, 1, 60)];
    check(&store, tenant(), &rules, &[1, 1], "+1 -1").await;
    check(&store, tenant(), &rules, &[1, 1], "+1 -1").await;
}

async fn a_wait_that_is_told_suffices(store: impl Store) {
    let (tenant, rules) = (tenant(), [rule(Name::Tenant, 1, 1)]);
    let (mut passed, begin) = (0, Instant::now());
    while passed < 3 {
        assert!(begin.elapsed() < Duration::from_secs(30), "{passed} passed");
        let decision = decide(&store, tenant, &rules, 1).await;
        if decision.allowed {
            passed += 1;
            continue;
        }
        // What is waited for is a moment of the store's clock; it has come when this has passed.
        let wait = decision.retry_after().unwrap();
        assert!(wait <= Duration::from_millis(1037), "{wait:?}");
        tokio::time::sleep(wait).await;
        assert!(decide(&store, tenant, &rules, 1).await.allowed, "after {wait:?}");
        passed += 1;
    }
}
