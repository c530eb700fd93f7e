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

/// `members` of `$.limits`; what weighs on `GET /x` of a tier as `name max/seconds algorithm`.
fn weighs(members: &str, tier: Tier) -> Vec<String> {
    let text = GOOD.replace("\"issuers\"", &format!("\"limits\": {{{members}}}, \"issuers\""));
    let config = load(&text).unwrap();
    let asked = gatehouse_ratelimit::Asked {
        tier,
        limits: None,
        subject: Some("u"),
        method: "GET",
        route: "/x",
    };
    let rules = config.limits.policy.with(&asked);
    let shown = |rule: &gatehouse_ratelimit::Rule| {
        format!("{} {}/{} {:?}", rule.name, rule.max, rule.span.seconds(), rule.algorithm())
    };
    rules.iter().map(shown).collect()
}

#[test]
fn r22_a_tier_may_have_a_day_a_callers_limit_or_no_limit() {
    let none = r#""endpoint_default": "unlimited", "endpoints": [], "burst_multiplier": 0"#;
    let tiers = r#""tiers": {"free": {"per_day": 9, "per_subject": 4}, "pro": {"per_window": "unlimited"},
        "enterprise": {"per_minute": 7}}"#;
    let members = format!("{none}, {tiers}");
    assert_eq!(
        weighs(&members, Tier::Free),
        ["tenant 60/60 SubBuckets", "day 9/86400 Day", "subject 4/60 SubBuckets"]
    );
    assert_eq!(weighs(&members, Tier::Pro), [""; 0]);
    assert_eq!(weighs(&members, Tier::Enterprise), ["tenant 7/60 SubBuckets"]);
    let zero = r#""tiers": {"free": 0}"#;
    assert_eq!(weighs(&format!("{none}, {zero}"), Tier::Free), ["tenant 0/60 SubBuckets"]);
}

#[test]
fn windows_are_counted_as_it_is_written_and_an_endpoint_in_its_own_way() {
    let endpoint = r#"{"method": "GET", "route": "/x", "per_window": 2, "algorithm": "gcra"}"#;
    let members =
        format!(r#""algorithm": "ring", "burst_multiplier": 0, "endpoints": [{endpoint}]"#);
    assert_eq!(weighs(&members, Tier::Free), ["tenant 60/60 Ring", "endpoint 2/60 Gcra"]);
}

#[test]
fn what_holds_while_the_store_is_away_is_a_tiers_own() {
    let members = r#""limits": {"mode": "strict", "tiers": {"free": {"away": "closed"}, "pro": {"away": "open"}}}, "queue": 7,
        "breaker": {"failures": 2, "late_percent": 50, "probe_ms": 100}, "redis_timeout_ms": 30, "issuers""#;
    let config = load(&GOOD.replace("\"issuers\"", members)).unwrap();
    let away = Tier::ALL.iter().map(|tier| config.limits.away(*tier)).collect::<Vec<_>>();
    assert_eq!(away, [Away::Closed, Away::Open, Away::Local]);
    assert_eq!(config.limits.mode, Mode::Strict);
    let ms = Duration::from_millis;
    let bounds =
        Bounds { deadline: ms(30), queue: 7, failures: 2, late_percent: 50, probe: ms(100) };
    assert_eq!(config.bounds, bounds);
}

#[test]
fn limits_that_do_not_fit_are_mistakes() {
    let limits = |members: &str| format!(r#""limits": {{{members}}}, "issuers""#);
    let whole = "write a whole number from 0 to 16777215";
    for (members, mistake) in [
        (r#""tiers": {"free": 1.5}"#, format!("tiers.free: 1.5 does not fit; {whole}")),
        (r#""tiers": {"free": {"per_window": -1}}"#, format!("tiers.free.per_window: -1 does not fit; {whole}")),
        (r#""tiers": {"free": {"per_window": 16777216}}"#, format!("tiers.free.per_window: 16777216 does not fit; {whole}")),
        (r#""tiers": {"free": {"per_window": 1, "per_minute": 1}}"#, "tiers.free.per_minute: stands beside \"per_window\"; write one of both".to_owned()),
        (r#""tiers": {"free": {"away": "pass"}}"#, "tiers.free.away: \"pass\" does not fit; write \"local\", \"open\" or \"closed\"".to_owned()),
        (r#""tiers": {"free": {"per_hour": 1}}"#, "tiers.free.per_hour: unknown field; remove it; known here: away, per_day, per_minute, per_subject, per_window".to_owned()),
        (r#""endpoints": [{"method": "GET", "route": "/x", "per_window": "unlimited"}]"#, format!("endpoints[0].per_window: \"unlimited\" does not fit; {whole}")),
        (r#""algorithm": "day""#, "algorithm: \"day\" does not fit; write \"sub_buckets\", \"ring\", \"sorted_set\" or \"gcra\"".to_owned()),
        (r#""mode": "fast""#, "mode: \"fast\" does not fit; write \"auto\", \"lease\" or \"strict\"".to_owned()),
    ] {
        check(&[("\"issuers\"", &limits(members))], &[&format!("$.limits.{mistake}")]);
    }
    check(
        &[("\"issuers\"", r#""queue": 0, "grpc": {"domains": []}, "issuers""#)],
        &[
            "$.queue: 0 does not fit; write a whole number from 1 to 1000000",
            "$.grpc.domains: empty; write at least one name, such as [\"gatehouse\"]",
        ],
    );
}

#[test]
fn a_cluster_is_named_by_some_of_its_nodes() {
    let cluster = |urls: &str| format!(r#""kind": "redis_cluster", "urls": {urls}"#);
    let good = GOOD
        .replace(STORE, &cluster(r#"["redis://u:hunter2@127.0.0.1:7000", "redis://[::1]:7001"]"#));
    let config = load(&good).unwrap();
    let StoreKind::RedisCluster(seeds) = &config.store else { panic!("{:?}", config.store) };
    assert_eq!(seeds.len(), 2);
    assert!(!format!("{:?}", config.store).contains("hunter2"));
    let mend = "write a list of 1 to 64 nodes, such as [\"redis://user:password@host:port\"]";
    for bad in ["[]", "7"] {
        check(&[(STORE, &cluster(bad))], &[&format!("$.store.urls: not a list of nodes; {mend}")]);
    }
    for bad in ["rediss//u:hunter2@x", "redis+unix:///run/redis.sock"] {
        check(
            &[(STORE, &cluster(&format!("[\"{bad}\"]")))],
            &["$.store.urls[0]: not a Redis address; write \"redis://user:password@host:port\""],
        );
    }
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
            r#"write {"current":"p1","peppers":{"p1":"…"}} with 64 hex digits from `openssl rand -hex 32`, the same for the control API and its sidecars"#,
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
