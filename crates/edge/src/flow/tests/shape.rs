//! The document's own changes of requests and responses, and how large a request may be.

use super::*;

fn world(host: &str, shape: Value) -> World {
    World::with(|document| {
        if host == "kong" {
            document["host"] = "kong".into();
            document["sidecar"]["target"] = "127.0.0.1:9".into();
        }
        for (name, value) in shape.as_object().unwrap() {
            document[name] = value.clone();
        }
    })
}

fn edits() -> Value {
    json!({"transforms": {
        "request": {
            "headers": [
                {"set": "x-org", "value": "${tenant}/${tier}/${user}/${roles}"},
                {"set": "X-Trace", "value": "${request_id} ${version} ${route}"},
                {"add": "x-list", "value": "ours"},
                {"remove": "x-debug"},
                {"rename": "x-old", "to": "x-new"},
            ],
            "query": [
                {"remove": "debug"},
                {"rename": "page", "to": "offset"},
                {"set": "org", "value": "${tenant}"},
            ],
        },
        "response": {"headers": [
            {"set": "x-served", "value": "${version} ${tenant}"},
            {"add": "x-served-by", "value": "edge"},
            {"remove": "server"},
            {"rename": "x-theirs", "to": "x-ours"},
        ]},
    }})
}

#[test]
fn headers_and_query_are_changed_with_what_is_known_of_the_caller() {
    for host in ["envoy", "kong"] {
        let mut world = world(host, edits());
        let good = good();
        let headers = [
            ("authorization", good.as_str()),
            ("X-Org", "evil"),
            ("x-list", "theirs"),
            ("X-Debug", "1"),
            ("x-old", "value ${tenant}"),
            ("x-request-id", "r1"),
        ];
        let path = format!("{AGENTS}?a=%2f&debug=1&&page=2&org=evil&b");
        let end = world.send("GET", &path, &headers);
        let upstream = end.upstream();
        assert_eq!(upstream["x-org"], [format!("{TENANT}/pro/s/developer")], "{host}");
        assert_eq!(upstream["x-trace"], ["r1 v1 /api/v1/registry/agents"]);
        assert_eq!(upstream["x-list"], ["theirs", "ours"]);
        assert_eq!(upstream["x-new"], ["value ${tenant}"], "a client's bytes are no template");
        let gone = |name: &str| match host {
            "envoy" => !upstream.contains_key(name),
            _ => upstream[name] == [""],
        };
        assert!(gone("x-debug") && gone("x-old"), "{host}: {upstream:?}");
        let target = upstream[if host == "envoy" { ":path" } else { "upstream_uri" }][0];
        assert_eq!(target, format!("{AGENTS}?a=%2f&&offset=2&b&org={TENANT}"));
    }
}

#[test]
fn without_a_caller_nothing_of_the_clients_stands_in_its_place() {
    let mut world = world("envoy", edits());
    let end = world.send("POST", "/oauth2/token?org=evil&a", &[("x-org", "evil")]);
    let upstream = end.upstream();
    assert!(!upstream.contains_key("x-org"), "{upstream:?}");
    assert_eq!(upstream[":path"], ["/oauth2/token?a"]);
}

#[test]
fn on_kong_a_second_value_of_a_changed_header_is_refused() {
    for (host, expected) in [("envoy", "passed"), ("kong", "400 header_invalid")] {
        let mut world = world(host, edits());
        for name in ["x-org", "X-Debug", "x-old"] {
            let good = good();
            let twice = [("authorization", good.as_str()), (name, "1"), (name, "2")];
            assert_eq!(world.send("GET", AGENTS, &twice).verdict(), expected, "{host} {name}");
        }
    }
    let mut world = world("envoy", edits());
    let good = good();
    let twice = [("authorization", good.as_str()), ("x-old", "1"), ("x-old", "2")];
    assert_eq!(world.send("GET", AGENTS, &twice).upstream()["x-new"], ["1", "2"]);
    let headers: [(&[u8], &[u8]); 5] = [
        (b":method", b"GET"),
        (b":path", AGENTS.as_bytes()),
        (b":authority", b"g"),
        (b"authorization", good.as_bytes()),
        (b"x-old", b"\xff"),
    ];
    assert_eq!(world.send_raw(&headers).verdict(), "400 header_invalid");
}

#[test]
fn responses_are_changed_before_what_every_response_carries() {
    let mut shape = edits();
    shape["transforms"]["response"]["headers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"remove": "api-version"}));
    let mut world = world("envoy", shape);
    let good = good();
    let end = world.send("GET", AGENTS, &[("authorization", &good)]);
    let theirs = [(":status", "200"), ("server", "x"), ("X-Theirs", "1"), ("x-theirs", "2")];
    let told = |end: &End| -> Vec<String> {
        let edits = world.suite.on_response(end.record(), &theirs);
        let line = |edit: Edit| match edit {
            Edit::Set(name, value) => format!("{name}={value}"),
            Edit::Add(name, value) => format!("{name}+{value}"),
            Edit::Remove(name) => format!("-{name}"),
            Edit::UpstreamUri(_) => panic!(),
        };
        edits.into_iter().map(line).collect()
    };
    let changes = told(&end);
    assert_eq!(
        changes[..7],
        [
            &format!("x-served=v1 {TENANT}"),
            "x-served-by+edge",
            "-server",
            "-x-theirs",
            "x-ours=1",
            "x-ours+2",
            "-api-version",
        ]
    );
    assert!(changes[7..].contains(&"api-version=v1".to_owned()), "ours stays: {changes:?}");
    let refused = world.send("GET", AGENTS, &[]);
    let edits = world.suite.on_response(refused.record(), &theirs);
    assert!(edits.contains(&Edit::Remove("x-served".into())), "nobody is known there");
}

#[test]
fn x3_too_large_a_request_is_refused_at_once() {
    let sizes =
        json!({"sizes": {"max_headers": 3, "max_header_bytes": 4000, "max_body_bytes": 10}});
    let mut world = world("envoy", sizes);
    let good = good();
    let long = "x".repeat(4000);
    for (headers, expected) in [
        (vec![], "passed"),
        (vec![("a", "1"), ("b", "2")], "passed"),
        (vec![("a", "1"), ("b", "2"), ("c", "3")], "431 headers_too_large"),
        (vec![("a", long.as_str())], "431 headers_too_large"),
        (vec![("content-length", "10")], "passed"),
        (vec![("Content-Length", "11")], "413 body_too_large"),
        (vec![("content-length", "11"), ("upgrade", "x")], "413 body_too_large"),
    ] {
        let mut all = vec![("authorization", good.as_str())];
        all.extend(headers.clone());
        assert_eq!(world.send("GET", AGENTS, &all).verdict(), expected, "{headers:?}");
    }
    let end = world.send("GET", AGENTS, &[("authorization", &good)]);
    assert!(!world.suite.is_body_too_large(end.record(), 10));
    assert!(world.suite.is_body_too_large(end.record(), 11));
    let reply = world.suite.refuse_body(end.record().clone());
    assert_eq!((reply.status, reply.reason), (413, Some(Reason::BodyTooLarge)));
    let upgraded = [("authorization", good.as_str()), ("upgrade", "websocket")];
    let end = world.send("GET", AGENTS, &upgraded);
    assert!(!world.suite.is_body_too_large(end.record(), 11), "what follows is no body");
    let grpc = [("content-type", "application/grpc"), ("content-length", "11")];
    let end = world.send("POST", AGENTS, &grpc);
    assert_eq!(end.reply().grpc.as_ref().map(|grpc| grpc.code), Some(8));
}

#[test]
fn x1_clients_and_paths_without_an_envelope_get_the_bare_answer() {
    let mut world = world("envoy", json!({"envelope": {}}));
    let good = good();
    for (method, path, extra, expected) in [
        ("GET", AGENTS, ("a", "b"), true),
        ("POST", AGENTS, ("x-envelope", "yes"), true),
        ("HEAD", AGENTS, ("a", "b"), false),
        ("GET", AGENTS, ("X-Envelope", "none"), false),
        ("GET", AGENTS, ("upgrade", "websocket"), false),
        ("POST", AGENTS, ("content-type", "application/grpc-web"), false),
        ("GET", "/.well-known/jwks.json", ("a", "b"), false),
    ] {
        let end = world.send(method, path, &[("authorization", &good), extra]);
        let headers = [(":status", "200"), ("content-type", "application/json")];
        let wraps = world.suite.wrapping(end.record(), &headers).is_some();
        assert_eq!(wraps, expected, "{method} {path} {extra:?}");
        let edits = world.suite.on_response(end.record(), &headers);
        let vary = Edit::Set("vary".into(), "X-Envelope".into());
        assert_eq!(edits.contains(&vary), path == AGENTS, "{extra:?}");
    }
}
