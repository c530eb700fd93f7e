//! The module's document: what it says, and every mistake in it.

use super::*;

const GOOD: &str = r#"{
  "hold_headers": true,
  "routes": [
    {"method": "POST", "path": "/api/v1/registry/agents", "max_body_bytes": 20, "schema": {"type": "object"}},
    {"method": "PATCH", "path": "/api/v1/registry/agents/{id}", "schema": {"type": "object"}},
    {"method": "PATCH", "path": "/api/v1/registry/agents/special", "schema": false}
  ]
}"#;

#[test]
fn a_request_finds_the_first_rule_that_fits() {
    let validator = Validator::compile(GOOD).unwrap();
    assert!(validator.holds_headers());
    for (method, path, expected) in [
        ("POST", "/api/v1/registry/agents", Some(0)),
        ("PUT", "/api/v1/registry/agents", None),
        ("post", "/api/v1/registry/agents", None),
        ("POST", "/api/v1/registry/agents/", None),
        ("POST", "/api/v1/registry/agents/7", None),
        ("PATCH", "/api/v1/registry/agents/7", Some(1)),
        ("PATCH", "/api/v1/registry/agents/special", Some(1)),
        ("PATCH", "/api/v1/registry/agents/", None),
        ("PATCH", "/api/v1/registry/agents/7/x", None),
        ("PATCH", "", None),
    ] {
        let found = validator.find(method.as_bytes(), path).map(|(place, _)| place);
        assert_eq!(found, expected, "{method} {path}");
    }
}

#[test]
fn x7_media_type_then_size_then_json_then_schema() {
    let validator = Validator::compile(GOOD).unwrap();
    let rule = validator.rule(0).unwrap();
    let reason = |judged: Result<(), Refusal>| judged.map_err(|refusal| refusal.reason);
    assert_eq!(reason(rule.accepts(Some(b"application/json"), false)), Ok(()));
    for (content_type, is_encoded) in
        [(None, false), (Some(b"text/plain".as_slice()), false), (Some(b"application/json"), true)]
    {
        assert_eq!(
            reason(rule.accepts(content_type, is_encoded)),
            Err(Reason::MediaTypeUnsupported)
        );
    }
    for (body, expected) in [
        ("{\"a\":1}", Ok(())),
        ("                    {", Err(Reason::BodyTooLarge)),
        ("                  {}", Ok(())),
        ("                   {}", Err(Reason::BodyTooLarge)),
        ("", Err(Reason::BodyMalformed)),
        ("{", Err(Reason::BodyMalformed)),
        ("[]", Err(Reason::BodyInvalid)),
    ] {
        assert_eq!(reason(rule.judge(body.as_bytes())), expected, "{body}");
    }
}

#[test]
fn every_mistake_is_told_with_its_place_and_mend() {
    let mistakes = Validator::compile(
        r##"{
  "hold_header": true,
  "routes": [
    {"method": "GET", "path": "/a", "schema": {"$ref": "https://example.com/x"}},
    {"method": "POST", "path": "a//b", "schema": {"properties": {"a": {"pattern": "(?=x)"}}}},
    {"method": "POST", "path": "/a/{x}", "max_body_bytes": 0, "schema": {"type": "objekt"}},
    {"method": "POST", "path": "/a/%61"}
  ]
}"##,
    )
    .unwrap_err();
    let got: Vec<String> =
        mistakes.iter().map(|mistake| format!("{}: {:.40}", mistake.path, mistake.cause)).collect();
    assert_eq!(
        got,
        [
            "$.routes[0].method: \"GET\" does not fit",
            "$.routes[0].schema: at \"/$ref\": refers to something outside ",
            "$.routes[1].path: \"a//b\" does not fit",
            "$.routes[1].schema: at \"/properties/a/pattern\": the pattern ",
            "$.routes[2].max_body_bytes: 0 does not fit",
            "$.routes[2].schema: at \"/type\": not a schema: \"objekt\" is no",
            "$.routes[3].path: \"/a/%61\" does not fit",
            "$.routes[3].schema: missing",
            "$.hold_header: unknown field",
        ]
    );
    assert!(mistakes.iter().all(|mistake| !mistake.mend.is_empty()));
    for (text, expected) in [
        ("{}", "$.routes: no routes"),
        (
            r#"{"routes":[{"method":"PUT","path":"/a/{b}","schema":{}},{"method":"PUT","path":"/a/{c}","schema":{}}]}"#,
            "$.routes[1]: the same method and path stand above",
        ),
    ] {
        let mistakes = Validator::compile(text).unwrap_err();
        let got: Vec<String> =
            mistakes.iter().map(|mistake| format!("{}: {}", mistake.path, mistake.cause)).collect();
        assert_eq!(got, [expected]);
    }
}
