//! The envelope through the compiled module: the same bytes however they come, nothing left behind, and what it costs.

use gatehouse_tests::vm::{Delivered, Headers, StreamId};
use serde_json::{Value, json};

use super::gate::{Gate, document, forwarded, request, token};

const PATH: &str = "/api/v1/registry/agents";
/// Requests for the memory test.
const MANY: usize = 1000;

fn gate(envelope: Value) -> Gate {
    let mut document = document();
    document["limiter"] = json!({"local": {"per_minute": 1_000_000}});
    if !envelope.is_null() {
        document["envelope"] = envelope;
    }
    let mut gate = Gate::with(&document, true);
    pass(&mut gate);
    gate
}

/// A request that has passed.
fn pass(gate: &mut Gate) -> StreamId {
    let bearer = format!("Bearer {}", token());
    let mut headers = request("GET", PATH, Some(&bearer));
    headers.push(("x-request-id", "r1"));
    let stream = gate.vm.request(Headers::new(headers), true).unwrap();
    forwarded(gate.finish(stream));
    stream
}

fn deliver(gate: &mut Gate, headers: &[(&str, &str)], body: &[u8], piece: usize) -> Delivered {
    let stream = pass(gate);
    let mut all = vec![(":status", "200"), ("content-type", "application/json")];
    all.extend_from_slice(headers);
    let pieces: Vec<&[u8]> = body.chunks(piece).collect();
    let delivered = gate.vm.deliver_response(stream, Headers::new(all), &pieces, false).unwrap();
    gate.vm.finish(stream).unwrap();
    gate.vm.take_log();
    delivered
}

const BODY: &[u8] = br#"{"b":1.0,"a":[1e400,"\u00e9"]}"#;

fn whole(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    format!(r#"{{"data":{body},"meta":{{"request_id":"r1","version":"v1"}},"error":null}}"#)
}

#[test]
fn x4_every_chunking_gives_the_same_bytes() {
    for envelope in [json!({}), json!({"on_broken": "refuse"})] {
        let mut gate = gate(envelope);
        for piece in [1, 2, 7, BODY.len()] {
            let length = BODY.len().to_string();
            let headers = [("content-length", length.as_str()), ("etag", "\"x\"")];
            let got = deliver(&mut gate, &headers, BODY, piece);
            assert_eq!(String::from_utf8(got.body).unwrap(), whole(BODY), "by {piece}");
            for dropped in ["content-length", "etag"] {
                assert_eq!(got.headers.all(dropped), [""; 0]);
            }
            assert_eq!(got.headers.all("vary"), ["X-Envelope"]);
        }
        let stream = pass(&mut gate);
        let headers = Headers::new([(":status", "200"), ("content-type", "application/json")]);
        let got = gate.vm.deliver_response(stream, headers, &[BODY], true).unwrap();
        assert_eq!(String::from_utf8(got.body).unwrap(), whole(BODY), "trailers end it, too");
    }
}

#[test]
fn x6_broken_json_passes_or_is_refused_and_nothing_hangs() {
    for broken in [&b"{"[..], b"<html>", b"{}\xff", &b"[".repeat(100_000)] {
        let mut gate = self::gate(json!({}));
        let got = deliver(&mut gate, &[], broken, 1000);
        assert_eq!((got.body.as_slice(), got.reply), (broken, None));
        let mut gate = self::gate(json!({"on_broken": "refuse"}));
        let got = deliver(&mut gate, &[("etag", "x")], broken, 1000);
        assert_eq!(got.body, b"");
        let reply = got.reply.unwrap();
        assert_eq!(reply.status, 502);
        let problem: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(problem["code"], "upstream_invalid");
    }
}

#[test]
fn x3_too_large_an_answer_passes_as_it_is() {
    let body = json!({"a": "x".repeat(1000)}).to_string();
    for on_broken in ["pass", "refuse"] {
        let mut gate = gate(json!({"max_body_bytes": 500, "on_broken": on_broken}));
        let length = body.len().to_string();
        let said = deliver(&mut gate, &[("content-length", &length)], body.as_bytes(), 100);
        assert_eq!((said.body.as_slice(), said.most_held), (body.as_bytes(), 0));
        assert_eq!(said.headers.all("content-length"), [length]);
        let unsaid = deliver(&mut gate, &[("etag", "x")], body.as_bytes(), 100);
        assert_eq!((unsaid.body.as_slice(), unsaid.most_held), (body.as_bytes(), 500));
        assert_eq!(unsaid.headers.all("etag").len(), usize::from(on_broken == "refuse"));
    }
}

#[test]
fn x1_what_is_not_wrapped_is_neither_held_nor_read() {
    let mut gate = gate(json!({}));
    for headers in [
        vec![("content-encoding", "gzip")],
        vec![("x-envelope", "none")],
        vec![("content-range", "bytes 0-1/2")],
    ] {
        gate.vm.take_counts();
        let got = deliver(&mut gate, &headers, BODY, 3);
        assert_eq!((got.body.as_slice(), got.most_held), (BODY, 0), "{headers:?}");
        let counts = gate.vm.take_counts();
        assert!(!counts.contains_key("proxy_get_buffer_bytes"), "{counts:#?}");
        assert!(!counts.contains_key("proxy_set_buffer_bytes"), "{counts:#?}");
    }
    let mut off = self::gate(Value::Null);
    off.vm.take_counts();
    let got = deliver(&mut off, &[("etag", "x")], BODY, 3);
    assert_eq!((got.body.as_slice(), got.most_held), (BODY, 0));
    assert!(!off.vm.take_counts().contains_key("proxy_get_buffer_bytes"));
}

#[test]
fn x5_the_body_crosses_once() {
    let mut gate = gate(json!({}));
    let body = json!({"a": "x".repeat(10_000)}).to_string();
    gate.vm.take_counts();
    let got = deliver(&mut gate, &[], body.as_bytes(), 1000);
    assert_eq!(String::from_utf8(got.body).unwrap(), whole(body.as_bytes()));
    let counts = gate.vm.take_counts();
    assert_eq!(counts["proxy_get_buffer_bytes"].calls, 1);
    assert_eq!(counts["proxy_set_buffer_bytes"].calls, 2);
    assert!(counts["proxy_set_buffer_bytes"].bytes < 200, "{counts:#?}");
}

#[test]
fn x6_a_stream_that_ends_while_held_leaves_nothing_behind() {
    let mut gate = gate(json!({}));
    let run = |gate: &mut Gate| {
        for _ in 0..MANY {
            let stream = pass(gate);
            let headers = Headers::new([(":status", "200"), ("content-type", "application/json")]);
            // Trailers never come: nothing says that the body is whole.
            gate.vm.deliver_response(stream, headers, &[BODY], false).unwrap();
            gate.vm.finish(stream).unwrap();
            let stream = pass(gate);
            let headers = Headers::new([(":status", "200"), ("content-type", "application/json")]);
            gate.vm.respond(stream, headers).unwrap();
            gate.vm.finish(stream).unwrap();
            gate.vm.take_log();
            gate.asked.clear();
        }
        gate.vm.memory_bytes()
    };
    let warm = run(&mut gate);
    assert_eq!(run(&mut gate), warm);
}

#[test]
fn x11_memory_stays_flat_with_the_envelope_on() {
    let mut gate = gate(json!({}));
    let body = json!({"a": "x".repeat(100_000)}).to_string();
    let run = |gate: &mut Gate| {
        for _ in 0..MANY / 4 {
            let got = deliver(gate, &[], body.as_bytes(), 16_384);
            assert_eq!(got.body.len(), whole(body.as_bytes()).len());
            gate.asked.clear();
        }
        gate.vm.memory_bytes()
    };
    let warm = run(&mut gate);
    assert_eq!(run(&mut gate), warm);
}

#[test]
fn x11_memory_stays_flat_over_a_thousand_configurations() {
    let mut gate = gate(json!({}));
    let mut documents = [document(), document()].map(|mut document| {
        document["envelope"] = json!({});
        document["cors"] = json!({"origins": ["https://app.example.com"]});
        document["transforms"] =
            json!({"request": {"headers": [{"set": "x-a", "value": "${tenant}"}]}});
        document
    });
    documents[1]["cors"]["credentials"] = true.into();
    let mut run = |count: usize| {
        for round in 0..count {
            assert!(gate.vm.configure(&documents[round % 2].to_string()).unwrap());
            gate.vm.take_log();
        }
        gate.vm.memory_bytes()
    };
    let warm = run(50);
    let after = run(1000);
    assert!(after as f64 <= warm as f64 * 1.01, "{warm} became {after}");
}
