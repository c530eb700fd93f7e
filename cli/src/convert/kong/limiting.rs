//! Kong's plugin `rate-limiting` (3.9). Its numbers are one limit for whoever `limit_by` names; ours are one per tenant
//! and tier, which the sidecar's document holds. Knows no other plugin.

use serde_json::{Value, json};

use super::super::Draft;
use crate::finding::Finding;

const KNOWN: &[&str] = &[
    "minute",
    "second",
    "hour",
    "day",
    "month",
    "year",
    "limit_by",
    "policy",
    "fault_tolerant",
    "redis",
];
const SPANS: &[&str] = &["second", "minute", "hour", "day", "month", "year"];

/// What Kong refuses, and what is unsafe whoever runs it.
pub(crate) fn mistakes(config: &Value, path: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    if SPANS.iter().all(|span| config.get(span).is_none_or(Value::is_null)) {
        found.push(Finding::mistake(
            path,
            "no limit is written, and Kong refuses the plugin",
            "write \"minute\"",
        ));
    }
    if config.get("fault_tolerant") != Some(&Value::Bool(false)) && policy(config) != "local" {
        found.push(Finding::warning(
            format!("{path}.fault_tolerant"),
            "while the store is away nothing is limited; Kong takes true unless told otherwise",
            "write false",
        ));
    }
    found
}

fn policy(config: &Value) -> &str {
    config.get("policy").and_then(Value::as_str).unwrap_or("local")
}

pub(super) fn read(config: &Value, path: &str, draft: &mut Draft) {
    let before = draft.limiter.is_some();
    draft.findings.extend(mistakes(config, path));
    if before {
        draft.note(
            path,
            "limits stand in more than one place: the last of them counts",
            "keep one",
        );
    }
    let at = |name: &str| format!("{path}.{name}");
    let minute = config.get("minute").and_then(Value::as_u64);
    for span in SPANS.iter().filter(|span| **span != "minute") {
        if config.get(span).is_some_and(|value| !value.is_null()) {
            let (cause, mend) = match *span {
                "day" => (
                    "the control API keeps it, per tenant",
                    "set per_day by PUT /api/v1/factory/tenants/{tenant}/limits",
                ),
                _ => ("limits are per minute, and a burst within them", "write a limit per minute"),
            };
            draft.note(at(span), cause, mend);
        }
    }
    let by = config.get("limit_by").and_then(Value::as_str).unwrap_or("consumer");
    let subjects = by == "credential";
    match by {
        "consumer" => draft.note(
            at("limit_by"),
            "what is counted is the tenant",
            "nothing to do if that is meant",
        ),
        "credential" if policy(config) == "local" => draft.note(
            at("limit_by"),
            "without a sidecar what is counted is the tenant",
            "give it a sidecar, and write \"subjects\": true",
        ),
        "credential" => {}
        other => {
            let cause = format!("limits are counted per tenant, route and caller, not per {other}");
            draft.note(
                at("limit_by"),
                cause,
                "write endpoints into the sidecar's document where that is meant",
            );
        }
    }
    if policy(config) == "local" {
        draft.limiter = minute.map(|minute| json!({"local": {"per_minute": minute}}));
        draft.note(
            at("policy"),
            "each worker counts by itself, per tenant; Kong's local counts per node",
            "write \"closed\" as the limiter and give it a sidecar to have one count",
        );
    } else {
        let tolerant = config.get("fault_tolerant") != Some(&Value::Bool(false));
        let mut limiter = json!({"away": if tolerant { "open" } else { "closed" }});
        if let (true, Some(members)) = (subjects, limiter.as_object_mut()) {
            members.insert("subjects".to_owned(), json!(true));
        }
        draft.limiter = Some(limiter);
        draft.sidecar.insert("target".to_owned(), json!("127.0.0.1:7070"));
        draft.note(
            at("policy"),
            "the store is the sidecar's, and so are the numbers",
            "give the sidecar its document",
        );
        if let Some(minute) = minute {
            let tier = json!({"per_window": minute});
            let tiers = json!({"free": tier, "pro": tier, "enterprise": tier});
            draft.limits.insert("tiers".to_owned(), tiers);
        }
    }
    let plain = [
        ("error_code", json!(429)),
        ("error_message", json!("API rate limit exceeded")),
        ("hide_client_headers", json!(false)),
        ("sync_rate", json!(-1)),
    ];
    draft.rest(config, path, KNOWN, &plain);
    if config.get("redis").is_some_and(|redis| !redis.is_null()) {
        draft.note(
            at("redis"),
            "the sidecar alone knows Redis",
            "write its address into the sidecar's document",
        );
    }
}
