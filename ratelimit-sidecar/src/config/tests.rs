//! Documents and what they mean or why they are refused.

use gatehouse_contract::{Tier, document, rbac};

use super::*;

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
        let rules = config.limits.policy.rules(Tier::Free, method, route);
        rules.iter().map(|rule| rule.max).collect::<Vec<_>>()
    };
    assert_eq!(limits("POST", "/api/v1/registry/agents"), [60, 10, 5]);
    assert_eq!(limits("POST", "/api/v1/runtime/executions"), [60, 100, 5]);
    assert_eq!(limits("DELETE", "/api/v1/registry/agents/{agent}"), [60, 5, 5]);
    assert_eq!(limits("GET", "/api/v1/registry/agents"), [60, 1000, 5]);
    assert!(!format!("{:?}", config.store).contains("hunter2"));
    let enterprise = config.limits.policy.rules(Tier::Enterprise, "GET", "/x");
    assert_eq!(enterprise[0].max, 6000);
}

#[test]
fn the_example_is_a_whole_configuration_with_the_defaults_written_out() {
    let dir = tempfile::tempdir().unwrap();
    let peppers = dir.path().join("peppers.json");
    let digits = "0a".repeat(32);
    std::fs::write(&peppers, format!(r#"{{"current":"p","peppers":{{"p":"{digits}"}}}}"#)).unwrap();
    let text = include_str!("../../../examples/gateway/ratelimit-sidecar.json");
    let text = text.replace("/etc/gatehouse/peppers.json", peppers.to_str().unwrap());
    let (example, short) = (load(&text).unwrap(), load(GOOD).unwrap());
    assert_eq!((example.ages, example.last_used_every), (short.ages, short.last_used_every));
    assert_eq!(format!("{:?}", example.limits), format!("{:?}", short.limits));
    assert_eq!(example.bounds, short.bounds);
    assert_eq!(format!("{:?}", example.grpc), format!("{:?}", short.grpc));
    assert_eq!(example.issuers.len(), 3);
    assert!(example.peppers.is_some() && short.peppers.is_none());
}

#[test]
fn the_designs_endpoints_are_routes_of_the_matrix() {
    let matrix = rbac::Matrix::builtin().unwrap();
    for (method, template, _) in limits::ENDPOINTS {
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
        let rules = config.limits.policy.rules(tier, method, route);
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
    check(
        &[(STORE, "")],
        &["$.store.kind: missing; write \"redis\", \"redis_cluster\" or \"memory\""],
    );
}

#[test]
fn j39_an_issuers_keys_come_from_no_internal_listener_and_without_tls_only_where_they_are_named() {
    let with = |members: &str| format!(r#"{{"issuer": "https://a", {members}}}"#);
    for good in [
        r#""jwks": "http://127.0.0.1:8080/jwks""#,
        r#""jwks": "https://10.0.0.1/jwks""#,
        r#""jwks": "https://idp.example/jwks""#,
        r#""discovery": true"#,
    ] {
        check(&[(ISSUER, &with(good))], &[]);
    }
    for internal in ["http://localhost:8082/x", "http://127.0.0.1:8083/", "http://127.0.0.1:8084/"]
    {
        check(
            &[(ISSUER, &with(&format!("\"jwks\": \"{internal}\"")))],
            &["$.issuers[0].jwks: an internal listener of ours; write the issuer's public address"],
        );
    }
    let twice = format!("{ISSUER}, {ISSUER}");
    check(
        &[(ISSUER, &twice)],
        &["$.issuers[1].issuer: \"https://auth.example\" stands twice; list every issuer once"],
    );
    for (members, mistake) in [
        (
            r#""jwks": "http://a@idp/jwks""#,
            "jwks: carries a user or a password; write a URL such as \"https://idp.example/path\"",
        ),
        (
            r#""x": 1"#,
            "jwks: missing; write the address of the issuer's keys, or \"discovery\": true",
        ),
        (
            r#""jwks": "https://a/x", "discovery": true"#,
            "jwks: stands beside \"discovery\"; write one of both",
        ),
    ] {
        let mistake = format!("$.issuers[0].{mistake}");
        let unknown =
            "$.issuers[0].x: unknown field; remove it; known here: discovery, issuer, jwks";
        let expected =
            if members.contains("\"x\"") { vec![&*mistake, unknown] } else { vec![&*mistake] };
        check(&[(ISSUER, &with(members))], &expected);
    }
}

#[test]
fn j39_discovery_begins_at_a_public_https_address_or_at_one_that_is_allowed() {
    let issuer = |issuer: &str| format!(r#"{{"issuer": "{issuer}", "discovery": true}}"#);
    let allow = |origin: &str| format!(r#""allow": ["{origin}"], "issuers""#);
    let mend = "write an https:// address, or name its scheme, host and port in $.allow";
    check(
        &[(ISSUER, &issuer("http://idp.corp/t"))],
        &[&format!(
            "$.issuers[0].issuer: http://idp.corp is not https and is not named as an exception; {mend}"
        )],
    );
    check(
        &[(ISSUER, &issuer("https://10.0.0.1"))],
        &[&format!(
            "$.issuers[0].issuer: https://10.0.0.1 leads to 10.0.0.1, which is not a public address; {mend}"
        )],
    );
    check(
        &[(ISSUER, &issuer("http://idp.corp/t")), ("\"issuers\"", &allow("http://idp.corp"))],
        &[],
    );
    check(
        &[(ISSUER, &issuer("https://idp.corp?x"))],
        &[
            "$.issuers[0].issuer: an issuer with a query or a fragment has no discovery document; write \"jwks\" with the address of its keys",
        ],
    );
    check(
        &[("\"issuers\"", &allow("http://idp.corp/x"))],
        &[
            "$.allow[0]: \"http://idp.corp/x\" does not fit; write a scheme, a host and a port such as \"https://idp.corp:8443\"",
        ],
    );
}

#[test]
fn ages_of_key_sets_have_bounds() {
    let ages = load(GOOD).unwrap().ages;
    assert_eq!((ages.refresh.as_secs(), ages.cool_down.as_secs()), (300, 30));
    let keys = |members: &str| format!(r#""keys": {{{members}}}, "issuers""#);
    check(
        &[("\"issuers\"", &keys(r#""cool_down_s": 29"#))],
        &["$.keys.cool_down_s: 29 does not fit; write a whole number from 30 to 3600"],
    );
    check(
        &[("\"issuers\"", &keys(r#""refresh_min_s": 901"#))],
        &[
            "$.keys.refresh_min_s: 901 is more than refresh_max_s, 900; write the smaller number here",
        ],
    );
}

#[test]
fn files_that_cannot_be_used_are_mistakes() {
    let with = |name: &str| format!(r#""{name}": "/nonexistent/x", "issuers""#);
    for (name, mend) in [
        ("ca_file", "name a PEM file of certificates"),
        (
            "peppers_file",
            r#"name the control API's file: {"current":"p1","peppers":{"p1":"…"}} with 64 hex digits"#,
        ),
    ] {
        check(
            &[("\"issuers\"", &with(name))],
            &[&format!(
                "$.{name}: /nonexistent/x cannot be read: No such file or directory (os error 2); {mend}"
            )],
        );
    }
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
