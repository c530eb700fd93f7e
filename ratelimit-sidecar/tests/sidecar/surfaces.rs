//! What stands beside the checks: the question by GET, the command line, the admin listener, the configuration's words
//! as they act.

use std::process::Command;

use gatehouse_contract::{TenantId, Tier, sidecar::CheckAsk};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::process::{BINARY, Redis, Sidecar, config, env, memory, redis, run_to_end, until};

fn tenant() -> TenantId {
    TenantId::new(Uuid::new_v4())
}

fn ask(tenant: TenantId, tier: Tier, cost: u32) -> CheckAsk {
    CheckAsk {
        tenant,
        tier,
        limits: None,
        subject: None,
        method: "GET".into(),
        route: "/x".into(),
        cost,
        forced: false,
    }
}

async fn admin(sidecar: &Sidecar, path: &str) -> (u16, Value) {
    let answer = sidecar.client.get(format!("{}{path}", sidecar.admin)).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// R5: the vectors of the tiers, with the burst guard of five times the limit in a second.
#[tokio::test]
async fn r5_the_tiers_have_the_limits_of_the_specification() {
    let sidecar = Sidecar::start(&config(&memory(), json!({})));
    for (tier, limit, burst) in
        [(Tier::Free, 60, 5), (Tier::Pro, 600, 50), (Tier::Enterprise, 6000, 500)]
    {
        let tenant = tenant();
        let (_, peek) = sidecar.check(&ask(tenant, tier, 0)).await;
        let limits = peek["limits"].as_array().unwrap();
        let named = |name: &str| limits.iter().find(|limit| limit["name"] == name).unwrap();
        assert_eq!(
            (&named("tenant")["limit"], &named("tenant")["window_s"]),
            (&json!(limit), &json!(60))
        );
        assert_eq!(
            (&named("burst")["limit"], &named("burst")["window_s"]),
            (&json!(burst), &json!(1))
        );
        let (_, whole) = sidecar.check(&ask(tenant, tier, burst)).await;
        assert_eq!(whole["allowed"], true, "{whole}");
        let (_, over) = sidecar.check(&ask(tenant, tier, burst + 1)).await;
        assert_eq!((&over["allowed"], over.get("retry_after_s")), (&json!(false), None), "{over}");
    }
}

/// R22: 0 blocks, absent is unlimited where that is said, a negative or fractional limit is a mistake.
#[tokio::test]
async fn r22_zero_blocks_absent_is_unlimited_and_negative_is_a_mistake() {
    let limits = json!({"limits": {
        "tiers": {
            "free": {"per_window": 0},
            "pro": {"per_window": "unlimited"},
            "enterprise": {"per_window": 7, "per_day": 3},
        },
        "endpoint_default": "unlimited", "endpoints": [], "burst_multiplier": 0,
    }});
    let sidecar = Sidecar::start(&config(&memory(), limits));
    let (_, blocked) = sidecar.check(&ask(tenant(), Tier::Free, 1)).await;
    assert_eq!((&blocked["allowed"], blocked.get("retry_after_s")), (&json!(false), None));
    let (_, free) = sidecar.check(&ask(tenant(), Tier::Pro, 10_000_000)).await;
    assert_eq!((&free["allowed"], &free["limits"]), (&json!(true), &json!([])));
    let (_, day) = sidecar.check(&ask(tenant(), Tier::Enterprise, 1)).await;
    let names: Vec<_> = day["limits"].as_array().unwrap().iter().map(|l| &l["name"]).collect();
    assert_eq!(names, ["day", "tenant"], "{day}");

    let (code, mut lines) = run_to_end(&config(
        &memory(),
        json!({"limits": {"tiers": {"free": -1, "pro": {"per_window": 1.5, "per_day": -2}},
            "endpoints": [{"method": "GET", "route": "/x", "per_window": -3}]}}),
    ));
    lines.retain(|line| !line.starts_with('{'));
    let begin = "gatehouse-ratelimit-sidecar: config FILE: $.limits.";
    assert_eq!(
        (code, lines),
        (
            Some(64),
            vec![
                format!(
                    "{begin}tiers.free: -1 does not fit; write a whole number from 0 to 16777215"
                ),
                format!(
                    "{begin}tiers.pro.per_window: 1.5 does not fit; write a whole number from 0 to 16777215"
                ),
                format!(
                    "{begin}tiers.pro.per_day: -2 does not fit; write a whole number from 0 to 4294967295"
                ),
                format!(
                    "{begin}endpoints[0].per_window: -3 does not fit; write a whole number from 0 to 16777215"
                ),
            ]
        )
    );
}

/// R25: the day's quota by configuration, UTC calendar day, warning from 80 % on.
#[tokio::test]
async fn r25_a_days_quota_warns_from_four_fifths_on_and_ends_at_midnight() {
    let limits = json!({"limits": {"tiers": {"free": {"per_window": 1000, "per_day": 10}},
        "burst_multiplier": 0}});
    let sidecar = Sidecar::start(&config(&redis(&env("GATEHOUSE_TEST_REDIS")), limits));
    let tenant = tenant();
    let mut percents = Vec::new();
    for cost in [7, 1, 1, 1] {
        let (_, answer) = sidecar.check(&ask(tenant, Tier::Free, cost)).await;
        assert_eq!(answer["allowed"], true, "{answer}");
        percents.push(answer.get("day_used_percent").cloned());
    }
    assert_eq!(percents, [None, Some(json!(80)), Some(json!(90)), Some(json!(100))]);
    let (_, denied) = sidecar.check(&ask(tenant, Tier::Free, 1)).await;
    assert_eq!((&denied["allowed"], &denied["limits"][0]["name"]), (&json!(false), &json!("day")));
    let retry = denied["retry_after_s"].as_u64().unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let midnight = 86_400 - now % 86_400;
    assert!(retry.abs_diff(midnight) <= 60, "{retry} s, midnight in {midnight} s");
}

#[tokio::test]
async fn a_check_by_get_is_the_same_check() {
    let limits = json!({"limits": {"tiers": {"pro": 2}, "burst_multiplier": 0}});
    let sidecar = Sidecar::start(&config(&memory(), limits));
    let tenant = tenant();
    let by_query = format!("/v1/check?tenant={tenant}&tier=pro&method=GET&route=/x");
    let (status, body) = sidecar.get(&by_query).await;
    assert_eq!((status, &body["allowed"]), (200, &json!(true)));
    let by_header = sidecar.client.get(format!("{}/v1/check", sidecar.url));
    let by_header = by_header
        .header("x-tenant-id", tenant.to_string())
        .header("x-tenant-tier", "pro")
        .header("x-gatehouse-method", "GET")
        .header("x-gatehouse-route", "/x");
    let answer = by_header.send().await.unwrap();
    assert_eq!(answer.headers()["x-ratelimit-remaining"], "0");
    assert_eq!(answer.headers()["x-gatehouse-sidecar"], "1");
    let (status, body) = sidecar.get(&by_query).await;
    assert_eq!((status, &body["allowed"]), (200, &json!(false)));
    let denied = sidecar.client.get(format!("{}{by_query}&status=429", sidecar.url));
    let denied = denied.send().await.unwrap();
    assert_eq!(denied.status(), 429);
    assert!(denied.headers().contains_key("retry-after"));
    let (status, body) = sidecar.get("/v1/check?tenant=x").await;
    assert_eq!((status, &body["code"]), (422, &json!("body_invalid")));
    // One count for all ways of asking.
    let (_, body) = sidecar.check(&ask(tenant, Tier::Pro, 0)).await;
    assert_eq!(body["limits"][0]["remaining"], 0);
}

fn command(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(BINARY).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn the_command_line_asks_a_running_sidecar() {
    let limits = json!({"limits": {"tiers": {"pro": 2}, "burst_multiplier": 0}});
    let sidecar = Sidecar::start(&config(&memory(), limits));
    let at = sidecar.url.strip_prefix("http://").unwrap().to_owned();
    let tenant = tenant().to_string();
    let ask = |more: &[&str]| {
        let base = ["check", "--at", &at, "--tenant", &tenant, "--tier", "pro"];
        command(&[&base[..], more].concat())
    };
    let (code, text, _) = ask(&[]);
    assert_eq!(code, Some(0));
    assert!(text.starts_with("allowed\nlimit"), "{text}");
    assert!(text.contains("tenant              2          2  60 s\n"), "{text}");
    let (code, text, _) = ask(&["--cost", "2", "--json"]);
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &body["limits"][0]["remaining"]), (Some(0), &json!(0)));
    let (code, text, stderr) = ask(&["--cost", "1"]);
    assert_eq!((code, stderr.as_str()), (Some(1), ""));
    assert!(text.starts_with("denied: retry after "), "{text}");
    drop(sidecar);
    let (code, _, stderr) = ask(&[]);
    assert_eq!((code, stderr.lines().count()), (Some(69), 1), "{stderr}");
    let (_, help, _) = command(&["--help"]);
    assert!(help.contains("Examples:") && help.contains("load-functions --url"), "{help}");
}

#[tokio::test]
async fn the_heaviest_tenants_are_told_on_the_admin_listener_and_in_no_metric() {
    let limits = json!({"limits": {"tiers": {"pro": 20}, "burst_multiplier": 0}});
    let sidecar = Sidecar::start(&config(&memory(), limits));
    let (heavy, light) = (tenant(), tenant());
    sidecar.check(&ask(heavy, Tier::Pro, 15)).await;
    sidecar.check(&ask(light, Tier::Pro, 5)).await;
    sidecar.check(&ask(light, Tier::Pro, 0)).await;
    sidecar.check(&ask(light, Tier::Pro, 16)).await;
    let (status, top) = admin(&sidecar, "/admin/top").await;
    assert_eq!((status, &top["total"], &top["error"]), (200, &json!(20), &json!(0)));
    assert_eq!(
        top["tenants"],
        json!([{"tenant": heavy, "value": 15}, {"tenant": light, "value": 5}])
    );
    let (_, top) = admin(&sidecar, "/admin/top?by=denied&limit=1").await;
    assert_eq!(top["tenants"], json!([{"tenant": light, "value": 1}]));
    for bad in ["by=tier", "limit=0", "limit=101", "x=1"] {
        assert_eq!(admin(&sidecar, &format!("/admin/top?{bad}")).await.0, 422, "{bad}");
    }
    let answer = sidecar.client.get(format!("{}/metrics", sidecar.admin)).send().await.unwrap();
    let metrics = answer.text().await.unwrap();
    assert!(!metrics.contains(&heavy.to_string()), "{metrics}");
    for (path, _) in [("/admin/top", ()), ("/openapi.json", ())] {
        assert_eq!(sidecar.get(path).await.0, 404, "{path} is not for filters");
    }
    let (status, document) = admin(&sidecar, "/openapi.json").await;
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
}

#[tokio::test]
async fn it_is_ready_in_an_outage_while_some_tier_is_answered_without_the_store() {
    for (away, ready) in [("local", 200), ("closed", 503)] {
        let mut server = Redis::start();
        let tier = json!({"away": away});
        let limits = json!({"limits": {"tiers": {"free": tier, "pro": {"away": "closed"},
            "enterprise": {"away": "closed"}}}});
        let sidecar = Sidecar::start(&config(&redis(&server.url("sidecar", "test")), limits));
        sidecar.until_ready().await;
        server.kill();
        until("the breaker to open", async || {
            (sidecar.metric("gatehouse_ratelimit_breaker_open").await == Some(1)).then_some(())
        })
        .await;
        assert_eq!(sidecar.ready().await, ready, "{away}");
        server.restart();
        sidecar.until_ready().await;
    }
}
