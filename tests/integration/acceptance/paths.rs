//! P1–P8: one form of the target, for matching and for forwarding.

use gatehouse_tests::{
    h2::{self, End},
    http::Request,
};
use serde_json::json;

use super::gate::{ADMIN, AGENTS, ALLOWED, Gate, PUBLIC, VIEWER, get, token, verdict, with_claim};

const INVALID: &str = "400 path_invalid";

/// What becomes of a `GET` of this target with a good token; `None` where Envoy's codec ends it before the filter.
#[track_caller]
fn judged(gate: &Gate, target: &str) -> String {
    let request = Request::new("GET", target).bearer(&token());
    verdict(&request.send(gate.envoy.listen).unwrap())
}

#[test]
fn p1_ambiguous_targets_are_refused_beside_their_plain_neighbours() {
    let gate = Gate::open();
    for (target, expected) in [
        ("/api/v1/registry/agents", ALLOWED),
        ("/api/v1/registry/x/../agents", INVALID),
        ("/api/v1/registry/./agents", INVALID),
        ("/api/v1/registry/agents/.", INVALID),
        ("/api/v1/registry/agents/..", INVALID),
        ("/api/v1/registry/x/%2e%2e/agents", INVALID),
        ("/api/v1/registry/x/.%2E/agents", INVALID),
        ("/.well-known/jwks.json/../../api/v1/registry/agents", INVALID),
        ("//api/v1/registry/agents", INVALID),
        ("/api//v1/registry/agents", INVALID),
        ("/api/v1/registry\\agents", INVALID),
        ("/api/v1/registry/agents;p=1", INVALID),
        ("/api/v1;x/registry/agents", INVALID),
        ("/api/v1/registry/%61gents;p=1", INVALID),
        ("/api/v1/%72egistry\\agents", INVALID),
        ("/api/v1/registry/agents?a=1", ALLOWED),
        ("/api/v1/registry/agents?", ALLOWED),
        ("/api/v1/registry/agents?../..", ALLOWED),
        ("/api/v1/registry/agents/x.y", ALLOWED),
        ("/api/v1/registry/agents/...", ALLOWED),
    ] {
        assert_eq!(judged(&gate, target), expected, "{target}");
    }
    // A fragment is cut or refused by Envoy, never forwarded.
    let fragment = gate.send(&Request::new("GET", "/api/v1/registry/agents#x").bearer(&token()));
    assert!(matches!(fragment.status().unwrap(), 200 | 400), "{}", fragment.start);
    assert!(!String::from_utf8_lossy(&fragment.body).contains("#x"));
    // Absolute form: Envoy splits it; what is judged and forwarded is the path.
    let absolute = Request::new("GET", &format!("http://api.greenlang.local{AGENTS}"));
    gate.denies(&absolute, "401 credential_missing");
    let saw = gate.allows(&absolute.bearer(&token()));
    assert_eq!(saw.start, format!("GET {AGENTS} HTTP/1.1"));
    let dots = Request::new("GET", "http://api.greenlang.local/api/v1/x/../registry/agents");
    gate.denies(&dots.bearer(&token()), INVALID);
    for (method, target) in [("GET", "*"), ("OPTIONS", "*"), ("GET", "api/v1")] {
        let answer = gate.send(&Request::new(method, target).bearer(&token()));
        assert!(matches!(answer.status().unwrap(), 400 | 404), "{method} {target}: {answer:?}");
    }
    // An empty path can only be written in HTTP/2.
    for path in [b"".as_slice(), b"*", b"api"] {
        let end = h2_get(&gate, path);
        assert_ne!(end, Some(200), "{}", String::from_utf8_lossy(path));
    }
    assert_eq!(h2_get(&gate, AGENTS.as_bytes()), Some(200));
    gate.sound();
}

/// The status of a `GET` over HTTP/2 with a good token, by what the upstream saw.
fn h2_get(gate: &Gate, path: &[u8]) -> Option<u16> {
    let bearer = format!("Bearer {}", token());
    let head: [(&[u8], &[u8]); 5] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"a"),
        (b":path", path),
        (b"authorization", bearer.as_bytes()),
    ];
    let before = gate.envoy.stat("cluster.control-api.upstream_rq_200").unwrap();
    let end = h2::exchange(gate.envoy.listen, &head, b"", &[]).unwrap();
    let after = gate.envoy.stat("cluster.control-api.upstream_rq_200").unwrap();
    (end == End::Answered && after == before + 1).then_some(200)
}

#[test]
fn p2_encoded_separators_are_refused_and_nothing_is_decoded_twice() {
    let gate = Gate::open();
    for (target, expected) in [
        ("/api/v1/registry/agents/a-b", ALLOWED),
        ("/api/v1/registry/agents/a%2fb", INVALID),
        ("/api/v1/registry/agents/a%2Fb", INVALID),
        ("/api%2fv1%2fregistry%2fagents", INVALID),
        ("/api/v1/registry/agents/a%5cb", INVALID),
        ("/api/v1/registry/agents/a%5Cb", INVALID),
        ("/api/v1/registry/agents/a%00", INVALID),
        ("/api/v1/registry/agents/a%3bb", INVALID),
        ("/api/v1/registry/agents/a%0d%0aX-Tenant-ID:%20x", INVALID),
        ("/.well-known%2fjwks.json", INVALID),
    ] {
        assert_eq!(judged(&gate, target), expected, "{target}");
    }
    let twice = Request::new("GET", "/api/v1/registry/agents/a%252fb").bearer(&token());
    assert_eq!(gate.allows(&twice).start, "GET /api/v1/registry/agents/a%252fb HTTP/1.1");
    let dots = Request::new("GET", "/api/v1/registry/agents/%252e%252e").bearer(&token());
    assert_eq!(gate.allows(&dots).start, "GET /api/v1/registry/agents/%252e%252e HTTP/1.1");
}

#[test]
fn p3_escapes_of_unreserved_characters_are_decoded_before_the_matrix_is_asked() {
    let gate = Gate::open();
    let viewer = with_claim("sub", json!(VIEWER));
    let saw = gate.allows(&Request::new("GET", "/api/v1/registry/%61gents").bearer(&viewer));
    assert_eq!(saw.start, format!("GET {AGENTS} HTTP/1.1"));
    let saw = gate.allows(&Request::new("GET", "/%61pi/v1/registry/agents/%7Ex").bearer(&viewer));
    assert_eq!(saw.start, "GET /api/v1/registry/agents/~x HTTP/1.1");
    // The same roles are wanted in every spelling.
    for path in [AGENTS, "/api/v1/registry/%61gents", "/api/%761/registry/agent%73"] {
        let create = Request::new("POST", path).bearer(&viewer).json(&json!({}));
        gate.denies(&create, "403 permission_denied");
        let create = Request::new("POST", path).bearer(&token()).json(&json!({}));
        gate.allows(&create);
    }
    // What is not unreserved keeps its escape, in upper case.
    let saw = gate.allows(&Request::new("GET", &format!("{AGENTS}/caf%c3%a9")).bearer(&viewer));
    assert_eq!(saw.start, format!("GET {AGENTS}/caf%C3%A9 HTTP/1.1"));
}

#[test]
fn p4_paths_are_case_sensitive_and_end_where_they_end() {
    let gate = Gate::open();
    for (target, expected) in [
        ("/api/v1/registry/agents", ALLOWED),
        ("/api/v1/registry/Agents", "404 not_found"),
        ("/api/v1/registry/agents/", "404 not_found"),
        ("/api/v1/registry/agents.", "404 not_found"),
        ("/api/v1/registry/agentsx", "404 not_found"),
        ("/api/v1/registry", "404 not_found"),
        ("/api/v1/registry/agents/x", ALLOWED),
        ("/api/v1/registry/agents/x/", "404 not_found"),
        ("/api/v1/registry/agents/x/y", "404 not_found"),
        ("/.well-known/jwks.json", ALLOWED),
        ("/.well-known/jwks.json/", "404 not_found"),
        ("/.well-known/JWKS.json", "404 not_found"),
    ] {
        assert_eq!(judged(&gate, target), expected, "{target}");
    }
    // Without a credential a neighbour of a public path is not public.
    gate.allows(&Request::new("GET", PUBLIC));
    for near in ["/.well-known/jwks.json/", "/.well-known/jwks.jsonx", "/.well-known/jwks"] {
        gate.denies(&Request::new("GET", near), "401 credential_missing");
    }
}

#[test]
fn p5_the_host_decides_nothing_in_any_spelling() {
    let gate = Gate::open();
    for host in [
        "api.greenlang.local",
        "API.greenlang.local",
        "api.greenlang.local:443",
        "api.greenlang.local.",
        "localhost",
        "127.0.0.1",
        "[::1]:80",
    ] {
        let with = |request: Request| request.without("Host").header("Host", host);
        gate.denies(&with(get()), "401 credential_missing");
        gate.allows(&with(get().bearer(&token())));
    }
    // Two hosts, or none, are a broken request (RFC 9112 §3.2); Envoy's codec joins them by a comma.
    let two = get().bearer(&token()).header("Host", "other.local");
    assert_eq!(gate.send(&two).status().unwrap(), 400);
    let none = get().bearer(&token()).without("Host");
    assert_eq!(gate.send(&none).status().unwrap(), 400);
    // `:authority` beside another `Host` in HTTP/2: one of them reaches the upstream, and only one.
    let bearer = format!("Bearer {}", token());
    let head: [(&[u8], &[u8]); 6] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"one.local"),
        (b":path", AGENTS.as_bytes()),
        (b"host", b"two.local"),
        (b"authorization", bearer.as_bytes()),
    ];
    let saw = gate.exchange_h2(&head);
    let hosts: Vec<String> = saw.iter().flat_map(|saw| saw.headers.all("host")).collect();
    assert!(hosts.is_empty() || hosts == ["one.local"], "{hosts:?}");
}

#[test]
fn p6_methods_are_exact_and_cannot_be_overridden() {
    let gate = Gate::open();
    let send = |method: &str| verdict(&gate.send(&Request::new(method, AGENTS).bearer(&token())));
    assert_eq!(send("GET"), ALLOWED);
    for method in ["PATCH", "TRACE", "PROPFIND", "OPTIONS", "QUERY"] {
        let verdict = send(method);
        // Envoy's HTTP/1 codec knows a closed list of methods.
        assert!(
            ["405 method_not_allowed", "400 header_invalid"].contains(&verdict.as_str()),
            "{method} {verdict}"
        );
    }
    for method in ["get", "Get", "gET"] {
        assert_ne!(send(method), ALLOWED, "{method}");
        // Over HTTP/2 a method is any token.
        let bearer = format!("Bearer {}", token());
        let head: [(&[u8], &[u8]); 5] = [
            (b":method", method.as_bytes()),
            (b":scheme", b"http"),
            (b":authority", b"a"),
            (b":path", AGENTS.as_bytes()),
            (b"authorization", bearer.as_bytes()),
        ];
        assert!(gate.exchange_h2(&head).is_none(), "{method}");
    }
    let viewer = with_claim("sub", json!(VIEWER));
    for name in
        ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "x_http_method_override"]
    {
        for token in [&viewer, &with_claim("sub", json!(ADMIN))] {
            let get = get().bearer(token).header(name, "DELETE");
            gate.denies(&get, "400 header_invalid");
        }
        let public = Request::new("GET", PUBLIC).header(name, "POST");
        gate.denies(&public, "400 header_invalid");
    }
    gate.allows(&get().bearer(&viewer).header("X-HTTP-Method-Overrider", "DELETE"));
}

#[test]
fn p7_what_is_judged_is_what_is_forwarded() {
    let gate = Gate::open();
    for (sent, forwarded) in [
        ("/api/v1/registry/agents", "/api/v1/registry/agents"),
        ("/api/v1/registry/%61gents", "/api/v1/registry/agents"),
        ("/api/v1/registry/agents/%7e?x=%7e%2F&y", "/api/v1/registry/agents/~?x=%7e%2F&y"),
        ("/api/v1/registry/agents/a%20b", "/api/v1/registry/agents/a%20b"),
        ("/api/v1/registry/agents/%c3%a9", "/api/v1/registry/agents/%C3%A9"),
        ("/%2ewell-known/jwks.json", "/.well-known/jwks.json"),
    ] {
        let saw = gate.allows(&Request::new("GET", sent).bearer(&token()));
        assert_eq!(saw.start, format!("GET {forwarded} HTTP/1.1"), "{sent}");
    }
    // A public path cannot be worn in front of a protected one.
    for worn in [
        "/.well-known/jwks.json/..%2f..%2fapi/v1/registry/agents",
        "/.well-known/jwks.json/%2e%2e/%2e%2e/api/v1/registry/agents",
        "/.well-known/jwks.json;/../../api/v1/registry/agents",
        "/.well-known//../api/v1/registry/agents",
    ] {
        gate.denies(&Request::new("GET", worn), INVALID);
    }
    // Nor can Envoy's own rewriting headers change it.
    for name in ["X-Envoy-Original-Path", "X-Original-URL", "X-Rewrite-URL"] {
        let public = Request::new("GET", PUBLIC).header(name, AGENTS);
        assert_eq!(gate.allows(&public).start, format!("GET {PUBLIC} HTTP/1.1"), "{name}");
    }
}

#[test]
fn p8_bytes_and_escapes_that_are_no_text_are_refused() {
    let gate = Gate::open();
    for (target, expected) in [
        ("/api/v1/registry/agents/caf%C3%A9", ALLOWED),
        ("/api/v1/registry/agents/%c3", INVALID),
        ("/api/v1/registry/agents/%c3%28", INVALID),
        ("/api/v1/registry/agents/%c0%af", INVALID),
        ("/api/v1/registry/agents/%c0%ae%c0%ae", INVALID),
        ("/api/v1/registry/agents/%e0%80%af", INVALID),
        ("/api/v1/registry/agents/%ed%a0%80", INVALID),
        ("/api/v1/registry/agents/%ff", INVALID),
        ("/api/v1/registry/agents/%", INVALID),
        ("/api/v1/registry/agents/%6", INVALID),
        ("/api/v1/registry/agents/%zz", INVALID),
        ("/api/v1/registry/agents/%u002e", INVALID),
    ] {
        assert_eq!(judged(&gate, target), expected, "{target}");
    }
    // Raw bytes above ASCII, in both protocols.
    for byte in [b"\xc3\xa9".as_slice(), b"\xff", b"\xc0\xaf"] {
        let mut line = format!("GET {AGENTS}/").into_bytes();
        line.extend_from_slice(byte);
        line.extend_from_slice(b" HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ");
        line.extend_from_slice(token().as_bytes());
        line.extend_from_slice(b"\r\n\r\n");
        let answer = gatehouse_tests::http::exchange(gate.envoy.listen, &line).unwrap();
        assert_eq!(answer.status().unwrap(), 400, "{byte:?}");
        let path = [AGENTS.as_bytes(), b"/", byte].concat();
        assert_eq!(h2_get(&gate, &path), None);
    }
    gate.sound();
}
