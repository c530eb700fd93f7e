//! Bodies and schemas: any bytes are a body that fits, or one that is refused with at most ten pointers into it.

use std::sync::OnceLock;

use gatehouse_contract::Reason;
use gatehouse_validate::{MAX_FINDINGS, Refusal, Schema};
use serde_json::{Value, json};

/// With something of everything that looks at a body.
fn rules() -> Option<&'static Schema> {
    static RULES: OnceLock<Option<Schema>> = OnceLock::new();
    let rules = RULES.get_or_init(|| {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 20, "pattern": "^[a-z]{1,20}$"},
                "items": {
                    "type": "array",
                    "uniqueItems": true,
                    "maxItems": 4,
                    "items": {
                        "properties": {
                            "id": {"format": "uuid"},
                            "n": {"minimum": 0, "exclusiveMaximum": 1000, "multipleOf": 0.5},
                        },
                        "minProperties": 1,
                    },
                },
                "x": {"$ref": "#/$defs/tree"},
            },
            "required": ["name"],
            "patternProperties": {"^e": {"enum": [1, "a", null, [1], {"b": 2}]}},
            "propertyNames": {"maxLength": 30},
            "$defs": {"tree": {"anyOf": [
                {"type": ["integer", "string", "null"]},
                {"items": {"$ref": "#/$defs/tree"}, "additionalProperties": {"$ref": "#/$defs/tree"}},
            ]}},
        });
        Schema::compile(&schema).ok()
    });
    assert!(rules.is_some(), "the rules do not compile");
    rules.as_ref()
}

pub(crate) fn body(data: &[u8]) -> bool {
    let Some(rules) = rules() else { return false };
    match rules.judge(data) {
        Ok(()) => {
            assert!(serde_json::from_slice::<Value>(data).is_ok(), "what fits is JSON");
            true
        }
        Err(refusal) => {
            explained(data, &refusal);
            false
        }
    }
}

/// Whatever a schema says, it compiles or is refused with places, and what compiled judges.
pub(crate) fn schema(data: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return false };
    match Schema::compile(&value) {
        Ok(schema) => {
            for body in
                [r#"{"a":"abc","b":[1,[2]],"x1":"2026-01-01T00:00:00Z"}"#, "[1,\"a\",null]", "7"]
            {
                if let Err(refusal) = schema.judge(body.as_bytes()) {
                    explained(body.as_bytes(), &refusal);
                }
            }
            true
        }
        Err(mistakes) => {
            assert!(mistakes.iter().all(|line| line.starts_with("at \"")), "{mistakes:?}");
            assert!(!mistakes.is_empty(), "refused without a reason");
            false
        }
    }
}

fn explained(body: &[u8], refusal: &Refusal) {
    assert!(refusal.findings.len() <= MAX_FINDINGS);
    if refusal.reason == Reason::BodyMalformed {
        assert!(refusal.findings.is_empty());
        return;
    }
    assert_eq!(refusal.reason, Reason::BodyInvalid);
    let parsed = serde_json::from_slice::<Value>(body);
    let Ok(value) = parsed else { return assert!(parsed.is_ok(), "what is judged is JSON") };
    for finding in &refusal.findings {
        assert!(finding.pointer.len() <= 256);
        // What is missing has a place, too.
        let place = match finding.keyword {
            "required" => finding.pointer.rsplit_once('/').map_or("", |(parent, _)| parent),
            _ => finding.pointer.as_str(),
        };
        assert!(value.pointer(place).is_some(), "{finding:?} points nowhere");
    }
}
