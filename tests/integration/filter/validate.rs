//! The module `validate`: bodies are judged whole, before an upstream has them (acceptance X7).

use std::{
    fmt::Write as _,
    sync::OnceLock,
    time::{Duration, UNIX_EPOCH},
};

use gatehouse_tests::{
    env,
    vm::{Filter, Headers, Reply, Standing, StreamId, Surroundings, Vm},
};
use serde_json::{Value, json};

use super::gate::NOW_S;

const AGENTS: &str = "/api/v1/registry/agents";

fn filter() -> &'static Filter {
    static VALIDATE: OnceLock<Filter> = OnceLock::new();
    VALIDATE.get_or_init(|| Filter::load(&env::path(env::VALIDATE).unwrap()).unwrap())
}

fn document(hold_headers: bool) -> Value {
    json!({
        "hold_headers": hold_headers,
        "routes": [{
            "method": "POST",
            "path": AGENTS,
            "max_body_bytes": 100_000,
            "schema": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 5, "pattern": "^[a-z]+$"}, "tree": {"$ref": "#/$defs/tree"}},
                "required": ["name"],
                "additionalProperties": {"type": "integer"},
                "$defs": {"tree": {"anyOf": [{"type": "integer"}, {"type": "object", "additionalProperties": {"$ref": "#/$defs/tree"}}]}},
            },
        }],
    })
}

fn vm(document: &Value) -> Vm {
    let around = Surroundings::at(UNIX_EPOCH + Duration::from_secs(NOW_S));
    let mut vm = Vm::start(filter(), &around).unwrap();
    assert!(vm.configure(&document.to_string()).unwrap(), "{:?}", vm.take_log());
    vm
}

fn post<'h>(path: &'h str, more: &[(&'h str, &'h str)]) -> Headers {
    let pseudo =
        [(":method", "POST"), (":path", path), (":authority", "gateway"), ("x-request-id", "r-1")];
    Headers::new(pseudo.iter().chain(more).copied())
}

const JSON: (&str, &str) = ("content-type", "application/json");

fn begin(vm: &mut Vm) -> StreamId {
    vm.request(post(AGENTS, &[JSON]), false).unwrap()
}

#[track_caller]
fn refused(vm: &Vm, stream: StreamId) -> (Reply, Value) {
    match vm.standing(stream).unwrap() {
        Standing::Replied(reply) => {
            assert_eq!(reply.headers.all("content-type"), ["application/problem+json"]);
            let problem: Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(problem["request_id"], "r-1");
            assert_eq!(
                vm.filter_state(stream, "gatehouse_reason"),
                problem["code"].as_str().map(str::as_bytes)
            );
            (reply.clone(), problem)
        }
        other => panic!("{other:?}"),
    }
}

/// In pieces of this many bytes, and then the end; what the upstream gets.
fn send(vm: &mut Vm, stream: StreamId, body: &[u8], piece: usize) -> Option<Vec<u8>> {
    for bytes in body.chunks(piece) {
        assert_eq!(vm.piece(stream, bytes, false).unwrap(), None);
        if matches!(vm.standing(stream).unwrap(), Standing::Replied(_)) {
            return None;
        }
    }
    vm.piece(stream, b"", true).unwrap()
}

#[test]
fn x7_a_fitting_body_goes_on_byte_by_byte_and_no_other_does() {
    for hold in [true, false] {
        let mut vm = vm(&document(hold));
        for piece in [1, 7, 1_000] {
            for (body, expected) in [
                (r#"{"name":"abc","n":1}"#, None),
                (r#" {"tree":{"a":{"b":3}},"name":"z"} "#, None),
                (r#"{"name":"ABC"}"#, Some((422, "body_invalid", json!(["/name"])))),
                (r#"{"n":1.5}"#, Some((422, "body_invalid", json!(["/name", "/n"])))),
                (r#"{"name":"abc""#, Some((400, "body_malformed", json!(null)))),
                (r#"{"name":"abc","name":"abd"}"#, Some((400, "body_malformed", json!(null)))),
                ("", Some((400, "body_malformed", json!(null)))),
            ] {
                let stream = begin(&mut vm);
                let held = matches!(vm.standing(stream).unwrap(), Standing::Held);
                assert_eq!(held, hold, "whether the upstream hears of it at once");
                let got = send(&mut vm, stream, body.as_bytes(), piece);
                match expected {
                    None => {
                        assert_eq!(got.as_deref(), Some(body.as_bytes()));
                        assert!(matches!(vm.standing(stream).unwrap(), Standing::Forwarded(_)));
                    }
                    Some((status, code, pointers)) => {
                        assert_eq!(got, None);
                        let (reply, problem) = refused(&vm, stream);
                        assert_eq!(
                            (reply.status, &problem["code"]),
                            (status, &json!(code)),
                            "{body}"
                        );
                        let told = problem["errors"].as_array().map(|errors| {
                            let mut pointers: Vec<&str> = errors
                                .iter()
                                .map(|error| error["pointer"].as_str().unwrap())
                                .collect();
                            pointers.sort_by_key(|pointer| std::cmp::Reverse(pointer.len()));
                            json!(pointers)
                        });
                        assert_eq!(told.unwrap_or_default(), pointers, "{body}");
                    }
                }
                vm.finish(stream).unwrap();
            }
        }
        assert_eq!(vm.take_log(), []);
    }
}

#[test]
fn x7_what_has_no_schema_streams_through_untouched() {
    let mut vm = vm(&document(true));
    for (headers, piece) in [
        (post("/api/v1/registry/agents/7", &[]), b"{".as_slice()),
        (Headers::new([(":method", "PUT"), (":path", AGENTS)]), b"not json"),
        (Headers::new([(":method", "GET"), (":path", "/a//b")]), b""),
    ] {
        let stream = vm.request(headers.clone(), false).unwrap();
        assert_eq!(vm.standing(stream).unwrap(), &Standing::Forwarded(headers));
        vm.take_counts();
        for ended in [false, true] {
            assert_eq!(vm.piece(stream, piece, ended).unwrap().as_deref(), Some(piece));
        }
        assert!(vm.take_counts().is_empty(), "nothing is asked of the host for it");
        vm.finish(stream).unwrap();
    }
}

#[test]
fn x7_headers_alone_are_enough_to_refuse() {
    let mut vm = vm(&document(true));
    for (headers, ended, expected) in [
        (post(AGENTS, &[("content-type", "text/plain")]), false, (415, "media_type_unsupported")),
        (post(AGENTS, &[]), false, (415, "media_type_unsupported")),
        (
            post(AGENTS, &[JSON, ("content-encoding", "gzip")]),
            false,
            (415, "media_type_unsupported"),
        ),
        (post(AGENTS, &[JSON, ("content-length", "100001")]), false, (413, "body_too_large")),
        (post("/api/v1//registry/agents", &[JSON]), false, (400, "path_invalid")),
        (post("/api/v1/registry%2fagents", &[JSON]), false, (400, "path_invalid")),
        (post(AGENTS, &[JSON]), true, (400, "body_malformed")),
    ] {
        let stream = vm.request(headers, ended).unwrap();
        let (reply, problem) = refused(&vm, stream);
        assert_eq!((reply.status, problem["code"].as_str().unwrap()), expected);
        assert_eq!(vm.piece(stream, br#"{"name":"abc"}"#, true).unwrap(), None, "it was answered");
        vm.finish(stream).unwrap();
    }
    // Another spelling of the path is the same path.
    let stream = vm.request(post("/api/v1/registry/%61gents?x=1", &[JSON]), false).unwrap();
    assert_eq!(send(&mut vm, stream, b"{}", 9), None);
    assert_eq!(refused(&vm, stream).0.status, 422);
    let grpc = vm.request(post(AGENTS, &[("content-type", "application/grpc")]), false).unwrap();
    let Standing::Replied(reply) = vm.standing(grpc).unwrap() else { panic!() };
    // Envoy makes a status and its message of it.
    assert_eq!(reply.body, b"The media type is not supported");
}

#[test]
fn x7_a_body_over_the_limit_is_refused_as_soon_as_it_is_and_trailers_end_one() {
    let mut vm = vm(&document(true));
    let stream = begin(&mut vm);
    assert_eq!(vm.piece(stream, &[b' '; 100_000], false).unwrap(), None);
    assert_eq!(vm.standing(stream).unwrap(), &Standing::Held);
    assert_eq!(vm.piece(stream, b" ", false).unwrap(), None);
    assert_eq!(refused(&vm, stream).0.status, 413);

    for (body, goes_on) in [(r#"{"name":"abc"}"#, true), ("{}", false)] {
        let stream = begin(&mut vm);
        assert_eq!(vm.piece(stream, body.as_bytes(), false).unwrap(), None);
        let got = vm.trailers_after_body(stream).unwrap();
        assert_eq!(got.is_some(), goes_on);
        vm.finish(stream).unwrap();
    }
    // A client that leaves in between leaves nothing behind.
    let stream = begin(&mut vm);
    assert_eq!(vm.piece(stream, b"{", false).unwrap(), None);
    vm.finish(stream).unwrap();
    let stream = begin(&mut vm);
    assert!(send(&mut vm, stream, br#"{"name":"abc"}"#, 3).is_some());
}

#[test]
fn x7_hostile_bodies_end_in_the_vm_and_it_lives_on() {
    let mut vm = vm(&document(true));
    let deep = |depth: usize| {
        format!(r#"{{"name":"a","tree":{}"x"{}}}"#, r#"{"a":"#.repeat(depth), "}".repeat(depth))
    };
    let mut wide = r#"{"name":"a""#.to_owned();
    for name in 0..7_000 {
        write!(wide, r#","k{name}":"x""#).unwrap();
    }
    for (body, status) in [
        (deep(62), 422),
        (deep(63), 422),
        (deep(64), 400),
        ("[".repeat(90_000), 400),
        (format!("{wide}}}"), 422),
        (format!(r#"{{"name":"{}"}}"#, "a".repeat(90_000)), 422),
        (format!("\"{}\"", "\\u0000".repeat(15_000)), 422),
        ("\0".repeat(1_000), 400),
    ] {
        let stream = begin(&mut vm);
        assert_eq!(send(&mut vm, stream, body.as_bytes(), 65_536), None);
        let (reply, problem) = refused(&vm, stream);
        assert_eq!(reply.status, status, "{body:.60}");
        assert!(reply.body.len() < 4_000, "{problem}");
        vm.finish(stream).unwrap();
    }
    let stream = begin(&mut vm);
    assert!(send(&mut vm, stream, br#"{"name":"abc"}"#, 3).is_some());
}

#[test]
fn x7_a_document_with_a_mistake_is_refused_and_nothing_passes_without_one() {
    let around = Surroundings::at(UNIX_EPOCH + Duration::from_secs(NOW_S));
    let mut vm = Vm::start(filter(), &around).unwrap();
    let unconfigured = vm.request(post(AGENTS, &[JSON]), false).unwrap();
    let Standing::Replied(reply) = vm.standing(unconfigured).unwrap() else { panic!() };
    assert_eq!(reply.status, 503);
    let mut fetched = document(true);
    fetched["routes"][0]["schema"] = json!({"items": {"$ref": "https://example.com/x.json"}});
    assert!(!vm.configure(&fetched.to_string()).unwrap());
    let log: Vec<String> = vm.take_log().into_iter().map(|line| line.text).collect();
    assert_eq!(
        log,
        [
            r##"gatehouse: configuration $.routes[0].schema: at "/items/$ref": refers to something outside this schema, which is never fetched; copy it under $defs and write "#/$defs/…""##
        ]
    );
    assert!(!vm.configure("").unwrap());
    // The one before stays.
    assert!(vm.configure(&document(true).to_string()).unwrap());
    assert!(!vm.configure("{}").unwrap());
    let stream = begin(&mut vm);
    assert!(send(&mut vm, stream, br#"{"name":"abc"}"#, 3).is_some());
    assert!(vm.calls().is_empty());
}
