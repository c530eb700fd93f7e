//! R7–R24 as far as the filter holds them: what is charged for what, what clients are told, and who is not charged.
//! Counts are the real sidecar's, in its memory; what the stores do is held beside them.

mod charges;
mod clients;
mod costs;
mod headers;
mod keys;
mod modes;
mod outages;
mod peers;
mod refusals;
mod streams;

use std::{collections::BTreeMap, time::Duration};

use gatehouse_contract::{
    Tier,
    sidecar::{CHECK_PATH, CheckAnswer, CheckAsk},
};
use gatehouse_tests::{
    http::{Message, Request},
    wait,
};
use serde_json::{Value, json};

use super::gate::{AGENTS, Gate, Patch, Plan, SUBJECT, TENANT, document, token};

/// The three headers of the tightest limit, each there once and a number that is not negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    limit: u32,
    remaining: u32,
    reset: u32,
}

const LIMITED: &str = "429 quota_exceeded";

/// Every tenant of the gate may do so many requests within the sidecar's window.
fn of_tenant(per_window: u32) -> Plan {
    limits(&json!({"tiers": {"enterprise": per_window}}))
}

/// A gate with these limits, each request decided by the sidecar's store: with passes taken ahead, what is left would
/// be a lower bound.
fn limits(limits: &Value) -> Plan {
    let mut limits = limits.clone();
    limits["mode"] = json!("strict");
    Plan { document: limiter(&json!({})), sidecar: json!({ "limits": limits }), ..Plan::default() }
}

/// The document with members of its limiter set; leases are off.
fn limiter(changes: &Value) -> Value {
    let mut document = document();
    let mut limiter = json!({"leases": false, "away": "closed"});
    for (name, value) in changes.as_object().unwrap() {
        limiter[name] = value.clone();
    }
    document["limiter"] = limiter;
    document
}

/// The one value of a header as a number; `None` if it is not there.
#[track_caller]
fn number(answer: &Message, name: &str) -> Option<u32> {
    match answer.headers.all(name)[..] {
        [] => None,
        [ref one] => {
            assert!(one.bytes().all(|byte| byte.is_ascii_digit()), "{name}: {one}");
            Some(one.parse().unwrap())
        }
        ref more => panic!("{name}: {more:?}"),
    }
}

/// What the answer tells of the limit; `None` if nothing.
#[track_caller]
fn told(answer: &Message) -> Option<Told> {
    let [limit, remaining, reset] = ["limit", "remaining", "reset"]
        .map(|which| number(answer, &format!("x-ratelimit-{which}")));
    match (limit, remaining, reset) {
        (Some(limit), Some(remaining), Some(reset)) => Some(Told { limit, remaining, reset }),
        (None, None, None) => None,
        some => panic!("{some:?}: {answer:?}"),
    }
}

/// What is left after this request, which must pass.
#[track_caller]
fn left_after(gate: &Gate, request: &Request) -> u32 {
    let answer = gate.send(request);
    assert_eq!(answer.status().unwrap(), 200, "{}: {answer:?}", request.line());
    told(&answer).unwrap().remaining
}

/// What the sidecar's store says is left of the tenant's window; costs nothing.
#[track_caller]
fn peek(gate: &Gate) -> u32 {
    let ask = CheckAsk {
        tenant: TENANT.parse().unwrap(),
        tier: Tier::Enterprise,
        limits: None,
        subject: None,
        method: "GET".to_owned(),
        route: AGENTS.to_owned(),
        cost: 0,
        forced: false,
    };
    let ask = Request::new("POST", CHECK_PATH).json(&serde_json::to_value(ask).unwrap());
    let answer = ask.send(gate.sidecar.as_ref().unwrap().listen).unwrap();
    let answer: CheckAnswer = serde_json::from_value(answer.json().unwrap()).unwrap();
    assert!(!answer.degraded, "{answer:?}");
    answer.limits.iter().find(|limit| limit.name == "tenant").unwrap().remaining
}

/// Waits until so much of the 100 that the tenant has is charged; more than that never is.
#[track_caller]
fn charged(gate: &Gate, cost: u32) {
    wait::until(&format!("{cost} are charged"), Duration::from_secs(20), || {
        let left = peek(gate);
        assert!(left >= 100 - cost, "{} are charged, {cost} were due", 100 - left);
        Ok((left == 100 - cost).then_some(()))
    })
    .unwrap();
}

/// A good request to this path.
fn asking(method: &str, path: &str) -> Request {
    Request::new(method, path).bearer(&token())
}

/// Reads a list of strings with parameters that are integers (RFC 9651 §3.1), and nothing else.
#[track_caller]
fn structured(text: &str) -> Vec<(String, BTreeMap<String, i64>)> {
    let mut items = Vec::new();
    for member in text.split(',') {
        // No string of ours holds a comma; a reader would see that here as a broken one.
        let member = member.trim_matches([' ', '\t']);
        let (name, parameters) = member.strip_prefix('"').unwrap().split_once('"').unwrap();
        assert!(name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'\\'), "{text}");
        let mut found = BTreeMap::new();
        for parameter in parameters.split(';').skip(1) {
            let (key, value) = parameter.trim_start_matches(' ').split_once('=').unwrap();
            let first = key.bytes().next().unwrap();
            assert!(first.is_ascii_lowercase() || first == b'*', "{text}");
            assert!(value.len() <= 15, "{text}");
            assert_eq!(found.insert(key.to_owned(), value.parse().unwrap()), None, "{text}");
        }
        assert!(parameters.is_empty() || parameters.starts_with(';'), "{text}");
        items.push((name.to_owned(), found));
    }
    items
}

/// A header to the upstream with what stands under this name in the stream, read by Envoy after the module.
fn telling(name: &'static str) -> Patch {
    Box::new(move |bootstrap| {
        let chain = gatehouse_tests::envoy::manager(bootstrap)?.get_mut("http_filters")?;
        let append = json!({
            "header": {"key": "x-test-read", "value": format!("%FILTER_STATE(wasm.{name}:PLAIN)%")},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        });
        let reader = json!({
            "name": "reader",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
                "mutations": {"request_mutations": [{"append": append}]},
            },
        });
        chain.as_array_mut()?.insert(1, reader);
        Some(())
    })
}
