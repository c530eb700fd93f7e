//! X10: what follows a request through the parts, and what the access log of a real Envoy says of it. No credential is
//! ever there, wherever a client puts one.

use gatehouse_tests::{http::Request, wait};
use serde_json::{Value, json};

use super::gate::{AGENTS, Gate, PUBLIC, Plan, SUBJECT, TENANT, document, get, token};

/// What is before the fields of a request that asked for no version.
fn caller(method: &str) -> String {
    format!("tenant={TENANT} tier=enterprise auth={method} caller=")
}

fn logged() -> Value {
    let mut document = document();
    document["access_log"] = true.into();
    document["sources"] =
        json!({"query": "access_token", "cookie": "session_token", "forward": true});
    document
}

/// The line of the request with this id, once Envoy has written it.
fn line(gate: &Gate, id: &str) -> Value {
    wait::until("a line of the access log", wait::START, || {
        let log = gate.envoy.process.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(lines.find(|line| line["request.id"] == id))
    })
    .unwrap()
}

#[test]
fn x10_the_access_log_says_who_which_version_and_how_the_limit_stands() {
    let gate = Gate::with(Plan { document: logged(), ..Plan::default() });
    let good = token();
    let with_id = |request: Request, id: &str| request.header("x-request-id", id);
    gate.allows(&with_id(get().bearer(&good), "log-1"));
    let passed = line(&gate, "log-1");
    let said = passed["gatehouse"].as_str().unwrap();
    assert!(said.starts_with(&caller("jwt")), "{passed}");
    assert!(said.contains(" version=v1 version_by=path limit=allowed remaining="), "{passed}");
    assert!(!said.contains(SUBJECT) && !said.contains("reason="), "{passed}");
    assert_eq!((&passed["status"], &passed["path"]), (&json!(200), &json!(AGENTS)));

    gate.send(&with_id(Request::new("GET", "/api/v1/nothing").bearer(&good), "log-2"));
    let refused = line(&gate, "log-2");
    let said = refused["gatehouse"].as_str().unwrap();
    assert!(said.starts_with(&caller("jwt")) && said.ends_with(" reason=not_found"), "{refused}");
    assert_eq!(refused["reason"], "not_found");

    gate.send(&with_id(get(), "log-3"));
    let stranger = line(&gate, "log-3");
    assert_eq!(stranger["gatehouse"], "version=v1 version_by=path reason=credential_missing");
    gate.send(&with_id(Request::new("GET", PUBLIC), "log-4"));
    assert!(!line(&gate, "log-4").to_string().contains("tenant="));
}

#[test]
fn x10_no_credential_is_in_any_log_wherever_it_came() {
    let gate = Gate::with(Plan { document: logged(), ..Plan::default() });
    let good = token();
    let key = format!("gk_live_{}", "A".repeat(60));
    let requests = [
        get().bearer(&good),
        get().header("x-api-key", &key),
        get().header("cookie", &format!("session_token={good}; a=1")),
        Request::new("GET", &format!("{AGENTS}?a=1&access_token={good}")),
        Request::new("GET", &format!("{PUBLIC}?access_token={good}")),
        get().bearer(&format!("{good}x")),
        get().header("x-request-id", &good).bearer(&good),
        get().header("traceparent", &good),
        get().header("user-agent", &good),
    ];
    for (at, request) in requests.into_iter().enumerate() {
        gate.send(&request.header("x-request-id", &format!("bare-{at}")));
    }
    // Refused as it came: what its log line is made of was never replaced.
    gate.send(&get().header("x-request-id", &good));
    gate.send(&get().header("x-request-id", "last"));
    line(&gate, "last");
    let log = gate.envoy.process.log();
    let signature = good.rsplit('.').next().unwrap();
    for secret in [good.as_str(), signature, &key, "access_token=", "session_token="] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

#[test]
fn x10_without_being_asked_nothing_is_told_and_traces_go_on_as_one() {
    let gate = Gate::open();
    let good = token();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let sent = |parents: &[&str]| {
        let request = get().bearer(&good).header("x-request-id", "trace-1");
        let request = parents.iter().fold(request, |r, value| r.header("traceparent", value));
        let request = request.header("tracestate", "a=b").header("baggage", "k=v, tenant.id=x");
        let saw = gate.allows(&request);
        assert_eq!(saw.headers.all("baggage"), [format!("k=v,tenant.id={TENANT}")]);
        (saw.header("traceparent"), saw.header("tracestate"))
    };
    assert_eq!(sent(&[parent]), (parent.to_owned(), "a=b".to_owned()));
    let gone = (String::new(), String::new());
    assert_eq!(sent(&[parent, parent]), gone, "two are none");
    for malformed in ["", "00-0-0-01", &parent.to_uppercase(), &parent.replace("00-4", "ff-4")] {
        assert_eq!(sent(&[malformed]), gone, "{malformed:?}");
    }
    let quiet = line(&gate, "trace-1");
    assert_eq!(quiet.get("gatehouse"), None, "{quiet}");
}
