//! Single modules beside `auth`: each does its part, leaves the others', and lets nobody pass whom it should know.

use gatehouse_contract::header;
use serde_json::{Value, json};

use super::{AGENTS, TENANT, World, good};
use crate::{Parts, Suite};

/// Whom the module `auth` hands over for this caller.
fn handed_over() -> String {
    let mut auth = World::of(Parts::Auth, |_| {});
    let end = auth.send("GET", AGENTS, &[("authorization", &good())]);
    end.record().handover.as_ref().unwrap().to_string()
}

#[test]
fn v1_the_module_version_chooses_and_knows_nobody() {
    let mut world = World::of(Parts::Version, |document| {
        document["versions"] = json!({"served": ["v1", "v2"], "default": "v1"});
    });
    let headers = [
        ("accept", "application/vnd.greenlang.v2+json"),
        ("x-tenant-id", TENANT),
        ("cookie", "a=b"),
    ];
    let end = world.send("GET", "/api/registry/agents?tenant_id=x", &headers);
    let upstream = end.upstream();
    assert_eq!(upstream[":path"], ["/api/v2/registry/agents?tenant_id=x"]);
    // Whoever knows callers sees to these.
    assert_eq!((&upstream["x-tenant-id"], &upstream["cookie"]), (&vec![TENANT], &vec!["a=b"]));
    assert!(!upstream.contains_key(header::BAGGAGE), "{upstream:?}");
    assert_eq!(end.record().version.as_deref(), Some("v2"));
    assert_eq!(world.asked(), [""; 0]);
    assert_eq!(world.send("GET", "/api/v9/registry/agents", &[]).verdict(), "404 version_unknown");
    assert_eq!(world.send("GET", "/a/%2e%2e/%00", &[]).verdict(), "400 path_invalid");
    world.tick();
    assert_eq!((world.told.len(), world.suite.tick_period().is_some()), (0, true));
}

#[test]
fn v10_grace_needs_a_module_that_knows_tenants() {
    let text = |grace: Value| {
        let lifecycle = json!([{
            "version": "v1", "deprecated": "2026-01-01", "sunset": "2027-01-01", "grace": grace,
        }]);
        let versions = json!({"served": ["v1"], "default": "v1", "lifecycle": lifecycle});
        json!({"host": "envoy", "versions": versions}).to_string()
    };
    let refused = Suite::compile(&text(json!([TENANT])), Parts::Version).unwrap_err();
    assert_eq!(refused[0].path, "$.versions.lifecycle");
    let (suite, warnings) = Suite::compile(&text(json!([])), Parts::Version).unwrap();
    assert_eq!((suite.parts(), warnings), (Parts::Version, vec![]));
}

#[test]
fn r6_the_module_ratelimit_charges_whom_auth_handed_over() {
    let mut world = World::of(Parts::RateLimit, |document| document["limiter"] = "closed".into());
    world.handed_over = Some(handed_over());
    for _ in 0..2 {
        let end = world.send("GET", AGENTS, &[("x-tenant-id", TENANT)]);
        assert_eq!(end.upstream()["x-tenant-id"], [TENANT]);
        assert_eq!(end.record().limit.as_ref().unwrap().remaining, 599);
        let asked = &world.calls[0];
        assert!(asked.starts_with("/v1/lease") && asked.contains(TENANT), "{asked}");
        assert_eq!(world.calls.len(), 1);
    }
    world.check["allowed"] = false.into();
    assert_eq!(world.send("GET", AGENTS, &[]).verdict(), "429 quota_exceeded");
    assert_eq!(world.send("POST", "/oauth2/token", &[]).verdict(), "passed");
    assert_eq!(world.asked(), [""; 0], "a public route is free");
    assert_eq!(world.send("GET", "/api/v1/nothing", &[]).verdict(), "404 not_found");
    assert_eq!(world.send("BREW", AGENTS, &[]).verdict(), "405 method_not_allowed");
    let preflight = [("origin", "https://a.b"), ("access-control-request-method", "GET")];
    assert_eq!(world.send("OPTIONS", AGENTS, &preflight).verdict(), "passed");
}

#[test]
fn r6_an_override_goes_along_with_the_caller() {
    let mut auth = World::of(Parts::Auth, |_| {});
    let limits = json!({"per_window": 7});
    let limits: Result<gatehouse_contract::sidecar::Overrides, _> = serde_json::from_value(limits);
    auth.principal.1.limits = Some(limits.unwrap());
    let end = auth.send("GET", AGENTS, &[("authorization", &good())]);
    let expected = serde_json::to_value(auth.principal.1.limits.as_ref().unwrap()).unwrap();
    let mut world = World::of(Parts::RateLimit, |_| {});
    world.handed_over = end.record().handover.as_ref().map(ToString::to_string);
    world.send("GET", AGENTS, &[]);
    let asked: Value = serde_json::from_str(world.calls[0].split_once(' ').unwrap().1).unwrap();
    assert_eq!(asked["check"]["limits"], expected);
}

#[test]
fn r17_without_a_caller_the_module_ratelimit_lets_nobody_pass() {
    let mut world = World::of(Parts::RateLimit, |_| {});
    let whole = handed_over();
    let mut more: Value = serde_json::from_str(&whole).unwrap();
    more["admin"] = true.into();
    for broken in [
        None,
        Some(String::new()),
        Some("{}".to_owned()),
        Some(whole[..whole.len() - 1].to_owned()),
        Some(whole.replace(TENANT, "somebody")),
        Some(whole.replace("\"subject\":\"s\"", "\"subject\":\"\"")),
        Some(more.to_string()),
    ] {
        world.handed_over = broken.clone();
        let end = world.send("GET", AGENTS, &[("authorization", &good())]);
        assert_eq!(end.verdict(), "503 identity_unavailable", "{broken:?}");
        assert_eq!(world.asked(), [""; 0]);
    }
}

#[test]
fn one_document_serves_every_module_and_each_needs_its_own_part_only() {
    let whole: Value = serde_json::from_str(super::DOCUMENT).unwrap();
    for parts in Parts::ALL {
        assert!(Suite::compile(&whole.to_string(), parts).is_ok(), "{parts:?}");
        let mut misspelt = whole.clone();
        misspelt["limitr"] = json!({});
        assert!(Suite::compile(&misspelt.to_string(), parts).is_err(), "{parts:?}");
    }
    for (parts, own) in [
        (Parts::Version, json!({"host": "envoy", "versions": whole["versions"]})),
        (Parts::RateLimit, json!({"host": "envoy", "sidecar": whole["sidecar"]})),
    ] {
        assert!(Suite::compile(&own.to_string(), parts).is_ok(), "{parts:?}");
        assert!(Suite::compile(&own.to_string(), Parts::Suite).is_err());
        let kong = own.to_string().replace("envoy", "kong");
        assert!(Suite::compile(&kong, parts).is_err(), "Kong has no hand-over");
    }
    let nobody = json!({"host": "envoy"}).to_string();
    assert!(Suite::compile(&nobody, Parts::RateLimit).is_err(), "nobody would count");
}

#[test]
fn x1_the_module_transform_knows_the_caller_that_auth_handed_over_and_refuses_nobody() {
    let mut world = World::of(Parts::Transform, |document| {
        document["transforms"] = json!({
            "request": {"headers": [{"set": "x-team", "value": "${tenant} at ${route}"}]},
        });
    });
    let team = |world: &mut World| {
        let end = world.send("GET", AGENTS, &[("x-tenant-id", TENANT), ("x-team", "mine")]);
        assert_eq!(end.upstream()["x-tenant-id"], [TENANT]);
        end.upstream().get("x-team").map(|values| values.join(","))
    };
    assert_eq!(team(&mut world), None);
    world.handed_over = Some(handed_over());
    assert_eq!(team(&mut world), Some(format!("{TENANT} at {AGENTS}")));
    assert_eq!(world.asked(), [""; 0]);
}

#[test]
fn j26_the_module_transform_neither_renames_nor_copies_a_token_in_the_query() {
    let change = |op: &Value, sources: &Value| {
        let transforms = json!({"request": {"query": [op]}});
        let mut document = json!({
            "host": "envoy", "versions": {"served": ["v1"], "default": "v1"}, "transforms": transforms,
        });
        document["sources"] = sources.clone();
        match Suite::compile(&document.to_string(), Parts::Transform) {
            Ok(_) => Vec::new(),
            Err(mistakes) => mistakes.into_iter().map(|mistake| mistake.path).collect(),
        }
    };
    let named = json!({"query": "token"});
    for (op, at) in [
        (json!({"rename": "token", "to": "t"}), ".rename"),
        (json!({"rename": "t", "to": "token"}), ".to"),
        (json!({"set": "token", "value": "x"}), ".set"),
        (json!({"add": "token", "value": "x"}), ".add"),
        (json!({"remove": "token"}), ".remove"),
    ] {
        let path = format!("$.transforms.request.query[0]{at}");
        assert_eq!(change(&op, &named), [path], "{op}");
        assert_eq!(change(&op, &json!({"query": "other", "forward": false})), [""; 0], "{op}");
        assert_eq!(change(&op, &json!({})), [""; 0], "{op}");
        assert_eq!(change(&op, &Value::Null), ["$.sources"], "who says nothing may mean any");
    }
    for template in ["${query.token}", "${header.authorization}", "${token}"] {
        let op = json!({"set": "t", "value": template});
        assert_eq!(change(&op, &named), ["$.transforms.request.query[0].value"], "{template}");
    }
    assert_eq!(
        change(&json!({"remove": "t"}), &json!({"query": "a b"})),
        ["$.sources.query"],
        "judged, as it is used"
    );
}
