//! Writes JSON values as YAML for people: block style, quotes only where a plain word would mean something else.
//! Knows nothing of what the values mean.

use serde_json::Value;

/// The value as one YAML document.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(members) if !members.is_empty() => mapping(&mut out, value, 0),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        other => {
            scalar(&mut out, other, 0);
        }
    }
    out
}

fn mapping(out: &mut String, value: &Value, depth: usize) {
    let Some(members) = value.as_object() else { return };
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            indent(out, depth);
        }
        out.push_str(&word(name));
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                indent(out, depth + 1);
                mapping(out, value, depth + 1);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                indent(out, depth + 1);
                sequence(out, items, depth + 1);
            }
            other => {
                out.push(' ');
                scalar(out, other, depth + 1);
            }
        }
    }
}

fn sequence(out: &mut String, items: &[Value], depth: usize) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            indent(out, depth);
        }
        out.push_str("- ");
        match item {
            Value::Object(inner) if !inner.is_empty() => mapping(out, item, depth + 1),
            Value::Array(inner) if !inner.is_empty() => sequence(out, inner, depth + 1),
            other => scalar(out, other, depth + 1),
        }
    }
}

fn scalar(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::String(text) if text.contains('\n') && block(text) => {
            out.push_str("|-\n");
            for line in text.lines() {
                indent(out, depth);
                out.push_str(line);
                out.push('\n');
            }
        }
        Value::String(text) => {
            out.push_str(&word(text));
            out.push('\n');
        }
        other => {
            // Numbers, flags, null and empty containers are the same in both languages.
            out.push_str(&format!(
                "{other}
"
            ));
        }
    }
}

/// Whether a literal block carries `text` unchanged.
fn block(text: &str) -> bool {
    !text.ends_with('\n')
        && !text.starts_with([' ', '\n'])
        && text.chars().all(|c| c == '\n' || !c.is_control())
}

fn word(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:".contains(c))
        && !text.ends_with(':')
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}

fn indent(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(value: &Value, expected: &str) {
        assert_eq!(write(value), expected);
    }

    #[test]
    fn containers_nest() {
        check(
            &json!({"a": {"b": [1, {"c": "x", "d": []}, [2, 3]]}, "e": {}}),
            "a:\n  b:\n    - 1\n    - c: x\n      d: []\n    - - 2\n      - 3\ne: {}\n",
        );
    }

    #[test]
    fn words_that_mean_something_else_are_quoted() {
        for (text, expected) in [
            ("plain-word", "plain-word"),
            ("https://a.b/c", "https://a.b/c"),
            ("3.0", "\"3.0\""),
            ("no", "\"no\""),
            ("a b", "\"a b\""),
            ("", "\"\""),
            ("x:", "\"x:\""),
            ("@type", "\"@type\""),
        ] {
            check(&json!(text), &format!("{expected}\n"));
        }
    }

    #[test]
    fn text_of_several_lines_stays_readable() {
        check(&json!({"a": "{\n  1\n}"}), "a: |-\n  {\n    1\n  }\n");
        check(&json!("a\n"), "\"a\\n\"\n");
    }
}
