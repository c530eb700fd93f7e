//! R21, R22, R23: limits that refuse nothing, that refuse all, and that change.

use gatehouse_contract::sidecar::Overrides;
use gatehouse_tests::{env, envoy::configuration, wait};
use serde_json::json;

use super::{
    AGENTS, LIMITED, Plan, SUBJECT, TENANT, asking, left_after, limiter, limits, number, of_tenant,
    telling, told,
};
use crate::acceptance::gate::{Gate, OTHER_TENANT, with_claim};

#[test]
fn r21_in_shadow_mode_everything_is_counted_and_nothing_refused() {
    let plan = Plan {
        document: limiter(&json!({"shadow": true})),
        bootstrap: telling("gatehouse_shadowed"),
        ..of_tenant(3)
    };
    let gate = Gate::with(plan);
    for n in 0..6 {
        let answer = gate.send(&asking("GET", AGENTS));
        assert_eq!(answer.status().unwrap(), 200);
        // Headers that speak of a limit would lie.
        assert_eq!(told(&answer), None, "{answer:?}");
        for name in ["retry-after", "ratelimit", "ratelimit-policy", "x-envoy-ratelimited"] {
            assert_eq!(answer.headers.all(name), [""; 0], "{name}");
        }
        // The access log may know.
        let saw = gatehouse_tests::http::serve::seen(&answer).unwrap();
        let noted = saw.header("x-test-read");
        assert_eq!(noted.contains("quota_exceeded"), n >= 3, "request {n}: {noted}");
    }
    wait::until("the counters", std::time::Duration::from_secs(10), || {
        let of = |word: &str| {
            gate.envoy.stat(&format!("wasmcustom.gatehouse_limiter_enterprise_{word}"))
        };
        Ok(((of("allowed")?, of("shadowed")?, of("denied")?) == (3, 3, 0)).then_some(()))
    })
    .unwrap();
}

#[test]
fn r22_zero_blocks_absence_is_no_limit_and_less_is_a_mistake() {
    let gate = Gate::with(limits(&json!({
        "endpoints": [{"method": "GET", "route": AGENTS, "per_window": 0}],
        "endpoint_default": "unlimited",
    })));
    let refused = gate.denies(&asking("GET", AGENTS), LIMITED);
    assert!(number(&refused, "retry-after").unwrap() >= 1);
    let told_then = told(&refused).unwrap();
    assert_eq!((told_then.limit, told_then.remaining), (0, 0));
    // Beside it an endpoint without a limit: what is told is the tenant's.
    let free = gate.send(&asking("GET", &format!("{AGENTS}/a")));
    assert_eq!((free.status().unwrap(), told(&free).unwrap().limit), (200, 1_000_000));
    assert!(!free.header("ratelimit-policy").contains("endpoint"), "{free:?}");
    drop(gate);

    // The filter's own limit: in real Envoy, at load.
    let dir = tempfile::tempdir().unwrap();
    let nobody = wait::address().unwrap();
    let suite = env::path(env::SUITE).unwrap();
    for (per_minute, taken) in
        [(json!(1), true), (json!(0), false), (json!(-1), false), (json!(0.5), false)]
    {
        let mut document = limiter(&json!({}));
        document["limiter"] = json!({"local": {"per_minute": per_minute}});
        let config = configuration(dir.path(), &suite, &document, nobody, nobody).unwrap();
        let mut envoy = std::process::Command::new(env::path(env::ENVOY).unwrap());
        envoy.args(["--mode", "validate", "--config-path"]).arg(&config.file);
        let output = envoy.output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), taken, "{per_minute}: {log}");
        assert!(taken || log.contains("$.limiter.local.per_minute"), "{per_minute}: {log}");
    }
}

#[test]
fn r23_a_changed_limit_acts_at_once_and_what_was_used_stays_used() {
    let gate = Gate::with(of_tenant(8));
    let set = |per_window: Option<u32>| {
        let limits = per_window
            .map(|per_window| Overrides { per_window: Some(per_window), ..Overrides::default() });
        let member = (TENANT.to_owned(), SUBJECT.to_owned());
        gate.outside().members.get_mut(&member).unwrap().limits = limits;
    };
    let get = asking("GET", AGENTS);
    for used in 1..=4 {
        assert_eq!(left_after(&gate, &get), 8 - used);
    }
    set(Some(3));
    let refused = gate.denies(&get, LIMITED);
    assert_eq!((told(&refused).unwrap().limit, told(&refused).unwrap().remaining), (3, 0));
    set(Some(6));
    assert_eq!(left_after(&gate, &get), 1, "four were used, and this one");
    set(Some(0));
    gate.denies(&get, LIMITED);
    // Another tenant keeps its tier's, and what was refused cost nothing.
    let other = with_claim("tenant_id", json!(OTHER_TENANT));
    let theirs = gatehouse_tests::http::Request::new("GET", AGENTS).bearer(&other);
    assert_eq!(left_after(&gate, &theirs), 7);
    set(None);
    assert_eq!(left_after(&gate, &get), 2);
}
