//! That each member counts, that the form is RFC 8785's, and that the hash of a document never changes.

use std::time::Duration;

use serde_json::json;

use super::*;

fn document() -> Value {
    json!({
        "form": FORM,
        "salt": "5".repeat(64),
        "tenant": "00000000-0000-0000-0000-000000000001",
        "execution": "00000000-0000-0000-0000-000000000002",
        "attempt": 1,
        "agent": "00000000-0000-0000-0000-000000000003",
        "version": "00000000-0000-0000-0000-000000000004",
        "image": format!("fuel@sha256:{}", "a".repeat(64)),
        "config": {"driver": "runsc", "runtime": "release-20240729.0", "worker": "0.1.0", "config_version": "0123456789abcdef", "cpu_millis": 1000,
            "memory_bytes": 536_870_912, "timeout_ms": 300_000, "scratch_bytes": 268_435_456,
            "output_bytes": 1_048_576, "processes": 64, "open_files": 1024, "egress": ["a.example:443", "*.b.example"],
            "egress_requests": 100},
        "input": digest(&json!({"litres": 12.5, "fuel": "diesel"})).unwrap(),
        "output": digest(&json!({"kg": "33.5"})).unwrap(),
    })
}

fn read(document: Value) -> Provenance {
    serde_json::from_value(document).unwrap()
}

#[test]
fn the_hash_of_a_document_never_changes() {
    // What was hashed once is verified for ever. Made with another program: Python's `json` with sorted names, which is the
    // form where all is ASCII and whole, then SHA-256.
    let hash = read(document()).hash().unwrap();
    assert_eq!(
        hash.to_string(),
        "sha256:a7332515cc29c7c65e1963f044836bceb1e903033baa80274032fb26a33bec88"
    );
}

#[test]
fn ee42_every_member_counts() {
    let whole = read(document()).hash().unwrap();
    let mut changed = 0;
    let mut check = |pointer: &str| {
        let mut other = document();
        let member = other.pointer_mut(pointer).unwrap();
        *member = match member.take() {
            Value::Number(number) => json!(number.as_u64().unwrap() + 1),
            // The last character is a digit of an id or a digest, or a letter of a name.
            Value::String(text) => {
                let (front, last) = text.split_at(text.len() - 1);
                json!(format!("{front}{}", if last == "b" { "c" } else { "b" }))
            }
            // The same hosts in another order.
            Value::Array(mut values) => {
                values.reverse();
                Value::Array(values)
            }
            other => panic!("{pointer}: {other}"),
        };
        assert_ne!(read(other).hash().unwrap(), whole, "{pointer}");
        changed += 1;
    };
    let members = document();
    for (name, member) in members.as_object().unwrap() {
        match member.as_object() {
            Some(inner) => inner.keys().for_each(|key| check(&format!("/{name}/{key}"))),
            None => check(&format!("/{name}")),
        }
    }
    assert_eq!(changed, 23);
}

#[test]
fn ee42_contents_are_told_apart_by_value_and_order_and_not_by_spelling() {
    let of = |text: &str| digest(&serde_json::from_str(text).unwrap());
    assert_eq!(of(r#"{"a":1,"b":[1.0,2e1]}"#), of("{ \"b\" : [1, 20], \"a\" : 1 }"));
    assert_ne!(of("[1,2]"), of("[2,1]"));
    assert_ne!(of(r#"{"a":"1"}"#), of(r#"{"a":1}"#));
    assert_ne!(of(r#"{"a":null}"#), of("{}"));
    assert_ne!(of("\"\u{e9}\""), of("\"e\u{301}\""));
    for same_double in ["9007199254740993", "-9007199254740993", "[18446744073709551615]"] {
        assert_eq!(of(same_double), Err(Error::Number), "{same_double}");
    }
    assert!(of("[9007199254740991,-9007199254740991,1e300]").is_ok());
}

#[test]
fn the_form_is_that_of_rfc_8785() {
    // Its section 3.2.2 and 3.2.3: the example's input and output.
    let input = "{\"numbers\":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],\
        \"string\":\"\\u20ac$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\\"\\/\",\"literals\":[null,true,false]}";
    let output = "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
        \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
    let value: Value = serde_json::from_str(input).unwrap();
    assert_eq!(digest(&value), Ok(Digest::of(output.as_bytes())));
    // By UTF-16, a character beyond the first plane comes before U+FB33.
    let names: Value = serde_json::from_str("{\"\u{fb33}\":1,\"\u{1f600}\":2}").unwrap();
    let ordered = "{\"\u{1f600}\":2,\"\u{fb33}\":1}";
    assert_eq!(digest(&names), Ok(Digest::of(ordered.as_bytes())));
}

#[test]
fn a_document_of_another_form_is_not_read() {
    let mut more = document();
    more["note"] = json!("x");
    assert!(serde_json::from_value::<Provenance>(more).is_err());
    let limits = Limits { timeout: Duration::MAX, ..Limits::default() };
    assert_eq!(Config::new(("sim", "1"), ("0.1.0", "c1"), &limits, &[]).timeout_ms, u64::MAX);
    // What was recorded is what a second run gets.
    let limits =
        Limits { cpu_millis: 7, processes: 9, scratch_bytes: 1 << 40, ..Limits::default() };
    let config = Config::new(("sim", "1"), ("0.1.0", "c1"), &limits, &[]);
    assert_eq!(Config::new(("sim", "1"), ("0.1.0", "c1"), &config.limits(), &[]), config);
    assert_eq!(read(document()).execution.to_string(), "00000000-0000-0000-0000-000000000002");
}
