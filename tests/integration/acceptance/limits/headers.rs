//! R9, R11, R13: what clients are told of their limits.

use std::sync::Arc;

use gatehouse_tests::{
    envoy,
    http::serve::{self, response},
    wait,
};
use serde_json::json;

use super::{AGENTS, LIMITED, Told, asking, limiter, limits, number, of_tenant, structured, told};
use crate::acceptance::gate::{Gate, Plan, get};

/// An upstream that answers with the status that the last segment of the path names.
fn saying() -> serve::Handler {
    Arc::new(|request| {
        let path = request.start.split(' ').nth(1).unwrap_or_default();
        match path.rsplit('/').next().unwrap_or_default().parse() {
            Ok(status) => response(status, &[], ""),
            Err(_) => serve::echo(request),
        }
    })
}

#[test]
fn r9_every_response_to_a_caller_tells_its_limit_whoever_made_it() {
    let plan = Plan {
        upstream: saying(),
        // One route leads to nobody: Envoy answers in its stead.
        bootstrap: Box::new(|bootstrap| {
            let routes = envoy::manager(bootstrap)?.get_mut("route_config")?;
            let nobody = json!({
                "match": {"prefix": "/api/v1/runtime/"}, "route": {"cluster": "nobody"},
            });
            routes.pointer_mut("/virtual_hosts/0/routes")?.as_array_mut()?.insert(0, nobody);
            let clusters = bootstrap.pointer_mut("/static_resources/clusters")?.as_array_mut()?;
            let nobody = gatehouse_xtask::render::envoy::cluster("nobody", wait::address().ok()?);
            clusters.push(nobody);
            Some(())
        }),
        ..of_tenant(14)
    };
    let gate = Gate::with(plan);
    let mut last = 14;
    let statuses = [200, 201, 204, 301, 304, 400, 401, 404, 409, 500, 502, 503];
    let asked = statuses.map(|status| asking("GET", &format!("{AGENTS}/{status}")));
    let away = asking("GET", "/api/v1/runtime/executions");
    let all = asked.iter().zip(statuses).chain([(&away, 503)]);
    for (request, status) in all {
        let answer = gate.send(request);
        assert_eq!(answer.status().unwrap(), status, "{answer:?}");
        let told = told(&answer).unwrap();
        last -= 1;
        assert_eq!((told.limit, told.remaining), (14, last), "{status}");
        assert!(told.reset <= 62, "{status}: {told:?}");
        assert_eq!(number(&answer, "retry-after"), None, "{status}");
    }
    assert_eq!(told(&gate.send(&get().bearer(&super::token()))).unwrap().remaining, 0);
    let refused = gate.denies(&asking("GET", AGENTS), LIMITED);
    let told_then = told(&refused).unwrap();
    assert_eq!((told_then.limit, told_then.remaining), (14, 0));
    // The window, and its slot.
    assert!((1..=62).contains(&told_then.reset), "{told_then:?}");
    // Whoever is nobody has no limit to be told of.
    for request in [get(), get().bearer("x.y.z")] {
        assert_eq!(told(&gate.send(&request)), None);
    }
    gate.envoy.stat("wasm.suite.vm_reload_success").map(|lost| assert_eq!(lost, 0)).unwrap();
}

#[test]
fn r9_with_leases_what_is_left_is_never_more_than_truly_is() {
    // Large enough for leases: what the filter tells is at most what the window holds.
    let mut plan = of_tenant(2000);
    plan.document = limiter(&json!({"leases": true}));
    plan.sidecar["limits"]["mode"] = json!("lease");
    let gate = Gate::with(plan);
    let mut all = Vec::new();
    for sent in 1..=400 {
        let told = told(&gate.send(&asking("GET", AGENTS))).unwrap();
        assert_eq!(told.limit, 2000);
        all.push(told.remaining);
        assert!(told.remaining <= 2000 - sent, "{all:?} after {sent}");
    }
}

#[test]
fn r11_both_fields_are_structured_and_agree_with_the_others() {
    let gate = Gate::with(limits(&json!({
        "tiers": {"enterprise": 9},
        "endpoints": [{"method": "GET", "route": AGENTS, "per_window": 4}],
    })));
    for left in (0..4).rev() {
        let answer = gate.send(&asking("GET", AGENTS));
        let told = told(&answer).unwrap();
        assert_eq!((told.limit, told.remaining), (4, left));
        agree(&answer, told);
        let policy = structured(&answer.header("ratelimit-policy"));
        for (name, limit) in [("tenant", 9), ("endpoint", 4)] {
            let item = policy.iter().find(|(found, _)| found == name).unwrap();
            assert_eq!((item.1["q"], item.1["w"]), (limit, 60), "{policy:?}");
        }
    }
    let refused = gate.denies(&asking("GET", AGENTS), LIMITED);
    agree(&refused, told(&refused).unwrap());
    assert!(structured(&refused.header("ratelimit"))[0].1["t"] >= 1);
}

#[track_caller]
fn agree(answer: &gatehouse_tests::http::Message, told: Told) {
    assert_eq!(answer.headers.all("ratelimit").len(), 1, "{answer:?}");
    assert_eq!(answer.headers.all("ratelimit-policy").len(), 1, "{answer:?}");
    let state = structured(&answer.header("ratelimit"));
    let policy = structured(&answer.header("ratelimit-policy"));
    let [(name, parameters)] = &state[..] else { panic!("{state:?}") };
    assert_eq!(parameters["r"], i64::from(told.remaining));
    assert_eq!(parameters["t"], i64::from(told.reset));
    let (_, of_policy) = policy.iter().find(|(found, _)| found == name).unwrap();
    assert_eq!(of_policy["q"], i64::from(told.limit));
    for (name, parameters) in &policy {
        assert!(parameters["q"] >= 0 && parameters["w"] > 0, "{name}: {parameters:?}");
    }
}

#[test]
fn r13_an_upstream_s_own_headers_are_replaced_kept_or_the_lower_ones_stay() {
    const NAMES: [&str; 3] = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
    // The last segment is what the upstream says is left.
    let upstream: serve::Handler = Arc::new(|request| {
        let path = request.start.split(' ').nth(1).unwrap_or_default();
        match path.rsplit('/').next().unwrap_or_default().parse::<u32>() {
            Ok(left) => serve::echo(request)
                .with("X-RateLimit-Limit", "7")
                .with("X-RateLimit-Remaining", &left.to_string())
                .with("X-RateLimit-Reset", "9"),
            Err(_) => serve::echo(request),
        }
    });
    let theirs = |left| Told { limit: 7, remaining: left, reset: 9 };
    for (mode, few_stay, many_stay) in
        [("override", false, false), ("keep", true, true), ("lowest", true, false)]
    {
        let plan = Plan {
            document: limiter(&json!({"upstream_headers": mode})),
            upstream: Arc::clone(&upstream),
            ..of_tenant(100)
        };
        let gate = Gate::with(plan);
        for (left, stay) in [(3, few_stay), (5000, many_stay)] {
            let answer = gate.send(&asking("GET", &format!("{AGENTS}/{left}")));
            // `told` sees that none stands there twice.
            let told = told(&answer).unwrap();
            assert_eq!(told == theirs(left), stay, "{mode} {left}: {told:?}");
            assert!(stay || told.limit == 100, "{mode} {left}: {told:?}");
            for name in ["ratelimit", "ratelimit-policy"] {
                assert!(answer.headers.all(name).len() <= 1, "{mode}: {answer:?}");
            }
        }
        // Where the upstream says nothing, ours are there in every mode.
        let answer = gate.send(&asking("GET", AGENTS));
        assert_eq!(told(&answer).unwrap().limit, 100, "{mode}");
        // Nobody tells a caller anything by the request.
        let forged =
            NAMES.iter().fold(asking("GET", AGENTS), |request, name| request.header(name, "1"));
        assert_eq!(told(&gate.send(&forged)).unwrap().limit, 100, "{mode}");
    }
}
