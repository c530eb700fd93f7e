//! The compiled filter in a real Envoy whose neighbours are away: what needs neither keys nor records.

use std::{net::TcpListener, process::Command, time::Duration};

use gatehouse_tests::{
    env,
    envoy::{Gateway, configuration},
    h2::{self, End},
    http::{Connection, Request},
    tiny, wait,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use wasm_encoder::{BlockType, Instruction};

/// An Envoy whose sidecar and upstream refuse connections.
fn alone() -> (TempDir, Gateway) {
    let dir = tempfile::tempdir().unwrap();
    let nobody = wait::address().unwrap();
    let gateway = Gateway::start(dir.path(), &document(), nobody, nobody).unwrap();
    (dir, gateway)
}

fn document() -> Value {
    serde_json::from_str(include_str!("../../examples/gateway/suite.json")).unwrap()
}

const AGENTS: &str = "/api/v1/registry/agents";

#[test]
fn refusals_need_no_neighbours() {
    let (_dir, gateway) = alone();
    let check = |request: Request, status: u16, code: &str| {
        let answer = request.send(gateway.listen).unwrap();
        let body = answer.json().unwrap();
        assert_eq!((answer.status().unwrap(), &body["code"]), (status, &json!(code)), "{answer:?}");
        assert_eq!(answer.headers.all("content-type"), ["application/problem+json"]);
        assert_eq!(answer.headers.all("x-request-id").len(), 1);
        answer
    };
    let answer = check(Request::new("GET", AGENTS), 401, "credential_missing");
    assert_eq!(answer.headers.all("www-authenticate"), [r#"Bearer realm="gatehouse""#]);
    assert_eq!(answer.headers.all("api-version"), ["v1"]);
    let answer = check(Request::new("GET", "/api/v9/registry/agents"), 404, "version_unknown");
    assert_eq!(answer.json().unwrap()["supported"], json!(["v1"]));
    check(Request::new("GET", AGENTS).bearer("x"), 401, "token_invalid");
    let twice = Request::new("GET", AGENTS).bearer("x").bearer("x");
    check(twice, 400, "credential_malformed");
    // A token that looks good needs keys, and the sidecar is away.
    let token = "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImsifQ.\
                 eyJpc3MiOiJodHRwczovL2F1dGguZ3JlZW5sYW5nLmxvY2FsIn0.AAAA";
    check(Request::new("GET", AGENTS).bearer(token), 503, "identity_unavailable");
}

#[test]
fn x10_a_sound_request_id_is_kept_and_a_broken_one_replaced() {
    let (_dir, gateway) = alone();
    let answered = |sent: &str| {
        let request = Request::new("GET", AGENTS).header("X-Request-ID", sent);
        let answer = request.send(gateway.listen).unwrap();
        let ids = answer.headers.all("x-request-id");
        assert_eq!(answer.json().unwrap()["request_id"], json!(ids[0]));
        assert_eq!(ids.len(), 1, "{ids:?}");
        ids[0].to_owned()
    };
    assert_eq!(answered("req_1.from-client"), "req_1.from-client");
    assert_ne!(answered("two words"), "two words");
}

#[test]
fn a_public_route_without_upstream_is_envoy_s_503_with_our_headers() {
    let (_dir, gateway) = alone();
    let answer = Request::new("GET", "/.well-known/jwks.json").send(gateway.listen).unwrap();
    assert_eq!(answer.status().unwrap(), 503);
    assert_eq!(answer.headers.all("x-request-id").len(), 1);
    assert_eq!(answer.headers.all("api-version"), ["v1"]);
}

#[test]
fn j30_bytes_that_are_no_header_never_cost_a_vm() {
    let (_dir, gateway) = alone();
    let lines: [&[u8]; 8] = [
        b"X-\xb2: 1",
        b"X-\xc3\xa9: 1",
        b"\xff: 1",
        b"X-Tenant-ID: \xff\xfe\x80",
        b"Authorization: Bearer \xff\xfe",
        b"Baggage: \x80tenant.id=\xff",
        b"X-Request-ID: \xc3\x28",
        b"X Y: 1",
    ];
    for line in lines {
        let mut bytes = format!("GET {AGENTS} HTTP/1.1\r\nHost: a\r\n").into_bytes();
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(b"\r\n\r\n");
        let answer = gatehouse_tests::http::exchange(gateway.listen, &bytes).unwrap();
        let status = answer.status().unwrap();
        let shown = String::from_utf8_lossy(line);
        assert!(matches!(status, 400 | 401), "{shown}: {}", answer.start);
        println!("{shown}: {status}");
    }
    for path in ["/api/v1/\u{fffd}", "/api/v1/%ff", "/%"] {
        let answer = Request::new("GET", path).send(gateway.listen).unwrap();
        assert!(matches!(answer.status().unwrap(), 400 | 401 | 404), "{path}: {}", answer.start);
    }
    assert_eq!(Request::new("GET", AGENTS).send(gateway.listen).unwrap().status().unwrap(), 401);
    assert_eq!(gateway.stat("wasm.suite.vm_reload_success").unwrap(), 0, "a VM was lost");
}

#[test]
fn j30_the_same_over_http2() {
    let (_dir, gateway) = alone();
    let names: [&[u8]; 6] = [b"x-\xb2", b"\xff", b"", b"X-Upper", b"x y", b"x-\r\ny"];
    for name in names {
        let head: [(&[u8], &[u8]); 5] = [
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":authority", b"a"),
            (b":path", AGENTS.as_bytes()),
            (name, b"1"),
        ];
        let end = h2::exchange(gateway.listen, &head, b"", &[]).unwrap();
        assert_ne!(end, End::Answered, "{}", String::from_utf8_lossy(name));
    }
    let head: [(&[u8], &[u8]); 6] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"a"),
        (b":path", AGENTS.as_bytes()),
        (b"x-tenant-id", b"\xff\xfe"),
        (b"authorization", b"Bearer \x80"),
    ];
    assert_eq!(h2::exchange(gateway.listen, &head, b"", &[]).unwrap(), End::Answered);
    assert_eq!(gateway.stat("wasm.suite.vm_reload_success").unwrap(), 0, "a VM was lost");
}

#[test]
fn pipelined_requests_are_each_judged() {
    let (_dir, gateway) = alone();
    let mut connection = Connection::open(gateway.listen).unwrap();
    // Envoy queues two responses per connection and refuses more.
    for _ in 0..3 {
        let mut bytes = Request::new("GET", AGENTS).bytes();
        bytes.extend(Request::new("GET", "/api/v9/x").bytes());
        connection.send(&bytes).unwrap();
        let statuses = [(); 2].map(|()| connection.response().unwrap().status().unwrap());
        assert_eq!(statuses, [401, 404]);
    }
}

#[test]
fn a_silent_sidecar_costs_its_deadline_and_no_more() {
    // Accepts connections (the kernel does) and never says anything.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let nobody = wait::address().unwrap();
    let sidecar = silent.local_addr().unwrap();
    let gateway = Gateway::start(dir.path(), &document(), nobody, sidecar).unwrap();
    let token = "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImsifQ.\
                 eyJpc3MiOiJodHRwczovL2F1dGguZ3JlZW5sYW5nLmxvY2FsIn0.AAAA";
    let start = std::time::Instant::now();
    let answer = Request::new("GET", AGENTS).bearer(token).send(gateway.listen).unwrap();
    assert_eq!(answer.status().unwrap(), 503);
    assert_eq!(answer.json().unwrap()["code"], "identity_unavailable");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn envoy_refuses_a_document_with_three_mistakes_and_names_each() {
    let mut document = document();
    document["signatures"] = json!("magic");
    document["sidecar"]["timeout_ms"] = json!(-1);
    document["issuers"][0]["algoritms"] = json!(["RS256"]);
    let dir = tempfile::tempdir().unwrap();
    let nobody = wait::address().unwrap();
    let suite = env::path(env::SUITE).unwrap();
    let check = |document: &Value| {
        let config = configuration(dir.path(), &suite, document, nobody, nobody).unwrap();
        let mut envoy = Command::new(env::path(env::ENVOY).unwrap());
        envoy.args(["--mode", "validate", "--config-path"]).arg(&config.file);
        let output = envoy.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (taken, log) = check(&document);
    assert!(!taken, "{log}");
    for path in ["$.signatures", "$.sidecar.timeout_ms", "$.issuers[0].algoritms"] {
        assert!(log.contains(path), "{path} in {log}");
    }
    let (taken, log) = check(&self::document());
    assert!(taken, "{log}");
}

#[test]
fn a_vm_that_traps_costs_one_request_and_comes_back() {
    // Traps at more than 20 headers, lets everything else pass.
    let many = [
        Instruction::LocalGet(1),
        Instruction::I32Const(20),
        Instruction::I32GtU,
        Instruction::If(BlockType::Empty),
        Instruction::Unreachable,
        Instruction::End,
        Instruction::I32Const(0),
    ];
    let dir = tempfile::tempdir().unwrap();
    let module = dir.path().join("traps.wasm");
    std::fs::write(&module, tiny::module("proxy_set_tick_period_milliseconds", &many)).unwrap();
    let nobody = wait::address().unwrap();
    let config = configuration(dir.path(), &module, &document(), nobody, nobody).unwrap();
    let gateway = Gateway::run(dir.path(), config).unwrap();
    // One connection is one worker. No route leads there: what passes the filter is 404.
    let mut connection = Connection::open(gateway.listen).unwrap();
    let mut send = |headers: usize| {
        let mut request = Request::new("GET", "/nowhere");
        for number in 0..headers {
            request = request.header(&format!("X-{number}"), "1");
        }
        connection.send(&request.bytes()).unwrap();
        let answer = connection.response().unwrap();
        if answer.headers.all("connection") == ["close"] {
            connection = Connection::open(gateway.listen).unwrap();
        }
        answer.status().unwrap()
    };
    assert_eq!(send(1), 404);
    assert_eq!(send(30), 503, "the request that traps");
    // Until the VM is loaded again (a second after its last load) Envoy answers 503: never past the filter.
    wait::until("the VM is back", Duration::from_secs(20), || match send(1) {
        404 => Ok(Some(())),
        503 => Ok(None),
        status => panic!("{status}"),
    })
    .unwrap();
    assert_eq!(gateway.stat("wasm.suite.vm_reload_success").unwrap(), 1);
}
