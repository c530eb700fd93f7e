//! R7, R8: what is one limit and what is another.

use serde_json::json;

use super::{AGENTS, LIMITED, Told, asking, left_after, limits, told};
use crate::acceptance::gate::{Gate, OTHER_TENANT, PUBLIC, get, verdict, with_claim};

const AGENT: &str = "/api/v1/registry/agents/{agent}";

fn agent(n: u32) -> String {
    format!("{AGENTS}/0191d6b0-7c3e-7aaa-8bbb-{n:012}")
}

#[test]
fn r7_a_limit_belongs_to_a_tenant_a_method_and_a_route_s_template() {
    let gate = Gate::with(limits(&json!({
        "endpoints": [
            {"method": "GET", "route": AGENT, "per_window": 3},
            {"method": "DELETE", "route": AGENT, "per_window": 1},
        ],
    })));
    // Whatever agent is named, it is one window.
    for n in 0..3 {
        assert_eq!(left_after(&gate, &asking("GET", &agent(n))), 2 - n);
    }
    let answer = gate.denies(&asking("GET", &agent(77)), LIMITED);
    assert_eq!(told(&answer).unwrap(), Told { limit: 3, remaining: 0, ..told(&answer).unwrap() });
    gate.denies(&asking("GET", &format!("{}?a=1", agent(1))), LIMITED);
    // Another method, another route and another tenant have windows of their own.
    let admin = with_claim("sub", json!(crate::acceptance::gate::ADMIN));
    let delete = gatehouse_tests::http::Request::new("DELETE", &agent(1)).bearer(&admin);
    assert_eq!(left_after(&gate, &delete), 0);
    gate.denies(&delete, LIMITED);
    assert!(left_after(&gate, &asking("GET", AGENTS)) > 1000);
    let other = with_claim("tenant_id", json!(OTHER_TENANT));
    let theirs = gatehouse_tests::http::Request::new("GET", &agent(1)).bearer(&other);
    assert_eq!(left_after(&gate, &theirs), 2);
    gate.denies(&asking("GET", &agent(1)), LIMITED);
}

#[test]
fn r7_paths_that_nobody_serves_cost_nothing_and_make_no_windows() {
    let gate = Gate::with(super::of_tenant(20));
    let first = left_after(&gate, &get().bearer(&crate::acceptance::gate::token()));
    for n in 0..10 {
        gate.denies(&asking("GET", &format!("/api/v1/nowhere/{n}")), "404 not_found");
    }
    assert_eq!(left_after(&gate, &asking("GET", AGENTS)), first - 1);
    assert_eq!(gate.verdict(&asking("GET", PUBLIC)), "200");
    assert_eq!(left_after(&gate, &asking("GET", AGENTS)), first - 2);
}

#[test]
fn r8_no_spelling_of_a_path_evades_its_limit() {
    let gate = Gate::with(limits(&json!({
        "endpoints": [{"method": "GET", "route": AGENTS, "per_window": 4}],
    })));
    assert_eq!(left_after(&gate, &asking("GET", AGENTS)), 3);
    let spellings = [
        "/api/v1/registry//agents",
        "//api/v1/registry/agents",
        "/api/v1/registry/./agents",
        "/api/v1/x/../registry/agents",
        "/api/v1/registry/%61gents",
        "/api/v1/registry/agents/",
        "/api/v1/registry/agents?",
        "/api/v1/registry/agents?x=1",
        "/api/v1/registry/Agents",
        "/API/v1/registry/agents",
        "/api/v1/registry%2Fagents",
        "/api/v1/registry%2fagents",
        "/api/v1/registry/agents;p=1",
        "/api/v1/registry\\agents",
        "/api/v1/registry/agents%00",
        "/api/v1/registry/agents#x",
        "http://api.greenlang.local/api/v1/registry/agents",
    ];
    // What passes is counted in the one window: of the rest at most as many as are left.
    let passed = |verdicts: &[String]| verdicts.iter().filter(|verdict| *verdict == "200").count();
    let verdicts: Vec<String> = spellings
        .iter()
        .map(|spelling| {
            let answer = gate.send(&asking("GET", spelling));
            if answer.status().unwrap() == 200 {
                assert_eq!(told(&answer).unwrap().limit, 4, "{spelling}");
            }
            verdict(&answer)
        })
        .collect();
    println!("{:#?}", spellings.iter().zip(&verdicts).collect::<Vec<_>>());
    assert!(passed(&verdicts) <= 3, "{verdicts:?}");
    // The window is used up now, or is by this; then no spelling passes.
    while gate.verdict(&asking("GET", AGENTS)) == "200" {}
    gate.upstream_saw();
    for spelling in spellings {
        let verdict = gate.verdict(&asking("GET", spelling));
        assert!(
            ["429 quota_exceeded", "404 not_found"].contains(&verdict.as_str())
                || verdict.starts_with("400"),
            "{spelling}: {verdict}"
        );
    }
    assert_eq!(gate.upstream_saw().len(), 0);
}
