//! What a schema may not say, each beside the nearest that it may.

use serde_json::json;

use super::*;

fn faults(schema: &Value) -> Vec<Fault> {
    super::check(schema, &|pattern, _| pattern != "bad").err().unwrap_or_default()
}

fn check(schema: &Value, expected: &[(&str, &str)]) {
    let found = faults(schema);
    let got: Vec<(&str, &str)> =
        found.iter().map(|fault| (fault.pointer.as_str(), fault.cause.as_str())).collect();
    assert_eq!(got, expected);
    assert!(found.iter().all(|fault| !fault.mend.is_empty()));
}

#[test]
fn x7_nothing_outside_the_schema_is_referred_to() {
    let fetched = "refers to something outside this schema, which is never fetched";
    let nothing = "refers to no subschema of this schema";
    check(&json!({"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": true}}), &[]);
    check(&json!({"properties": {"a": {"$ref": "#"}}}), &[]);
    for reference in [
        "https://example.com/x.json",
        "http://127.0.0.1/x",
        "file:///etc/passwd",
        "x.json",
        "//host/x",
        "urn:uuid:1",
        "",
        "#anchor",
        "#/%24defs/x",
        "https://json-schema.org/draft/2020-12/schema",
    ] {
        check(
            &json!({"items": {"allOf": [{"$ref": reference}]}, "$defs": {"x": true}}),
            &[("/items/allOf/0/$ref", fetched)],
        );
    }
    check(&json!({"items": {"$ref": 7}}), &[("/items/$ref", fetched)]);
    for reference in ["#/$defs/y", "#/$defs", "#/type", "#/"] {
        check(
            &json!({"type": "array", "items": {"$ref": reference}, "$defs": {"x": true}}),
            &[("/items/$ref", nothing)],
        );
    }
    check(
        &json!({"$defs": {"a/b~": {"$dynamicRef": "#x"}}}),
        &[("/$defs/a~1b~0/$dynamicRef", "an unknown keyword")],
    );
}

#[test]
fn x7_a_misspelt_keyword_or_a_format_that_nobody_checks_is_refused() {
    check(
        &json!({"properties": {"a": {"minLenght": 3}}}),
        &[("/properties/a/minLenght", "an unknown keyword")],
    );
    check(&json!({"properties": {"minLenght": {}}, "enum": [{"minLenght": 1}]}), &[]);
    check(&json!({"format": "uuid"}), &[]);
    for format in ["regex", "idn-email", "UUID", "int64", "uri-template"] {
        check(&json!({"format": format}), &[("/format", "a format that is not checked")]);
    }
    check(&json!({"$schema": DIALECT, "$id": "https://example.com/s"}), &[]);
    check(
        &json!({"$schema": "http://json-schema.org/draft-07/schema#"}),
        &[("/$schema", "another dialect")],
    );
    check(&json!({"items": {"$id": "x"}}), &[("/items/$id", "a subschema with a name of its own")]);
    check(&json!({"items": [true]}), &[("/items", "a schema is an object, true or false")]);
    check(&json!(null), &[("", "a schema is an object, true or false")]);
}

#[test]
fn x7_a_pattern_that_is_not_linear_is_refused() {
    let cause = "the pattern cannot be matched in linear time, is too large or is none";
    check(&json!({"items": {"pattern": "bad"}}), &[("/items/pattern", cause)]);
    check(&json!({"patternProperties": {"bad": true}}), &[("/patternProperties/bad", cause)]);
    check(&json!({"patternProperties": {"good": {"pattern": "good"}}}), &[]);
    let many: Vec<Value> = (0..201).map(|_| json!({"pattern": "x"})).collect();
    check(
        &json!({"prefixItems": many}),
        &[("/prefixItems/200/pattern", "the schema has more than 200 patterns")],
    );
}

#[test]
fn x7_a_schema_has_a_bounded_size() {
    let properties = |count: usize| -> Value {
        (0..count).map(|name| (format!("p{name}"), json!(true))).collect::<Map<_, _>>().into()
    };
    check(&json!({"properties": properties(1_999)}), &[]);
    let found = faults(&json!({"properties": properties(5_000)}));
    let causes: Vec<&str> = found.iter().map(|fault| fault.cause.as_str()).collect();
    assert_eq!(causes, ["the schema has more than 2000 subschemas"]);
}

/// `d0` asks `d1` asks … the last.
fn chain(length: usize, link: impl Fn(&Value) -> Value) -> Value {
    let mut defs = Map::new();
    for place in 0..length {
        let next = json!({"$ref": format!("#/$defs/d{}", place + 1)});
        defs.insert(format!("d{place}"), link(&next));
    }
    defs.insert(format!("d{length}"), json!({"type": "string"}));
    json!({"$defs": defs})
}

#[test]
fn x7_what_is_asked_of_one_value_is_bounded() {
    let long = "more than 32 schemas are asked of one value, one by another";
    let many = "more than 1000 schemas are asked of one value";
    let endless = "the schema is asked of the same value again and again";
    check(&chain(31, Value::clone), &[]);
    check(&chain(32, Value::clone), &[("/$defs/d0", long)]);
    check(&chain(1_000, Value::clone), &[("/$defs/d0", long)]);
    check(&chain(7, |next| json!({"anyOf": [next, next]})), &[]);
    check(&chain(9, |next| json!({"anyOf": [next, next]})), &[("/$defs/d0", many)]);
    check(&chain(15, |next| json!({"allOf": [next, next]})), &[("/$defs/d0", many)]);
    // Not of one value: each is asked of a member of the one before.
    check(&chain(300, |next| json!({"properties": {"a": next}})), &[]);
    check(&json!({"$ref": "#"}), &[("", endless)]);
    check(
        &json!({"$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"if": {"$ref": "#/$defs/a"}}}}),
        &[("/$defs/a", endless)],
    );
    check(&json!({"anyOf": [{"type": "string"}, {"items": {"$ref": "#"}}]}), &[]);
}

#[test]
fn x7_a_text_costs_what_the_largest_pattern_may_take() {
    let steps = |schema: &Value| {
        super::check(schema, &|pattern, bytes| pattern.len() * 1024 <= bytes).unwrap()
    };
    for (schema, expected) in [
        (json!({"type": "string"}), 1),
        (json!({"pattern": "abc"}), 1),
        (json!({"pattern": "a{2}"}), 4),
        (json!({"items": {"pattern": "a{2}b{3}"}, "pattern": "x"}), 8),
        (json!({"patternProperties": {"a{2}b{3}c": {"pattern": "a{2}"}}}), 16),
        (json!({"pattern": "x".repeat(64)}), 8),
    ] {
        assert_eq!(steps(&schema).text_steps, expected, "{schema}");
    }
}
