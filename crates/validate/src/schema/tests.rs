//! Schemas over bodies: verdicts by the words of JSON Schema, and what hostile ones cost.

use gatehouse_contract::Reason;

use super::*;
use crate::judge::MAX_FINDINGS;

fn check(schema: &Value, body: &str, expected: Result<(), &[(&str, &str)]>) {
    let schema = Schema::compile(schema).unwrap();
    let judged = schema.judge(body.as_bytes());
    let got = match &judged {
        Ok(()) => Ok(()),
        Err(refusal) => {
            assert_eq!(refusal.reason, Reason::BodyInvalid, "{refusal:?}");
            Err(refusal
                .findings
                .iter()
                .map(|finding| (finding.pointer.as_str(), finding.keyword))
                .collect())
        }
    };
    assert_eq!(got, expected.map_err(<[_]>::to_vec), "{body:.80}");
}

#[test]
fn x7_errors_say_where_and_which_keyword() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 5, "pattern": "^[a-z]+$"},
            "a/b": {"type": "object", "properties": {"c~d": {"const": 1}}},
            "list": {"type": "array", "items": {"type": "integer", "maximum": 9}, "uniqueItems": true, "maxItems": 4},
            "when": {"format": "date-time"},
            "one": {"oneOf": [{"type": "string"}, {"enum": ["x", 1.0]}]}
        },
        "required": ["name"],
        "additionalProperties": false
    });
    for (body, expected) in [
        (r#"{"name":"abc","list":[1,2.0,3],"when":"2026-01-02T03:04:05Z","one":1}"#, Ok(())),
        (r"{}", Err([("/name", "required")].as_slice())),
        (r"[]", Err(&[("", "type")])),
        (r#"{"name":""}"#, Err(&[("/name", "minLength"), ("/name", "pattern")])),
        (r#"{"name":"abcdef"}"#, Err(&[("/name", "maxLength")])),
        (r#"{"name":"a","a/b":{"c~d":2}}"#, Err(&[("/a~1b/c~0d", "const")])),
        (r#"{"name":"a","a/b":{"c~d":1.0}}"#, Ok(())),
        (
            r#"{"name":"a","list":[1,10,"x",1.5]}"#,
            Err(&[("/list/1", "maximum"), ("/list/2", "type"), ("/list/3", "type")]),
        ),
        (r#"{"name":"a","list":[1,2,1.0]}"#, Err(&[("/list", "uniqueItems")])),
        (r#"{"name":"a","extra~":1}"#, Err(&[("/extra~0", "additionalProperties")])),
        (r#"{"name":"a","when":"yesterday"}"#, Err(&[("/when", "format")])),
        (r#"{"name":"a","one":"x"}"#, Err(&[("/one", "oneOf")])),
        (r#"{"name":"a","one":2}"#, Err(&[("/one", "oneOf")])),
    ] {
        let order = |findings: &[(&str, &str)]| {
            let mut sorted: Vec<(String, String)> = findings
                .iter()
                .map(|(at, keyword)| ((*at).to_owned(), (*keyword).to_owned()))
                .collect();
            sorted.sort();
            sorted
        };
        let compiled = Schema::compile(&schema).unwrap();
        let got = compiled.judge(body.as_bytes()).map_err(|refusal| {
            let findings: Vec<_> = refusal
                .findings
                .iter()
                .map(|finding| (finding.pointer.as_str(), finding.keyword))
                .collect();
            order(&findings)
        });
        assert_eq!(got, expected.map_err(order), "{body}");
    }
}

#[test]
fn x7_at_most_ten_errors_and_nothing_of_the_body_in_them() {
    let schema =
        json!({"additionalProperties": {"type": "string"}, "propertyNames": {"maxLength": 400}});
    let members: Vec<String> = (0..50).map(|name| format!(r#""k{name}":1{name}734921"#)).collect();
    let compiled = Schema::compile(&schema).unwrap();
    let refusal = compiled.judge(format!("{{{}}}", members.join(",")).as_bytes()).unwrap_err();
    assert_eq!(refusal.findings.len(), MAX_FINDINGS);
    let told = String::from_utf8(refusal.problem().to_json()).unwrap();
    assert!(!told.contains("734921"), "{told}");
    assert!(
        told.contains(
            r#""errors":[{"detail":"is of another type than it must be","pointer":"/k0"}"#
        ),
        "{told}"
    );
    // A pointer as long as a client likes is told up to a whole step.
    let long = "n".repeat(300);
    check(&schema, &format!(r#"{{"{long}":1}}"#), Err(&[("", "type")]));
    let schema = json!({"additionalProperties": {"additionalProperties": false}});
    check(&schema, &format!(r#"{{"a":{{"{long}":1}}}}"#), Err(&[("/a", "false")]));
}

#[test]
fn x7_formats_that_are_written_are_asserted() {
    for (format, good, bad) in [
        ("date", "2026-02-28", "2026-02-30"),
        ("date-time", "2026-02-28T00:00:00+01:00", "2026-02-28 00:00"),
        ("duration", "P1DT2H", "1 day"),
        ("email", "a@example.com", "a@"),
        ("hostname", "a.example.com", "-a.example"),
        ("ipv4", "127.0.0.1", "127.0.0.256"),
        ("ipv6", "::1", "::g"),
        ("json-pointer", "/a~1b", "a"),
        ("time", "01:02:03Z", "25:00:00Z"),
        ("uri", "https://example.com/a?b", "//x"),
        ("uri-reference", "/a?b", "\\\\"),
        ("uuid", "0191d6b0-7c3e-7aaa-8bbb-0123456789ab", "0191d6b0"),
    ] {
        assert!(bounds::FORMATS.contains(&format));
        let schema = json!({"format": format});
        check(&schema, &json!(good).to_string(), Ok(()));
        check(&schema, &json!(bad).to_string(), Err(&[("", "format")]));
    }
}

#[test]
fn x7_patterns_of_more_than_linear_time_or_of_any_size_are_refused_at_load() {
    for pattern in [
        "(?=a)b",
        "(?<!a)b",
        r"(a)\1",
        r"(?<x>a)\k<x>",
        "(",
        "a{100000}",
        "((a{100}){100}){100}",
        &"a".repeat(513),
    ] {
        let faults = Schema::compile(&json!({"items": {"pattern": pattern}})).unwrap_err();
        assert_eq!(faults.len(), 1, "{pattern}");
        assert!(faults[0].starts_with("at \"/items/pattern\": the pattern cannot"), "{faults:?}");
    }
    for pattern in ["^a{1,200}$", r"^\d+(\.\d+)?$", "^(a+)+$", r"^\p{L}+$", &"a".repeat(512)] {
        assert!(Schema::compile(&json!({"pattern": pattern})).is_ok(), "{pattern}");
    }
}

#[test]
fn what_is_no_schema_is_refused_where_it_is_none() {
    for (schema, at) in [
        (json!({"properties": {"a": {"type": "text"}}}), "/properties/a/type"),
        (json!({"minLength": -1}), "/minLength"),
        (json!({"required": "a"}), "/required"),
        (json!({"allOf": {}}), "/allOf"),
        (json!({"pattern": 7}), "/pattern"),
    ] {
        let faults = Schema::compile(&schema).unwrap_err();
        assert!(faults[0].starts_with(&format!("at \"{at}\": ")), "{faults:?}");
    }
}

/// The steps that judging `body` takes, both passes; more than are allowed is `None`.
fn verdict(schema: &Value, body: &str) -> Option<bool> {
    match Schema::compile(schema).unwrap().judge(body.as_bytes()) {
        Ok(()) => Some(true),
        Err(refusal) if refusal == Refusal::too_dear() => None,
        Err(refusal) => {
            assert!(!refusal.findings.is_empty());
            assert!(refusal.findings.len() <= MAX_FINDINGS);
            Some(false)
        }
    }
}

#[test]
fn x7_hostile_bodies_cost_a_bounded_amount() {
    let list = |count: usize, item: &dyn Fn(usize) -> String| {
        format!("[{}]", (0..count).map(item).collect::<Vec<_>>().join(","))
    };
    // Quadratic where each item is compared with each other.
    let unique = json!({"uniqueItems": true});
    let pairs = list(40_000, &|place| format!("[{place},{{\"a\":{place}}}]"));
    assert_eq!(verdict(&unique, &pairs), Some(true));
    let twins = list(40_000, &|place| format!("[{}]", place % 39_999));
    assert_eq!(verdict(&unique, &twins), Some(false));
    let long = "x".repeat(20_000);
    assert_eq!(verdict(&unique, &list(50, &|place| format!("\"{long}{place}\""))), Some(true));
    // As many errors as there are items.
    let strings = json!({"items": {"anyOf": [{"type": "string"}, {"type": "boolean"}]}});
    assert_eq!(verdict(&strings, &list(500_000, &|_| "1".to_owned())), Some(false));
    let last = format!("[{}1]", "true,".repeat(200_000));
    assert_eq!(verdict(&strings, &last), Some(false));
    // Names without end.
    let names = json!({"additionalProperties": false, "propertyNames": {"pattern": "^(a|ab)*c"}});
    let members = (0..50_000).map(|name| format!("\"{name:x}\":0")).collect::<Vec<_>>().join(",");
    assert_eq!(verdict(&names, &format!("{{{members}}}")), Some(false));
    // A pattern that backtracks for ever elsewhere, and one that keeps hundreds of states alive at every character.
    let text = |length: usize| format!("\"{}d\"", "a".repeat(length));
    let backtracking = json!({"pattern": "^(a+)+$"});
    assert_eq!(verdict(&backtracking, &text(900_000)), Some(false));
    let wide = json!({"pattern": "^[ab]*a[ab]{500}$"});
    assert_eq!(verdict(&wide, &text(2_000)), Some(false));
    assert_eq!(verdict(&wide, &text(900_000)), None);
    // What fits and takes all the steps lets nothing behind it pass unseen.
    let body = format!("[\"{}\",\"evil\"]", "a".repeat(900_000));
    assert_eq!(verdict(&json!({"items": wide}), &body), None);
    let long = json!({"pattern": format!("^({})*$", "a|aa|".repeat(100) + "c")});
    assert_eq!(verdict(&long, &text(900_000)), None);
}

#[test]
fn x7_hostile_schemas_cost_a_bounded_amount_too() {
    let nested = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    // Twice the work at each level: 2^64 steps where nothing counts them.
    let twice = |word: &str| {
        let level =
            json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]});
        json!({word: [level, level, {"type": "string"}]})
    };
    for word in ["anyOf", "oneOf", "allOf"] {
        let judged = verdict(&twice(word), &nested(64));
        assert!(matches!(judged, None | Some(false)), "{word} {judged:?}");
    }
    let branch = json!({"properties": {"a": {"$ref": "#"}}});
    let unevaluated = json!({"allOf": [branch, branch, branch], "unevaluatedProperties": false});
    assert!(matches!(verdict(&unevaluated, &nested(64)), None | Some(_)));
    // The deepest body under the longest chain: the stack holds.
    let mut defs = serde_json::Map::new();
    for place in 0..14 {
        let next = json!({"allOf": [{"$ref": format!("#/$defs/d{}", place + 1)}]});
        defs.insert(format!("d{place}"), next);
    }
    let last = json!({"properties": {"a": {"$ref": "#/$defs/d0"}}, "not": {"const": 1}});
    defs.insert("d14".to_owned(), last);
    let deep = json!({"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs});
    assert_eq!(verdict(&deep, &nested(64)), Some(false));
    let large = json!({"enum": (0..5_000).map(|number| json!([number])).collect::<Vec<_>>()});
    assert_eq!(
        verdict(&json!({"items": large}), &format!("[{}]", "[1],".repeat(2_000) + "[1]")),
        Some(true)
    );
}
