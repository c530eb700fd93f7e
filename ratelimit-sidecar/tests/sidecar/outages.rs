//! What checks are answered while Redis stands still, is away, refuses or has lost its data, and that no budget is had
//! twice when it is back.

use std::time::{Duration, Instant};

use gatehouse_contract::{TenantId, Tier, sidecar::CheckAsk};
use rustix::process::Signal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::process::{Redis, Sidecar, config, redis, until};

const LIMIT: u64 = 12;

fn ask(tenant: TenantId, cost: u32) -> CheckAsk {
    CheckAsk {
        tenant,
        tier: Tier::Free,
        limits: None,
        subject: None,
        method: "GET".into(),
        route: "/api/v1/registry/agents".into(),
        cost,
        forced: false,
    }
}

fn settings(away: &str, timeout_ms: u64) -> Value {
    json!({
        "limits": {
            "tiers": {"free": {"per_window": LIMIT, "away": away}},
            "endpoint_default": "unlimited",
            "burst_multiplier": 0,
        },
        "redis_timeout_ms": timeout_ms,
        "breaker": {"failures": 3, "probe_ms": 50},
    })
}

/// A sidecar, its Redis and a tenant that used nothing; decisions are the store's.
struct Bench {
    redis: Redis,
    sidecar: Sidecar,
    tenant: TenantId,
}

impl Bench {
    async fn start(away: &str, timeout_ms: u64) -> Self {
        let server = Redis::start();
        let store = redis(&server.url("sidecar", "test"));
        let sidecar = Sidecar::start(&config(&store, settings(away, timeout_ms)));
        let bench = Self { redis: server, sidecar, tenant: TenantId::new(Uuid::new_v4()) };
        bench.decided().await;
        bench
    }

    /// Waits until the store decides: its word on what is left.
    async fn decided(&self) -> u64 {
        until("the store to decide", async || {
            let (status, body) = self.sidecar.check(&ask(self.tenant, 0)).await;
            let decided = status == 200 && body["degraded"] != true;
            decided.then(|| body["limits"][0]["remaining"].as_u64().unwrap())
        })
        .await
    }

    /// Waits until the tier's policy decides.
    async fn degraded(&self) {
        until("the policy to decide", async || {
            let (status, body) = self.sidecar.check(&ask(self.tenant, 0)).await;
            (status == 503 || body["degraded"] == true).then_some(())
        })
        .await;
    }

    /// How many of so many requests pass, and how many answers say that they are degraded.
    async fn spend(&self, requests: usize) -> (u64, usize) {
        let (mut passed, mut degraded) = (0, 0);
        for _ in 0..requests {
            let (status, body) = self.sidecar.check(&ask(self.tenant, 1)).await;
            passed += u64::from(status == 200 && body["allowed"] == true);
            degraded += usize::from(body["degraded"] == true);
        }
        (passed, degraded)
    }
}

#[tokio::test]
async fn r14_a_redis_that_stands_still_costs_the_deadline_and_then_nothing() {
    let bench = Bench::start("local", 100).await;
    assert_eq!(bench.spend(5).await, (5, 0));
    bench.redis.signal(Signal::STOP);
    let begin = Instant::now();
    let (status, body) = bench.sidecar.check(&ask(bench.tenant, 1)).await;
    let took = begin.elapsed();
    assert_eq!((status, &body["degraded"]), (200, &json!(true)), "{body}");
    // The bound is loose, since the machine may be busy; without a deadline this would not end at all.
    assert!(took < Duration::from_secs(2), "{took:?}");
    let open = "gatehouse_ratelimit_breaker_open";
    until("the breaker to open", async || {
        bench.sidecar.check(&ask(bench.tenant, 0)).await;
        (bench.sidecar.metric(open).await == Some(1)).then_some(())
    })
    .await;
    // The share of one sidecar is the limit: 11 are left of it, whatever was charged before.
    assert_eq!(bench.spend(3).await, (3, 3));
    bench.redis.signal(Signal::CONT);
    let left = bench.decided().await;
    // What was sent and never answered may have been charged as well.
    assert!(left <= LIMIT - 5 - 4, "{left} left after 9 passes");
    assert_eq!(bench.sidecar.metric(open).await, Some(0));
}

#[tokio::test]
async fn r14_while_redis_is_away_the_share_of_this_sidecar_passes_and_no_more() {
    let mut bench = Bench::start("local", 1000).await;
    bench.redis.kill();
    bench.degraded().await;
    assert_eq!(bench.spend(LIMIT as usize + 3).await, (LIMIT, LIMIT as usize + 3));
}

#[tokio::test]
async fn r14_after_a_restart_without_data_everything_is_declared() {
    let mut bench = Bench::start("local", 1000).await;
    assert_eq!(bench.spend(5).await, (5, 0));
    bench.redis.kill();
    bench.degraded().await;
    assert_eq!(bench.spend(2).await, (2, 2));
    bench.redis.restart();
    assert_eq!(bench.decided().await, LIMIT - 5 - 2);
    assert_eq!(bench.sidecar.metric("gatehouse_ratelimit_store_runs_total").await, Some(1));
}

#[tokio::test]
async fn r14_after_a_restart_with_its_data_nothing_counts_twice() {
    let mut bench = Bench::start("local", 1000).await;
    assert_eq!(bench.spend(5).await, (5, 0));
    assert!(bench.redis.command("SAVE").starts_with("+OK"));
    bench.redis.kill();
    bench.degraded().await;
    assert_eq!(bench.spend(2).await, (2, 2));
    bench.redis.restart();
    assert_eq!(bench.decided().await, LIMIT - 5 - 2);
}

#[tokio::test]
async fn r14_functions_that_were_flushed_are_loaded_and_told() {
    let bench = Bench::start("local", 1000).await;
    assert_eq!(bench.spend(5).await, (5, 0));
    assert!(bench.redis.command("FUNCTION FLUSH").starts_with("+OK"));
    until("the function to be back", async || {
        let (_, body) = bench.sidecar.check(&ask(bench.tenant, 0)).await;
        let list = bench.redis.command("FUNCTION LIST");
        (list.contains("gatehouse_rl") && body["degraded"] != true).then_some(())
    })
    .await;
    assert_eq!(bench.decided().await, LIMIT - 5);
}

#[tokio::test]
async fn r14_a_redis_that_may_not_write_is_no_store() {
    let bench = Bench::start("local", 1000).await;
    assert_eq!(bench.spend(5).await, (5, 0));
    // A replica of nobody: READONLY.
    assert!(bench.redis.command("REPLICAOF 127.0.0.1 1").starts_with("+OK"));
    bench.degraded().await;
    assert_eq!(bench.spend(2).await, (2, 2));
    assert!(bench.redis.command("REPLICAOF NO ONE").starts_with("+OK"));
    assert_eq!(bench.decided().await, LIMIT - 5 - 2);
}

#[tokio::test]
async fn r14_a_password_that_is_refused_is_no_store() {
    let bench = Bench::start("local", 1000).await;
    assert_eq!(bench.spend(5).await, (5, 0));
    assert!(bench.redis.command("ACL SETUSER sidecar resetpass >another").starts_with("+OK"));
    assert!(bench.redis.command("CLIENT KILL USER sidecar").starts_with(':'));
    bench.degraded().await;
    assert_eq!(bench.spend(2).await, (2, 2));
    assert!(bench.redis.command("ACL SETUSER sidecar resetpass >test").starts_with("+OK"));
    assert_eq!(bench.decided().await, LIMIT - 5 - 2);
}

#[tokio::test]
async fn r14_closed_refuses_and_open_lets_pass_and_is_charged_for_it() {
    let mut closed = Bench::start("closed", 1000).await;
    let mut open = Bench::start("open", 1000).await;
    for bench in [&mut closed, &mut open] {
        bench.redis.kill();
        bench.degraded().await;
    }
    let (status, body) = closed.sidecar.check(&ask(closed.tenant, 1)).await;
    assert_eq!((status, &body["code"]), (503, &json!("limiter_unavailable")));
    assert_eq!(open.spend(LIMIT as usize + 3).await, (LIMIT + 3, LIMIT as usize + 3));
    for bench in [&mut closed, &mut open] {
        bench.redis.restart();
    }
    assert_eq!(closed.decided().await, LIMIT);
    assert_eq!(open.decided().await, 0);
}

#[tokio::test]
async fn checks_at_once_of_one_tenant_are_few_calls_of_redis() {
    let bench = Bench::start("local", 1000).await;
    let calls = || {
        let stats = bench.redis.command("INFO commandstats");
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_fcall:calls="));
        line.and_then(|line| line.split(',').next()?.parse::<u64>().ok()).unwrap()
    };
    let (before, sidecar, tenant) = (calls(), std::sync::Arc::new(&bench.sidecar), bench.tenant);
    let url = format!("{}/v1/check", sidecar.url);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (client, url) = (sidecar.client.clone(), url.clone());
        let body = serde_json::to_string(&ask(tenant, 1)).unwrap();
        asking.spawn(async move {
            let mut passed = 0;
            for _ in 0..10 {
                let answer = client.post(&url).body(body.clone()).send().await.unwrap();
                let answer: Value = answer.json().await.unwrap();
                passed += u64::from(answer["allowed"] == true);
            }
            passed
        });
    }
    let passed: u64 = asking.join_all().await.into_iter().sum();
    assert_eq!(passed, LIMIT);
    // A denial is told from memory; signs of life are calls, too.
    let made = calls() - before;
    assert!(made < 200, "{made} calls for 640 checks");
}

#[tokio::test]
async fn r25_most_of_a_days_quota_is_said_and_told_once() {
    use crate::process::{Script, Server};
    let control = Server::start(&Script::new(|| {
        axum::response::IntoResponse::into_response(axum::http::StatusCode::NO_CONTENT)
    }))
    .await;
    let sidecar = Sidecar::start(&config(
        &crate::process::memory(),
        json!({
            "limits": {
                "tiers": {"free": {"per_window": 100, "per_day": 10}},
                "burst_multiplier": 0,
            },
            "control_api": {"internal": format!("http://{}", control.at)},
        }),
    ));
    let tenant = TenantId::new(Uuid::new_v4());
    let mut percents = Vec::new();
    for _ in 0..11 {
        let (_, body) = sidecar.check(&ask(tenant, 1)).await;
        percents.push(body["day_used_percent"].as_u64());
    }
    let expected = [80, 90, 100, 100].map(Some);
    assert_eq!((&percents[..7], &percents[7..]), (&[None; 7][..], &expected[..]));
    let path = gatehouse_contract::sidecar::INTERNAL_QUOTA_WARNING_PATH;
    let told = until("the warning", async || control.bodies(path).first().cloned()).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["used"], &told["limit"]), (&json!(8), &json!(10)), "{told}");
    assert_eq!(told["tenant"], json!(tenant.to_string()));
    assert_eq!(control.bodies(path).len(), 1);
}

/// A Redis that still reads its data refuses every command for a while: no mistake of the configuration.
#[tokio::test]
async fn r14_a_sidecar_starts_while_redis_loads_and_decides_when_it_has() {
    let mut server = Redis::start();
    let script = "for i=1,200 do redis.call('SET','x'..i,string.rep('y',4096)) end";
    let filled =
        server.command(&format!("CONFIG SET rdbcompression no\r\nEVAL \"{script}\" 0\r\nSAVE"));
    assert_eq!(filled, "+OK\r\n$-1\r\n+OK\r\n+OK\r\n");
    server.kill();
    // Microseconds per key, and how often it listens meanwhile.
    server.restart_with(&[
        "--key-load-delay",
        "10000",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    assert!(server.command("PING").starts_with("-LOADING"), "it is loading for two seconds");
    let store = redis(&server.url("sidecar", "test"));
    let sidecar = Sidecar::start(&config(&store, settings("closed", 100)));
    let bench = Bench { redis: server, sidecar, tenant: TenantId::new(Uuid::new_v4()) };
    assert_eq!(bench.decided().await, LIMIT);
    assert_eq!(bench.spend(LIMIT as usize + 1).await, (LIMIT, 0));
    assert!(!bench.redis.command("PING").starts_with('-'));
}

/// Redis stands still: whoever waits for it is seen to wait, and no longer once it goes on.
#[tokio::test]
async fn those_who_wait_for_the_store_are_counted() {
    const DEPTH: &str = "gatehouse_ratelimit_queue_depth";
    let bench = Bench::start("closed", 1000).await;
    let depth = async |expected| {
        let seen = async || bench.sidecar.metric(DEPTH).await;
        until("so many to wait", async || (seen().await == Some(expected)).then_some(())).await;
    };
    depth(0).await;
    bench.redis.signal(Signal::STOP);
    let asking = async {
        let ask = ask(bench.tenant, 1);
        let check = async || bench.sidecar.check(&ask).await.0;
        tokio::join!(check(), check(), check())
    };
    let watching = async {
        depth(3).await;
        bench.redis.signal(Signal::CONT);
    };
    let (answered, ()) = tokio::join!(asking, watching);
    assert_eq!(answered, (200, 200, 200));
    depth(0).await;
}
