//! `/v1/check`: the same questions and answers over both stores, and what happens when Redis goes.

use std::time::{Duration, Instant};

use gatehouse_contract::{TenantId, Tier, sidecar::CheckAsk};
use rustix::process::Signal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::process::{Redis, Sidecar, config, env, memory, redis, redis_cluster, wait_for};

const AGENTS: &str = "/api/v1/registry/agents";

fn ask(tenant: TenantId, method: &str, cost: u32) -> CheckAsk {
    CheckAsk {
        tenant,
        tier: Tier::Free,
        limits: None,
        subject: None,
        method: method.into(),
        route: AGENTS.into(),
        cost,
        forced: false,
    }
}

fn tenant() -> TenantId {
    TenantId::new(Uuid::new_v4())
}

fn limits(free: u32) -> Value {
    json!({"limits": {"tiers": {"free": free}, "burst_multiplier": 0}})
}

/// Without its store the tier is answered 503.
fn closed(free: u32) -> Value {
    let tier = json!({"per_window": free, "away": "closed"});
    json!({"limits": {"tiers": {"free": tier}, "burst_multiplier": 0}})
}

/// Waits for the store's first word: a Redis that was just started waits for declarations.
async fn decides(sidecar: &Sidecar) {
    sidecar.until_ready().await;
}

/// What a client would see: verdict, then every limit as `name left/of`.
fn shown((status, body): &(u16, Value)) -> String {
    assert_eq!(*status, 200, "{body}");
    let limits = body["limits"].as_array().unwrap().iter().map(|limit| {
        let name = limit["name"].as_str().unwrap();
        format!(" {name} {}/{}", limit["remaining"], limit["limit"])
    });
    let verdict = if body["allowed"] == true { "+" } else { "-" };
    verdict.to_owned() + &limits.collect::<String>()
}

/// The black-box test that both stores pass.
async fn check_a_tenants_minute(store: &Value) {
    let sidecar = Sidecar::start(&config(store, limits(12)));
    decides(&sidecar).await;
    let tenant = tenant();
    let mut got = Vec::new();
    for cost in [0, 1, 9, 1, 1, 0] {
        got.push(shown(&sidecar.check(&ask(tenant, "POST", cost)).await));
    }
    assert_eq!(
        got,
        [
            "+ tenant 12/12 endpoint 10/10",
            "+ endpoint 9/10 tenant 11/12",
            "+ endpoint 0/10 tenant 2/12",
            "- endpoint 0/10 tenant 2/12",
            "- endpoint 0/10 tenant 2/12",
            "- endpoint 0/10 tenant 2/12",
        ]
    );
    got.clear();
    for _ in 0..3 {
        got.push(shown(&sidecar.check(&ask(tenant, "GET", 1)).await));
    }
    assert_eq!(
        got,
        [
            "+ tenant 1/12 endpoint 999/1000",
            "+ tenant 0/12 endpoint 998/1000",
            "- tenant 0/12 endpoint 998/1000"
        ]
    );
    let (_, denied) = sidecar.check(&ask(tenant, "GET", 1)).await;
    let (retry, reset) =
        (denied["retry_after_s"].as_u64(), denied["limits"][0]["reset_s"].as_u64());
    assert!(retry.is_some_and(|s| (59..=61).contains(&s)), "{denied}");
    assert!(retry >= reset && denied["limits"][0]["window_s"] == 60, "{denied}");
    let other = shown(&sidecar.check(&ask(self::tenant(), "GET", 1)).await);
    assert_eq!(other, "+ tenant 11/12 endpoint 999/1000", "another tenant is not touched");

    let counted = |outcome| {
        format!("gatehouse_ratelimit_checks_total{{tier=\"free\",outcome=\"{outcome}\"}}")
    };
    assert_eq!(sidecar.metric(&counted("allowed")).await, Some(6));
    assert_eq!(sidecar.metric(&counted("denied")).await, Some(5));
    assert_eq!(sidecar.ready().await, 200);
}

#[tokio::test]
async fn a_tenants_minute_in_memory() {
    check_a_tenants_minute(&memory()).await;
}

#[tokio::test]
async fn a_tenants_minute_in_redis() {
    check_a_tenants_minute(&redis(&env("GATEHOUSE_TEST_REDIS"))).await;
}

#[tokio::test]
async fn a_tenants_minute_in_a_cluster() {
    check_a_tenants_minute(&redis_cluster()).await;
}

/// Two sidecars on one Redis: R1 over real sockets.
#[tokio::test]
async fn sidecars_share_a_tenants_limit() {
    let config = config(&redis(&env("GATEHOUSE_TEST_REDIS")), limits(60));
    let (one, two, tenant) = (Sidecar::start(&config), Sidecar::start(&config), tenant());
    decides(&one).await;
    decides(&two).await;
    let sidecars = std::sync::Arc::new([one, two]);
    let mut asking = tokio::task::JoinSet::new();
    for index in 0..64 {
        let sidecars = std::sync::Arc::clone(&sidecars);
        asking.spawn(async move {
            let mut passed = 0;
            for _ in 0..2 {
                let (status, body) = sidecars[index % 2].check(&ask(tenant, "GET", 1)).await;
                assert_eq!(status, 200, "{body}");
                passed += u32::from(body["allowed"] == true);
            }
            passed
        });
    }
    let mut passed = 0;
    while let Some(one) = asking.join_next().await {
        passed += one.unwrap();
    }
    assert_eq!(passed, 60);
}

#[tokio::test]
async fn the_burst_guard_is_on_unless_switched_off() {
    let sidecar = Sidecar::start(&config(&memory(), json!({})));
    let tenant = tenant();
    let burst = CheckAsk { cost: 5, ..ask(tenant, "GET", 5) };
    assert_eq!(shown(&sidecar.check(&burst).await), "+ tenant 55/60 endpoint 995/1000 burst 0/5");
    let (_, denied) = sidecar.check(&ask(tenant, "GET", 5)).await;
    assert_eq!(denied["limits"][0]["name"], "burst");
    assert_eq!(denied["limits"][0]["window_s"], 1);
}

#[tokio::test]
async fn what_is_no_question_is_refused_as_ours() {
    let sidecar = Sidecar::start(&config(&memory(), json!({})));
    let (status, body) = sidecar.post("/v1/check", &json!({"tenant": "x"})).await;
    assert_eq!((status, &body["code"]), (422, &json!("body_invalid")));
    let (status, body) = sidecar.post("/v1/check", &json!("x".repeat(9000))).await;
    assert_eq!((status, &body["code"]), (413, &json!("body_too_large")));
    let (status, body) = sidecar.get("/v1/nothing").await;
    assert_eq!((status, &body["code"]), (404, &json!("not_found")));
    let (status, body) = sidecar.get("/v1/lease").await;
    assert_eq!((status, &body["code"]), (405, &json!("method_not_allowed")));
    for admin_only in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(sidecar.get(admin_only).await.0, 404, "{admin_only}");
    }
}

#[tokio::test]
async fn without_its_redis_it_answers_503_and_recovers_by_itself() {
    let mut server = Redis::start();
    let store = redis(&server.url("sidecar", "test"));
    let sidecar = Sidecar::start(&config(&store, closed(2)));
    let tenant = tenant();
    wait_until_allowed(&sidecar, tenant).await;
    assert_eq!(
        shown(&sidecar.check(&ask(tenant, "GET", 1)).await),
        "+ tenant 1/2 endpoint 999/1000"
    );

    server.kill();
    let (status, body) = sidecar.check(&ask(tenant, "GET", 1)).await;
    assert_eq!((status, &body["code"]), (503, &json!("limiter_unavailable")));
    let away = "gatehouse_ratelimit_checks_total{tier=\"free\",outcome=\"unavailable\"}";
    assert!(sidecar.metric(away).await.is_some_and(|count| count > 0));
    assert_eq!(sidecar.metric("gatehouse_ratelimit_store_away").await, Some(1));

    // Empty, and without the function: both are put right, and what was charged is told again.
    server.restart();
    // Asked without charging: a check whose answer was late may be charged all the same.
    wait_until_allowed(&sidecar, tenant).await;
    let answer = sidecar.check(&ask(tenant, "GET", 1)).await;
    assert_eq!(shown(&answer), "+ tenant 0/2 endpoint 998/1000");
    decides(&sidecar).await;
    assert_eq!(sidecar.metric("gatehouse_ratelimit_store_away").await, Some(0));
}

#[tokio::test]
async fn a_redis_that_stands_still_costs_the_deadline_and_no_more() {
    let server = Redis::start();
    let store = redis(&server.url("sidecar", "test"));
    let mut settings = closed(2);
    settings["redis_timeout_ms"] = json!(25);
    let sidecar = Sidecar::start(&config(&store, settings));
    let tenant = tenant();
    wait_until_allowed(&sidecar, tenant).await;
    server.signal(Signal::STOP);
    let begin = Instant::now();
    let (status, body) = sidecar.check(&ask(tenant, "GET", 1)).await;
    let took = begin.elapsed();
    server.signal(Signal::CONT);
    assert_eq!((status, &body["code"]), (503, &json!("limiter_unavailable")));
    // The bound is loose, since the machine may be busy; without a deadline this would not end at all.
    assert!(took >= Duration::from_millis(20) && took < Duration::from_secs(2), "{took:?}");
}

/// The first decision within 25 ms, on a machine that may be busy.
async fn wait_until_allowed(sidecar: &Sidecar, tenant: TenantId) {
    let begin = Instant::now();
    while sidecar.check(&ask(tenant, "GET", 0)).await.0 != 200 {
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
}

#[tokio::test]
async fn it_starts_without_its_redis_and_is_not_ready() {
    let mut server = Redis::start();
    server.kill();
    let sidecar = Sidecar::start(&config(&redis(&server.url("sidecar", "test")), json!({})));
    assert_eq!(sidecar.ready().await, 503);
    let (status, body) = sidecar.check(&ask(tenant(), "GET", 1)).await;
    assert_eq!((status, &body["degraded"]), (200, &json!(true)), "the tier's policy is local");
    let live = sidecar.client.get(format!("{}/livez", sidecar.admin)).send().await.unwrap();
    assert_eq!(live.status(), 200);
    server.restart();
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        wait_for("readiness", || (handle.block_on(sidecar.ready()) == 200).then_some(()));
    })
    .await
    .unwrap();
}
