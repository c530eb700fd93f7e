//! What differs in Kong: nothing can be removed, the path is a property, and duplicates stay beside a set.

use super::*;

fn kong() -> World {
    World::with(|document| {
        document["host"] = "kong".into();
        document["sidecar"]["target"] = "127.0.0.1:9000".into();
    })
}

#[test]
fn on_kong_identity_headers_are_overwritten_or_blank() {
    let mut world = kong();
    let good = good();
    let spoofed = [
        ("authorization", good.as_str()),
        ("X-Tenant-ID", "evil"),
        ("x_tenant_id", "evil"),
        ("X-Gatehouse-Context", "evil"),
        ("baggage", "tenant.id=evil"),
    ];
    let end = world.send("GET", AGENTS, &spoofed);
    let upstream = end.upstream();
    assert_eq!(upstream["x-tenant-id"], [TENANT]);
    assert_eq!(upstream["x_tenant_id"], [""]);
    assert_eq!(upstream["x-gatehouse-context"], [""]);
    let end = world.send("POST", "/oauth2/token", &spoofed);
    let upstream = end.upstream();
    for name in ["x-tenant-id", "x_tenant_id", "x-gatehouse-context", "baggage"] {
        assert_eq!(upstream[name], [""], "{name}");
    }
}

#[test]
fn on_kong_what_a_set_would_leave_beside_it_is_refused() {
    let mut world = kong();
    let twice = [("baggage", "a=1"), ("baggage", "tenant.id=evil")];
    assert_eq!(world.send("POST", "/oauth2/token", &twice).verdict(), "400 header_invalid");
    let end = world.send("POST", "/oauth2/token", &[("x-tenant-id", "a"), ("x-tenant-id", "b")]);
    assert_eq!(end.verdict(), "400 header_invalid");
}

#[test]
fn on_kong_a_rewritten_path_goes_through_the_property() {
    let mut world = kong();
    let end = world.send("GET", "/api/v1/registry/%61gents?x=1", &[("authorization", &good())]);
    let upstream = end.upstream();
    assert_eq!(upstream["upstream_uri"], ["/api/v1/registry/agents?x=1"]);
    let end = world.send("GET", AGENTS, &[("authorization", &good())]);
    assert!(!end.upstream().contains_key("upstream_uri"));
}

#[test]
fn p5_on_kong_the_clients_host_is_in_host_alone() {
    let mut world = World::with(|document| {
        document["host"] = "kong".into();
        document["sidecar"]["target"] = "127.0.0.1:9000".into();
        document["tenant_host_suffix"] = ".api.example".into();
    });
    for (host, expected) in
        [(TENANT, "passed"), (OTHER_TENANT, "404 not_found"), ("a@b", "400 header_invalid")]
    {
        let (good, host) = (good(), format!("{host}.api.example"));
        let headers = [
            (":method", "GET"),
            (":path", AGENTS),
            (":authority", "kong:8000"),
            ("host", &host),
            ("authorization", &good),
        ];
        assert_eq!(world.send_raw(&headers).verdict(), expected, "{host}");
    }
}

#[test]
fn on_kong_a_denial_has_no_envoy_header() {
    let mut world = kong();
    world.check = json!({"allowed": false, "limits": []});
    let end = world.send("GET", AGENTS, &[("authorization", &good())]);
    assert_eq!(end.verdict(), "429 quota_exceeded");
    assert_eq!(end.header("x-envoy-ratelimited"), None);
}
