//! Which answers are wrapped, and that no byte of them changes.

use std::rc::Rc;

use serde_json::{Value, json};

use super::*;
use crate::Parts;

const DOCUMENT: &str = include_str!("../../../../examples/gateway/suite.json");

fn suite(envelope: &Value) -> Suite {
    let mut document: Value = serde_json::from_str(DOCUMENT).unwrap();
    document["envelope"] = envelope.clone();
    Suite::compile(&document.to_string(), Parts::Suite).unwrap().0
}

fn record() -> RequestRecord {
    let mut record = RequestRecord::new("r1".into(), Some(Rc::from("v1")));
    record.wraps = true;
    record
}

/// Whether a response of this status with these headers is wrapped.
fn wraps(status: &str, headers: &[(&str, &str)]) -> bool {
    let mut all = vec![(":status", status)];
    all.extend_from_slice(headers);
    suite(&json!({"max_body_bytes": 100})).wrapping(&record(), &all).is_some()
}

#[test]
fn x1_only_whole_json_answers_are_wrapped() {
    let json = ("content-type", "application/json");
    for good in [
        "application/json",
        "Application/JSON; charset=UTF-8",
        "application/json;charset=\"utf-8\"",
        "application/vnd.greenlang.v1+json",
        "application/hal+json; profile=x",
    ] {
        assert!(wraps("200", &[("content-type", good)]), "{good}");
    }
    for other in [
        "application/problem+json",
        "application/problem+json; charset=utf-8",
        "application/x-ndjson",
        "application/jsonp",
        "application/json-seq",
        "application/json; charset=utf-16",
        "application/grpc",
        "application/grpc+json/x",
        "text/event-stream",
        "text/json",
        "multipart/mixed",
        "",
    ] {
        assert!(!wraps("200", &[("content-type", other)]), "{other}");
    }
    assert!(!wraps("200", &[]));
    assert!(!wraps("200", &[json, json]), "two types are none");
    for status in ["200", "201", "202", "300", "400", "404", "422", "500", "503"] {
        assert!(wraps(status, &[json]), "{status}");
    }
    for status in ["100", "101", "103", "204", "205", "206", "304", "", "x"] {
        assert!(!wraps(status, &[json]), "{status}");
    }
    for bare in [
        ("x-envelope", "none"),
        ("X-Envelope", " None "),
        ("content-encoding", "gzip"),
        ("content-encoding", "br, gzip"),
        ("content-range", "bytes 0-1/2"),
        ("cache-control", "private, no-transform"),
        ("content-length", "101"),
        ("content-length", "99999999999999999999999"),
        ("content-length", "x"),
    ] {
        assert!(!wraps("200", &[json, bare]), "{bare:?}");
    }
    for (name, value) in [
        ("x-envelope", "yes"),
        ("content-encoding", "identity"),
        ("cache-control", "no-store"),
        ("content-length", "100"),
    ] {
        assert!(wraps("200", &[json, (name, value)]), "{name}: {value}");
    }
    let unasked = RequestRecord::new("r1".into(), None);
    let headers = [(":status", "200"), json];
    assert_eq!(suite(&json!({})).wrapping(&unasked, &headers), None);
}

#[test]
fn x2_what_speaks_of_the_bytes_is_dropped_and_the_rest_stays() {
    let headers = [
        (":status", "200"),
        ("content-type", "application/json"),
        ("Content-Length", "2"),
        ("etag", "\"x\""),
        ("digest", "x"),
        ("content-digest", "x"),
        ("repr-digest", "x"),
        ("content-md5", "x"),
        ("accept-ranges", "bytes"),
        ("last-modified", "x"),
        ("etags", "x"),
    ];
    let wrapping = suite(&json!({})).wrapping(&record(), &headers).unwrap();
    let dropped: Vec<_> = wrapping
        .edits()
        .iter()
        .map(|edit| match edit {
            Edit::Remove(name) => name.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        "content-length",
        "etag",
        "digest",
        "content-digest",
        "repr-digest",
        "content-md5",
        "accept-ranges",
    ];
    assert_eq!(dropped, expected);
}

fn wrapped(status: &str, body: &[u8]) -> Option<String> {
    let headers = [(":status", status), ("content-type", "application/json")];
    let wrapping = suite(&json!({})).wrapping(&record(), &headers).unwrap();
    let Wrapped { before, after } = wrapping.wrap(&record(), body)?;
    Some(format!("{before}{}{after}", String::from_utf8_lossy(body)))
}

#[test]
fn x5_numbers_order_and_escapes_are_the_upstreams() {
    let deep = "[".repeat(50_000) + &"]".repeat(50_000);
    for body in [
        r#"{"b":1,"a":2,"b":3}"#,
        "12345678901234567890.12345678901234567890",
        "1.0",
        "1e400",
        "-0.0",
        r#""\u0041\/\ud800\u00e9""#,
        " \n{ } \t\r\n",
        "null",
        "\"\u{e9}\"",
        deep.as_str(),
    ] {
        let whole = wrapped("200", body.as_bytes()).unwrap();
        let expected = format!(
            r#"{{"data":{body},"meta":{{"request_id":"r1","version":"v1"}},"error":null}}"#
        );
        assert_eq!(whole, expected);
    }
    assert_eq!(
        wrapped("404", br#"{"m":1.0}"#).unwrap(),
        r#"{"data":null,"meta":{"request_id":"r1","version":"v1"},"error":{"m":1.0}}"#
    );
}

#[test]
fn x6_what_is_not_one_json_text_is_not_wrapped() {
    for broken in [
        b"".as_slice(),
        b" ",
        b"{",
        b"{}{}",
        b"{}x",
        b"[1,]",
        b"{'a':1}",
        b"NaN",
        b"01",
        b"1.",
        b"\"\n\"",
        b"\"\\x\"",
        b"\"\xff\"",
        b"\xef\xbb\xbf{}",
        b"<html>",
    ] {
        assert_eq!(wrapped("200", broken), None, "{:?}", String::from_utf8_lossy(broken));
    }
}

#[test]
fn x3_the_bound_is_the_documents() {
    let headers = [(":status", "200"), ("content-type", "application/json")];
    let wrapping = suite(&json!({"max_body_bytes": 5})).wrapping(&record(), &headers).unwrap();
    assert!(!wrapping.is_too_large(5));
    assert!(wrapping.is_too_large(6));
    assert!(!wrapping.holds_headers());
    let refuses = suite(&json!({"on_broken": "refuse"})).wrapping(&record(), &headers).unwrap();
    assert!(refuses.holds_headers());
}
