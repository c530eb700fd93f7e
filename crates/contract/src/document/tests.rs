//! Tests of the reader.

use super::*;

type Inner = (u64, Option<String>);

fn check(text: &str, expected: Result<(String, Vec<Inner>), &[&str]>) {
    let got = read(text, |doc| {
        let name = doc.text("name");
        let limits = doc.objects("limits", |doc| {
            let per_min = doc.integer("per_min", None, 1..=100);
            let note = doc.text_opt("note");
            Some((per_min?, note?))
        });
        Some((name?, limits?))
    });
    let got = got.map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(got, expected.map_err(|all| all.iter().map(ToString::to_string).collect()));
}

#[test]
fn reads_a_good_document() {
    check(
        r#"{"name":"a","limits":[{"per_min":5},{"per_min":6,"note":"n"}]}"#,
        Ok(("a".to_owned(), vec![(5, None), (6, Some("n".to_owned()))])),
    );
}

#[test]
fn reports_every_mistake_with_its_path_and_mend() {
    check(
        r#"{"nmae":"a","limits":[{"per_min":0},{"per-min":6},7]}"#,
        Err(&[
            "$.name: missing; write a non-empty string",
            "$.limits[0].per_min: 0 does not fit; write a whole number from 1 to 100",
            "$.limits[1].per_min: missing; write a whole number from 1 to 100",
            "$.limits[1].per-min: unknown field; did you mean \"per_min\"?",
            "$.limits[2]: 7 does not fit; write an object",
            "$.nmae: unknown field; remove it; known here: limits, name",
        ]),
    );
    check(
        r#"{"name":"a","limits":[{"per_min":5,"note":"n","per_min":6}],"name":"b","x":{"y":1,"\u0079":2}}"#,
        Err(&[
            "$.limits[0].per_min: stands twice; keep one of them",
            "$.name: stands twice; keep one of them",
            "$.x.y: stands twice; keep one of them",
            "$.x: unknown field; remove it; known here: limits, name",
        ]),
    );
    check(r"[]", Err(&["$: not an object; write one JSON object"]));
}

#[test]
fn a_misspelling_is_recognised() {
    for (known, typed, expected) in [
        ("audiences", "audience", true),
        ("audiences", "audeinces", false),
        ("timeout_ms", "timeoutMs", true),
        ("name", "nane", true),
        ("name", "title", false),
    ] {
        assert_eq!(near(known, typed), expected, "{known} {typed}");
    }
}

#[cfg(feature = "describe")]
#[test]
fn a_reader_says_what_it_reads() {
    use serde_json::json;

    use crate::Tier;

    let schema = describe(|doc| {
        let name = doc.text("name");
        let tier = doc.word_or("tier", Tier::Free, "free, pro or enterprise");
        let peeked = doc.raw("peeked").is_some();
        let per_min = doc.either(
            "limit",
            Value::is_object,
            |doc| doc.object("limit", |doc| doc.integer("per_min", None, 1..=9)),
            |doc| doc.integer("limit", Some(3), 1..=9),
        );
        let ids = doc.parsed_list::<u8>("ids", "a byte");
        doc.refuse_empty("ids", ids.as_deref(), "write one");
        Some((name?, tier?, peeked, per_min?, ids?))
    });
    assert_eq!(
        schema,
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["name", "ids"],
            "properties": {
                "name": {"type": "string", "minLength": 1, "description": "a non-empty string"},
                "tier": {
                    "enum": ["free", "pro", "enterprise", null],
                    "description": "free, pro or enterprise",
                    "default": "free",
                },
                "peeked": true,
                "limit": {
                    "anyOf": [
                        {
                            "type": "object",
                            "additionalProperties": false,
                            "required": ["per_min"],
                            "properties": {"per_min": {"type": "integer", "minimum": 1, "maximum": 9}},
                        },
                        {"type": "integer", "minimum": 1, "maximum": 9},
                        {"type": "null"},
                    ],
                    "default": 3,
                },
                "ids": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"type": "string", "minLength": 1, "description": "a byte"},
                },
            },
        })
    );
}
