//! Deprecation headers that a manifest sets by hand: a date that is none, a weekday that is another one's.
//! Knows no edge document, where dates are written once and weekdays are computed.

use serde_json::Value;
use time::{
    Date, PrimitiveDateTime, format_description::BorrowedFormatItem, macros::format_description,
};

use super::manifest::walk;
use crate::finding::Finding;

/// IMF-fixdate (RFC 9110 §5.6.7) after its weekday.
const FIXDATE: &[BorrowedFormatItem<'_>] =
    format_description!("[day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// Everything wrong with headers of a deprecation anywhere in `document`.
pub(super) fn check(document: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    walk(document, "$", &mut |value, path| {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    if let Some(shown) = scalar(value) {
                        findings.extend(judge(name, &shown, &format!("{path}.{name}")));
                    }
                }
                // Envoy's and the Gateway API's way.
                if let (Some(name), Some(value)) = (text("key").or(text("name")), text("value")) {
                    findings.extend(judge(name, value, &format!("{path}.value")));
                }
            }
            // Kong's way.
            Value::String(line) => {
                if let Some((name, value)) = line.split_once(':') {
                    findings.extend(judge(name.trim(), value.trim(), path));
                }
            }
            _ => {}
        }
    });
    findings
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn judge(name: &str, value: &str, path: &str) -> Option<Finding> {
    if name.eq_ignore_ascii_case("sunset") {
        sunset(value, path)
    } else if name.eq_ignore_ascii_case("deprecation") {
        let seconds = value.strip_prefix('@').unwrap_or_default();
        let digits = seconds.strip_prefix('-').unwrap_or(seconds);
        let fits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        (!fits).then(|| {
            Finding::mistake(
                path,
                format!("Deprecation: {value} is no date (RFC 9745)"),
                "write @ and the seconds since 1970, or let the edge document's \"lifecycle\" say it",
            )
        })
    } else {
        None
    }
}

fn sunset(value: &str, path: &str) -> Option<Finding> {
    let weekday = value.split_once(", ").and_then(|(weekday, rest)| {
        Some((weekday, PrimitiveDateTime::parse(rest, FIXDATE).ok()?.date()))
    });
    let Some((written, date)) = weekday else {
        return Some(Finding::mistake(
            path,
            format!("Sunset: {value} is no HTTP date (RFC 8594, RFC 9110 §5.6.7)"),
            "write such as \"Fri, 01 Jan 2027 00:00:00 GMT\", or let the edge document's \"lifecycle\" say it",
        ));
    };
    let right = short(date);
    let rest = value.split_once(", ").map_or(value, |(_, rest)| rest);
    (written != right).then(|| {
        Finding::mistake(
            path,
            format!("Sunset: {date} is a {}, not a {written}", date.weekday()),
            &format!(
                "write \"{right}, {rest}\", or let the edge document's \"lifecycle\" compute it"
            ),
        )
    })
}

fn short(date: Date) -> String {
    date.weekday().to_string().chars().take(3).collect()
}
