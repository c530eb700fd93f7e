//! J32, J33, J35: preflights, HEAD, upgrades and CONNECT.

use std::sync::Arc;

use gatehouse_tests::{
    envoy,
    http::{
        Request,
        serve::{self, response},
    },
};
use serde_json::{Value, json};

use super::gate::{
    AGENTS, ALLOWED, EVIL, Gate, PUBLIC, Plan, TENANT, VIEWER, get, token, verdict, with_claim,
};

#[test]
fn j32_a_preflight_needs_no_credential_and_what_only_looks_like_one_does() {
    let gate = Gate::open();
    let options = |path: &str| Request::new("OPTIONS", path);
    let origin = |request: Request| request.header("Origin", "https://app.greenlang.local");
    let asks = |request: Request| request.header("Access-Control-Request-Method", "POST");
    let saw = gate.allows(&asks(origin(options(AGENTS))).header("X-Tenant-ID", EVIL));
    assert!(!String::from_utf8_lossy(&saw.bytes()).contains(EVIL));
    assert_eq!(saw.headers.all("x-tenant-id"), [""; 0]);
    for request in [options(AGENTS), origin(options(AGENTS)), asks(options(AGENTS))] {
        gate.denies(&request, "401 credential_missing");
    }
    // Only OPTIONS is one, and only where something is.
    gate.denies(&asks(origin(get())), "401 credential_missing");
    gate.denies(&asks(origin(Request::new("DELETE", AGENTS))), "401 credential_missing");
    gate.denies(&asks(origin(options("/api/v1/nowhere"))), "401 credential_missing");
    // With a credential a bare OPTIONS is a method that is not served.
    gate.denies(&options(AGENTS).bearer(&token()), "405 method_not_allowed");
    // The request behind the preflight is judged.
    let create = |request: Request| origin(request).json(&json!({}));
    gate.denies(&create(Request::new("POST", AGENTS)), "401 credential_missing");
    gate.allows(&create(Request::new("POST", AGENTS)).bearer(&token()));
}

#[test]
fn j33_head_is_get_without_a_body() {
    let gate = Gate::open();
    let head = |path: &str| Request::new("HEAD", path);
    let allowed = gate.send(&head(AGENTS).bearer(&token()));
    assert_eq!(verdict(&allowed), "200");
    assert_eq!(allowed.body, b"");
    let refused = gate.send(&head(AGENTS));
    assert_eq!((refused.status().unwrap(), refused.body.as_slice()), (401, &b""[..]));
    let as_get = gate.send(&Request::new("GET", AGENTS));
    for name in ["www-authenticate", "content-type", "cache-control", "api-version"] {
        assert_eq!(refused.headers.all(name), as_get.headers.all(name), "{name}");
    }
    // What has no GET has no HEAD.
    let token_endpoint = gate.send(&head("/oauth2/token"));
    assert_eq!(token_endpoint.status().unwrap(), 405);
    assert_eq!(token_endpoint.headers.all("allow"), ["POST"]);
}

fn with_upgrades(bootstrap: &mut Value) -> Option<()> {
    let manager = envoy::manager(bootstrap)?;
    manager.insert(
        "upgrade_configs".to_owned(),
        json!([{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}]),
    );
    manager.insert("http2_protocol_options".to_owned(), json!({"allow_connect": true}));
    let routes =
        manager.get_mut("route_config")?.pointer_mut("/virtual_hosts/0/routes")?.as_array_mut()?;
    routes.insert(
        0,
        json!({
            "match": {"connect_matcher": {}},
            "route": {"cluster": "control-api", "upgrade_configs": [{"upgrade_type": "CONNECT"}]},
        }),
    );
    Some(())
}

#[test]
fn j35_an_upgrade_is_decided_before_it_happens_and_connect_leads_nowhere() {
    let upstream: serve::Handler =
        Arc::new(|request| match request.headers.one("upgrade").as_deref() {
            Some("websocket") => {
                let tenant = request.header("x-tenant-id");
                let headers =
                    [("connection", "Upgrade"), ("upgrade", "websocket"), ("x-saw", &tenant)];
                response(101, &headers, "")
            }
            _ => serve::echo(request),
        });
    let gate = Gate::with(Plan { upstream, bootstrap: Box::new(with_upgrades), ..Plan::default() });
    let upgrade = |path: &str| {
        Request::new("GET", path)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    let switched = gate.send(&upgrade(AGENTS).bearer(&token()));
    assert_eq!(switched.status().unwrap(), 101, "{switched:?}");
    assert_eq!(switched.headers.all("x-saw"), [TENANT]);
    gate.upstream_saw();
    gate.denies(&upgrade(AGENTS), "401 credential_missing");
    gate.denies(&upgrade(AGENTS).bearer("x"), "401 token_invalid");
    let viewer = with_claim("sub", json!(VIEWER));
    assert_eq!(gate.send(&upgrade(AGENTS).bearer(&viewer)).status().unwrap(), 101);
    gate.denies(&upgrade("/api/v1/nowhere").bearer(&viewer), "404 not_found");
    let nominated = upgrade(AGENTS).without("Connection").bearer(&token());
    let nominated = nominated.header("Connection", "Upgrade, X-Tenant-ID");
    let answer = gate.send(&nominated);
    assert_eq!(answer.headers.all("x-saw"), [TENANT], "{answer:?}");
    assert_eq!(gate.upstream_saw().len(), 2);

    // CONNECT names no path: there is nothing that the matrix could allow.
    for (target, authorized) in [
        ("api.greenlang.local:443", false),
        ("api.greenlang.local:443", true),
        ("127.0.0.1:1", true),
    ] {
        let connect = Request::new("CONNECT", target).without("Host").header("Host", target);
        let connect = if authorized { connect.bearer(&token()) } else { connect };
        let answer = gate.send(&connect);
        assert!(matches!(answer.status().unwrap(), 400..=405), "{target}: {answer:?}");
    }
    let bearer = format!("Bearer {}", token());
    let plain: [(&[u8], &[u8]); 3] = [
        (b":method", b"CONNECT"),
        (b":authority", b"api.greenlang.local:443"),
        (b"authorization", bearer.as_bytes()),
    ];
    assert!(gate.exchange_h2(&plain).is_none());
    // Extended CONNECT (RFC 8441) is an upgrade like the one above: without a credential it ends here.
    let extended = |authorization: &[u8]| {
        let head: [(&[u8], &[u8]); 6] = [
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            (b":scheme", b"http"),
            (b":authority", b"a"),
            (b":path", AGENTS.as_bytes()),
            (b"authorization", authorization),
        ];
        gate.exchange_h2(&head)
    };
    assert!(extended(b"Bearer x").is_none());
    assert!(extended(b"").is_none());
    assert_eq!(gate.verdict(&Request::new("GET", PUBLIC)), ALLOWED);
    gate.sound();
}
