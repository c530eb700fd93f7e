//! Tests of the limiter's part of the edge document.

use gatehouse_contract::Tier;

use super::*;

fn limiter(value: Value) -> impl FnOnce(&mut Value) {
    move |document| document["limiter"] = value
}

fn read(value: Value) -> Limiter {
    compile(limiter(value)).unwrap().0.limiter
}

fn asks(limiter: &Limiter) -> &Asks {
    match &limiter.decides {
        Decides::Sidecar(asks) => asks,
        other => panic!("{other:?}"),
    }
}

#[test]
fn limits_in_the_vm_are_read_strictly() {
    let limiter = |value: Value| move |document: &mut Value| document["limiter"] = value;
    check(limiter(json!({"local": {"per_minute": 1}})), &[]);
    let expected =
        "write \"closed\", \"open\", {\"away\": \"local\"} or {\"local\": {\"per_minute\": 600}}";
    check(limiter("local".into()), &[&format!("$.limiter: \"local\" does not fit; {expected}")]);
    check(
        limiter(json!({"local": {"per_minute": 0}})),
        &["$.limiter.local.per_minute: 0 does not fit; write a whole number from 1 to 1000000"],
    );
    check(
        limiter(json!({"local": {"per_second": 1}})),
        &[
            "$.limiter.local.per_minute: missing; write a whole number from 1 to 1000000",
            "$.limiter.local.per_second: unknown field; remove it; known here: per_minute",
        ],
    );
}

#[test]
fn the_short_forms_say_what_they_said() {
    for (word, away) in [("closed", Away::Closed), ("open", Away::Open)] {
        let limiter = read(word.into());
        let asks = asks(&limiter);
        for tier in Tier::ALL {
            assert_eq!(asks.away.of(*tier), away);
            assert_eq!(asks.share.of(*tier), None);
        }
        assert!(asks.leases && !asks.subjects && !limiter.shadow);
    }
    for value in [Value::Null, json!({})] {
        assert_eq!(asks(&read(value)).away.of(Tier::Free), Away::Local);
    }
}

#[test]
fn every_tier_has_its_policy_for_an_outage() {
    let limiter = read(json!({
        "away": {"free": "closed", "enterprise": "open"},
        "local_share": {"pro": 30, "free": 0},
    }));
    let asks = asks(&limiter);
    let of = |tier| (asks.away.of(tier), asks.share.of(tier));
    assert_eq!(of(Tier::Free), (Away::Closed, Some(0)));
    assert_eq!(of(Tier::Pro), (Away::Local, Some(30)));
    assert_eq!(of(Tier::Enterprise), (Away::Open, None));
    check(
        limiter_with("away", json!({"free": "shut", "gold": "open"})),
        &[
            "$.limiter.away.free: \"shut\" does not fit; write \"local\", \"open\" or \"closed\"",
            "$.limiter.away.gold: unknown field; remove it; known here: enterprise, free, pro",
        ],
    );
    check(
        limiter_with("local_share", json!({"pro": -1})),
        &["$.limiter.local_share.pro: -1 does not fit; write a whole number from 0 to 1000000"],
    );
}

fn limiter_with(name: &str, value: Value) -> impl FnOnce(&mut Value) {
    let mut members = serde_json::Map::new();
    members.insert(name.to_owned(), value);
    limiter(Value::Object(members))
}

#[test]
fn r24_costs_name_routes_that_are_there() {
    let cost = |method: &str, route: &str, cost: u32| json!([{"method": method, "route": route, "cost": cost}]);
    let agents = "/api/v1/registry/agents";
    let limiter = read(json!({"costs": cost("POST", agents, 5), "cost_header": "X-Request-Cost"}));
    let (suite, _) = compile(|_| {}).unwrap();
    let place = |method| suite.routes.named(method, agents).unwrap();
    assert_eq!((limiter.cost(place("POST")), limiter.cost(place("GET"))), (5, 1));
    assert_eq!(limiter.cost_header.as_deref(), Some("x-request-cost"));
    check(
        limiter_with("costs", cost("POST", "/api/v1/none", 5)),
        &["$.limiter.costs[0].route: there is no route POST /api/v1/none; \
           write a method and a route's template as in the role matrix"],
    );
    check(
        limiter_with("costs", cost("POST", agents, 0)),
        &["$.limiter.costs[0].cost: 0 does not fit; write a whole number from 1 to 10000"],
    );
    for name in ["x-ratelimit-limit", "RateLimit", "x-tenant-id", "two words", "", ":status"] {
        let mistakes = compile(limiter_with("cost_header", name.into())).unwrap_err();
        assert_eq!(mistakes[0].path, "$.limiter.cost_header", "{name}");
    }
}

#[test]
fn r15_a_bypass_names_spiffe_ids_and_a_host_that_can_verify_them() {
    let ids = |ids: Value| json!({"bypass": {"spiffe_ids": ids}});
    let good = ["spiffe://mesh.local/ns/b/sa/b", "spiffe://mesh.local/ns/a/sa/a"];
    assert_eq!(read(ids(json!(good))).internal, [good[1], good[0]]);
    for bad in [
        "mesh.local/ns/a",
        "spiffe://",
        "spiffe://mesh.local",
        "spiffe://mesh.local/",
        "spiffe://Mesh.local/a",
        "spiffe://mesh.local/a//b",
        "spiffe://mesh.local/a/../b",
        "spiffe://mesh.local/a/",
        "spiffe://mesh.local/*",
        "spiffe://mesh.local/a?b",
        "https://mesh.local/a",
    ] {
        let mistakes = compile(limiter(ids(json!([bad])))).unwrap_err();
        assert_eq!(mistakes[0].path, "$.limiter.bypass.spiffe_ids[0]", "{bad}");
    }
    let nobody = compile(limiter(ids(json!([])))).unwrap_err();
    assert_eq!(nobody[0].path, "$.limiter.bypass.spiffe_ids");
    let on_kong = |document: &mut Value| {
        document["host"] = "kong".into();
        document["signatures"] = "portable".into();
        document["sidecar"]["target"] = "127.0.0.1:9000".into();
        document["limiter"] = ids(json!(good));
    };
    check(
        on_kong,
        &[
            "$.limiter.bypass: Kong's Wasm host cannot tell who the peer of a connection proved to be; \
           remove it: on Kong nobody bypasses the limits",
        ],
    );
}

#[test]
fn leases_stay_off_on_kong() {
    let on_kong = |leases: Value| {
        compile(move |document| {
            document["host"] = "kong".into();
            document["signatures"] = "portable".into();
            document["sidecar"]["target"] = "127.0.0.1:9000".into();
            document["limiter"] = json!({ "leases": leases });
        })
        .unwrap()
    };
    for (leases, paths) in [(Value::Null, vec![]), (true.into(), vec!["$.limiter.leases"])] {
        let (suite, warnings) = on_kong(leases);
        assert!(!asks(&suite.limiter).leases);
        let got: Vec<_> = warnings.iter().map(|warning| warning.path.as_str()).collect();
        assert_eq!(got, paths);
    }
    assert!(!asks(&read(json!({"leases": false}))).leases);
}

#[test]
fn what_asks_the_sidecar_does_not_stand_beside_a_limit_of_the_vm() {
    check(
        limiter(json!({"local": {"per_minute": 9}, "away": "open", "leases": false})),
        &[
            "$.limiter.away: is for a limiter that asks the sidecar; \
             remove it, or remove \"local\" to have the sidecar decide",
            "$.limiter.leases: is for a limiter that asks the sidecar; \
             remove it, or remove \"local\" to have the sidecar decide",
        ],
    );
    let limiter = read(json!({
        "local": {"per_minute": 9}, "shadow": true, "reset": "epoch", "upstream_headers": "lowest",
        "failed_authn_per_minute": 30, "trusted_hops": 2,
    }));
    assert!(limiter.shadow && limiter.reset == Reset::Epoch);
    assert_eq!(limiter.upstream_headers, UpstreamHeaders::Lowest);
    assert_eq!(limiter.failed_authn_per_minute.map(std::num::NonZeroU32::get), Some(30));
    assert_eq!(limiter.trusted_hops, 2);
}

#[test]
fn mistakes_of_single_words_are_told() {
    for (name, value, mend) in [
        ("shadow", json!("yes"), "write true or false"),
        ("reset", json!("absolute"), "write \"delta\" or \"epoch\""),
        ("upstream_headers", json!("both"), "write \"override\", \"keep\" or \"lowest\""),
        ("failed_authn_per_minute", json!(0), "write a whole number from 1 to 1000000"),
        ("trusted_hops", json!(17), "write a whole number from 0 to 16"),
        ("subjects", json!(1), "write true or false"),
    ] {
        let shown = value.to_string();
        let expected = format!("$.limiter.{name}: {shown} does not fit; {mend}");
        check(limiter_with(name, value), &[&expected]);
    }
    assert_eq!(warnings(limiter_with("shadow", true.into())), ["$.limiter.shadow"]);
}
