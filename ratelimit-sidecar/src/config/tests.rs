//! Documents and what they mean or why they are refused.

use super::*;
use gatehouse_contract::document;

const GOOD: &str = r#"{
    "listen": "127.0.0.1:8083",
    "admin_listen": "127.0.0.1:8084",
    "store": {"kind": "redis", "url": "redis://sidecar:hunter2@127.0.0.1:6379"},
    "issuers": [{"issuer": "https://auth.example", "jwks": "http://127.0.0.1:8080/.well-known/jwks.json"}],
    "control_api": {"internal": "http://127.0.0.1:8082"}
}"#;

fn load(text: &str) -> Result<Config, Vec<String>> {
    document::read(text, read).map_err(|all| all.iter().map(ToString::to_string).collect())
}

/// `edit` is applied to the good document; `expected` are its mistakes.
fn check(edit: &[(&str, &str)], expected: &[&str]) {
    let mut text = GOOD.to_owned();
    for (from, to) in edit {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let got = load(&text).map(|_| Vec::<String>::new()).unwrap_or_else(|mistakes| mistakes);
    assert_eq!(got, expected);
}

const SERVED: &str = "\"127.0.0.1:8083\"";
const STORE: &str = r#""kind": "redis", "url": "redis://sidecar:hunter2@127.0.0.1:6379""#;
const ISSUER: &str =
    r#"{"issuer": "https://auth.example", "jwks": "http://127.0.0.1:8080/.well-known/jwks.json"}"#;

#[test]
fn the_short_document_means_the_limits_of_the_design() {
    let config = load(GOOD).unwrap();
    let limits = |method: &str, route: &str| {
        let rules = config.policy.rules(Tier::Free, method, route);
        rules.iter().map(|rule| rule.max).collect::<Vec<_>>()
    };
    assert_eq!(limits("POST", "/api/v1/registry/agents"), [60, 10, 5]);
    assert_eq!(limits("POST", "/api/v1/runtime/executions"), [60, 100, 5]);
    assert_eq!(limits("DELETE", "/api/v1/registry/agents/{agent}"), [60, 5, 5]);
    assert_eq!(limits("GET", "/api/v1/registry/agents"), [60, 1000, 5]);
    assert!(!format!("{:?}", config.store).contains("hunter2"));
    let enterprise = config.policy.rules(Tier::Enterprise, "GET", "/x");
    assert_eq!(enterprise[0].max, 6000);
}

#[test]
fn the_designs_endpoints_are_routes_of_the_matrix() {
    let matrix = rbac::Matrix::builtin().unwrap();
    for (method, template, _) in ENDPOINTS {
        let known = |route: &&rbac::Route| route.method == *method && route.template == *template;
        assert!(matrix.routes().iter().any(|route| known(&route)), "{method} {template}");
    }
}

#[test]
fn limits_can_be_written_out_and_the_burst_guard_switched_off() {
    let text = GOOD.replace(
        "\"issuers\"",
        r#""limits": {"tiers": {"free": 3}, "endpoints": [{"method": "GET", "route": "/x", "per_minute": 2}],
            "endpoint_default": 7, "window_s": 5, "burst_multiplier": 0}, "issuers""#,
    );
    let config = load(&text).unwrap();
    let limits = |tier, method: &str, route: &str| {
        let rules = config.policy.rules(tier, method, route);
        rules.iter().map(|rule| (rule.max, rule.span.seconds())).collect::<Vec<_>>()
    };
    assert_eq!(limits(Tier::Free, "GET", "/x"), [(3, 5), (2, 5)]);
    assert_eq!(limits(Tier::Pro, "POST", "/api/v1/registry/agents"), [(600, 5), (7, 5)]);
}

#[test]
fn a_listener_that_another_machine_can_reach_is_refused() {
    for good in ["\"[::1]:8083\"", "\"unix:/run/gatehouse/sidecar.sock\""] {
        check(&[(SERVED, good)], &[]);
    }
    for (bad, shown) in [("0.0.0.0:8083", "0.0.0.0:8083"), ("10.0.0.1:8083", "10.0.0.1:8083")] {
        let mistake = format!(
            "$.listen: {shown} can be reached from other machines; write a loopback address such as \"127.0.0.1:8081\""
        );
        check(&[(SERVED, &format!("\"{bad}\""))], &[&mistake]);
    }
    check(
        &[(SERVED, "\"unix:sidecar.sock\"")],
        &["$.listen: not an absolute path; write \"unix:/run/gatehouse/sidecar.sock\""],
    );
}

#[test]
fn the_memory_store_must_be_asked_for_and_serves_one_sidecar() {
    check(&[(STORE, r#""kind": "memory", "sidecars": 1"#)], &[]);
    check(
        &[(STORE, r#""kind": "memory", "sidecars": 2"#)],
        &[
            "$.store.sidecars: 2 sidecars cannot share windows in memory; write \"kind\": \"redis\", or 1 if there is one sidecar only",
        ],
    );
    check(
        &[(STORE, r#""kind": "memory""#)],
        &["$.store.sidecars: missing; write a whole number from 1 to 10000"],
    );
    check(&[(STORE, "")], &["$.store.kind: missing; write \"redis\" or \"memory\""]);
}

#[test]
fn an_issuers_keys_come_from_no_internal_listener_and_without_tls_for_now() {
    let with = |jwks: &str| format!(r#"{{"issuer": "https://a", "jwks": "{jwks}"}}"#);
    check(&[(ISSUER, &with("http://127.0.0.1:8080/jwks"))], &[]);
    for internal in ["http://localhost:8082/x", "http://127.0.0.1:8083/", "http://127.0.0.1:8084/"]
    {
        check(
            &[(ISSUER, &with(internal))],
            &["$.issuers[0].jwks: an internal listener of ours; write the issuer's public address"],
        );
    }
    check(
        &[(ISSUER, &with("https://idp.example/jwks"))],
        &[
            "$.issuers[0].jwks: https is not supported yet; write an http:// URL on this machine or in the mesh",
        ],
    );
    let twice = format!("{ISSUER}, {ISSUER}");
    check(
        &[(ISSUER, &twice)],
        &["$.issuers[1].issuer: \"https://auth.example\" stands twice; list every issuer once"],
    );
}

#[test]
fn the_control_api_is_asked_on_this_machine_only() {
    check(
        &[("http://127.0.0.1:8082", "http://10.1.2.3:8082")],
        &[
            "$.control_api.internal: http://10.1.2.3:8082/ is not on this machine; write a loopback address such as \"http://127.0.0.1:8082\"",
        ],
    );
}

#[test]
fn a_negative_limit_is_a_mistake_and_so_is_a_misspelt_one() {
    check(
        &[("\"issuers\"", r#""limits": {"tiers": {"free": -1, "por": 2}}, "issuers""#)],
        &[
            "$.limits.tiers.free: -1 does not fit; write a whole number from 0 to 16777215",
            "$.limits.tiers.por: unknown field; remove it; known here: enterprise, free, pro",
        ],
    );
}
