//! The tenant that a request names beside its credential, hosts, preflights and the signed context.

use gatehouse_authn::context::{Key, Reader};

use super::*;

const RECORD: &str = "/api/v1/factory/tenants/";

fn get(world: &mut World, path: &str, more: &[(&str, &str)]) -> String {
    let good = good();
    let mut headers = vec![("authorization", good.as_str())];
    headers.extend_from_slice(more);
    world.send("GET", path, &headers).verdict()
}

#[test]
fn t8_another_tenant_in_path_or_query_is_the_404_of_a_missing_one() {
    let mut world = World::new().roles(&[Role::Admin], false);
    let (own, other) = (format!("{RECORD}{TENANT}"), format!("{RECORD}{OTHER_TENANT}"));
    let reason = [("x-gatehouse-reason", "ticket 7")];
    assert_eq!(get(&mut world, &own, &[]), "passed");
    let end = world.send("GET", &other, &[("authorization", &good())]);
    let missing = world.send("GET", "/api/v1/nope", &[("authorization", &good())]);
    assert_eq!(
        (end.verdict(), missing.verdict()),
        ("404 not_found".into(), "404 not_found".into())
    );
    let body = |end: &End| {
        let mut problem = end.problem();
        problem.remove("request_id");
        problem.remove("instance");
        problem
    };
    assert_eq!(body(&end), body(&missing), "nothing tells them apart");
    assert_eq!(get(&mut world, &other, &reason), "404 not_found", "a reason is not a membership");
    for (query, expected) in [
        (format!("tenant_id={TENANT}"), "passed"),
        (format!("a=1&tenant_id={}", TENANT.to_uppercase()), "passed"),
        (format!("tenant_id={OTHER_TENANT}"), "404 not_found"),
        (format!("tenant%5Fid={OTHER_TENANT}"), "404 not_found"),
        (format!("tenant_id={TENANT}&tenant_id={OTHER_TENANT}"), "404 not_found"),
        ("tenant_id=".to_owned(), "404 not_found"),
        ("tenant_id=acme".to_owned(), "404 not_found"),
        (format!("tenant_idx={OTHER_TENANT}"), "passed"),
    ] {
        assert_eq!(get(&mut world, &format!("{AGENTS}?{query}"), &[]), expected, "{query}");
    }
    assert!(!world.asked().contains(&"/v1/lease") || world.calls.len() == 1);
}

#[test]
fn t8_a_platform_member_passes_with_a_reason_and_not_without() {
    let mut world = World::new().roles(&[], true);
    let other = format!("{RECORD}{OTHER_TENANT}");
    assert_eq!(get(&mut world, &other, &[]), "404 not_found");
    assert_eq!(get(&mut world, &other, &[("x-gatehouse-reason", " ")]), "404 not_found");
    let good = good();
    let headers = [("authorization", good.as_str()), ("X-Gatehouse-Reason", "ticket 7")];
    let end = world.send("GET", &other, &headers);
    assert_eq!(end.upstream()["x-gatehouse-reason"], ["ticket 7"]);
    assert_eq!(end.upstream()["x-tenant-id"], [TENANT], "it speaks as itself");
    let two = format!("{other}?tenant_id={TENANT}");
    assert_eq!(get(&mut world, &two, &[("x-gatehouse-reason", "r")]), "404 not_found");
}

#[test]
fn t8_another_tenants_host_is_missing_too() {
    let mut world =
        World::with(|document| document["tenant_host_suffix"] = ".api.example.com".into());
    for (authority, expected) in [
        (format!("{TENANT}.api.example.com"), "passed"),
        (format!("{}.API.example.com.:443", TENANT.to_uppercase()), "passed"),
        ("gateway".to_owned(), "passed"),
        ("api.example.com".to_owned(), "passed"),
        (format!("{OTHER_TENANT}.api.example.com"), "404 not_found"),
        (format!("{OTHER_TENANT}.api.example.com."), "404 not_found"),
        (format!("x.{TENANT}.api.example.com"), "404 not_found"),
        ("acme.api.example.com".to_owned(), "404 not_found"),
    ] {
        let good = good();
        let headers = [
            (":method", "GET"),
            (":path", AGENTS),
            (":authority", authority.as_str()),
            ("authorization", &good),
        ];
        assert_eq!(world.send_raw(&headers).verdict(), expected, "{authority}");
    }
}

#[test]
fn p5_two_hosts_and_hosts_with_two_readings_are_refused() {
    let mut world = World::new();
    let mut send = |hosts: &[(&str, &str)]| {
        let mut headers = vec![(":method", "POST"), (":path", "/oauth2/token")];
        headers.extend_from_slice(hosts);
        world.send_raw(&headers).verdict()
    };
    for hosts in [
        vec![(":authority", "api.example")],
        vec![(":authority", "API.example:443"), ("host", "api.example.")],
        vec![("host", "api.example")],
    ] {
        assert_eq!(send(&hosts), "passed", "{hosts:?}");
    }
    for hosts in [
        vec![(":authority", "api.example"), ("host", "other.example")],
        vec![("host", "api.example"), ("host", "api.example")],
        vec![(":authority", "user@api.example")],
        vec![(":authority", "api.example/x")],
        vec![(":authority", "")],
        vec![(":authority", "a..b")],
    ] {
        assert_eq!(send(&hosts), "400 header_invalid", "{hosts:?}");
    }
}

#[test]
fn j32_a_preflight_needs_no_credential_and_a_bare_options_does() {
    let mut world = World::new();
    let origin = ("origin", "https://app.example");
    let asks = ("access-control-request-method", "POST");
    let spoofed = ("x-tenant-id", TENANT);
    let end = world.send("OPTIONS", AGENTS, &[origin, asks, spoofed]);
    assert!(!end.upstream().contains_key("x-tenant-id"), "T1: stripped here, too");
    assert!(world.calls.is_empty());
    for bare in [vec![], vec![origin], vec![asks]] {
        let end = world.send("OPTIONS", AGENTS, &bare);
        assert_eq!(end.verdict(), "401 credential_missing", "{bare:?}");
    }
    assert_eq!(world.send("GET", AGENTS, &[origin, asks]).verdict(), "401 credential_missing");
    assert_eq!(world.send("options", AGENTS, &[origin, asks]).verdict(), "401 credential_missing");
    let end = world.send("OPTIONS", "/internal/v1/principal", &[origin, asks]);
    assert_eq!(end.verdict(), "401 credential_missing", "what no rule opens stays closed");
}

#[test]
fn j35_an_upgrade_is_judged_as_any_request_and_connect_has_no_target() {
    let mut world = World::new();
    let upgrade = [("connection", "Upgrade"), ("upgrade", "websocket")];
    assert_eq!(world.send("GET", AGENTS, &upgrade).verdict(), "401 credential_missing");
    assert_eq!(get(&mut world, AGENTS, &upgrade), "passed");
    let connect = [(":method", "CONNECT"), (":authority", "db.internal:5432")];
    assert_eq!(world.send_raw(&connect).verdict(), "400 path_invalid");
    let good = good();
    let extended = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":path", AGENTS),
        (":authority", "gateway"),
        ("authorization", &good),
    ];
    assert_eq!(world.send_raw(&extended).verdict(), "405 method_not_allowed");
}

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

fn signing() -> World {
    let mut world = World::with(|document| {
        document["context"] = json!({"sign": [
            {"audience": "control-api", "key_env": "CONTROL_KEY"},
            {"audience": "runtime", "prefix": "/api/v1/runtime/", "key_env": "RUNTIME_KEY"},
        ]});
    });
    let keys = |name: &str| match name {
        "CONTROL_KEY" => Some(KEY.to_owned()),
        "RUNTIME_KEY" => Some(KEY.replace("AAEC", "BBEC")),
        _ => None,
    };
    let suite = std::mem::replace(&mut world.suite, World::new().suite);
    let (suite, warnings) = suite.with_keys(&keys).unwrap();
    assert_eq!(warnings, []);
    world.suite = suite;
    world
}

#[test]
fn the_signed_context_is_for_its_upstream_and_is_made_again_when_it_ages() {
    let mut world = signing();
    let context = |world: &mut World, path: &str| {
        let end =
            world.send("GET", path, &[("authorization", &good()), ("x-gatehouse-context", "evil")]);
        end.upstream()["x-gatehouse-context"].join("|")
    };
    let reader =
        |audience: &str, key: &str| Reader::new(audience, &key.parse::<Key>().unwrap(), None);
    let control = reader("control-api", KEY);
    let runtime = reader("runtime", &KEY.replace("AAEC", "BBEC"));
    let first = context(&mut world, AGENTS);
    let facts = control.read(first.as_bytes(), world.now).unwrap();
    assert_eq!((facts.tenant.to_string(), facts.subject.as_str()), (TENANT.to_owned(), "s"));
    assert!(runtime.read(first.as_bytes(), world.now).is_err());
    let other = context(&mut world, "/api/v1/runtime/executions");
    assert!(runtime.read(other.as_bytes(), world.now).is_ok());
    assert!(control.read(other.as_bytes(), world.now).is_err());
    world.now = NOW + Duration::from_secs(4);
    assert_eq!(context(&mut world, AGENTS), first, "kept with the identity");
    world.now = NOW + Duration::from_secs(40);
    let later = context(&mut world, AGENTS);
    assert_ne!(later, first);
    assert!(control.read(later.as_bytes(), world.now).is_ok());
    let end = world.send("POST", "/oauth2/token", &[("x-gatehouse-context", "evil")]);
    assert!(!end.upstream().contains_key("x-gatehouse-context"));
}

#[test]
fn a_context_without_its_key_passes_nobody() {
    let mut world = World::with(|document| {
        document["context"] = json!({"sign": [{"audience": "a", "key_env": "A"}]});
    });
    assert_eq!(get(&mut world, AGENTS, &[]), "503 identity_unavailable");
    assert_eq!(world.send("POST", "/oauth2/token", &[]).verdict(), "passed");
}

#[test]
fn only_the_headers_that_are_asked_for_are_set() {
    let mut world = World::with(|document| {
        document["context"] = json!({"headers": ["X-Tenant-ID", "x-user-id"]});
    });
    let good = good();
    let headers = [("authorization", good.as_str()), ("x-user-roles", "admin")];
    let end = world.send("GET", AGENTS, &headers);
    let upstream = end.upstream();
    assert_eq!(upstream["x-tenant-id"], [TENANT]);
    assert_eq!(upstream["x-user-id"], ["s"]);
    for name in ["x-user-roles", "x-tenant-tier", "x-auth-method"] {
        assert!(!upstream.contains_key(name), "{name}");
    }
}
