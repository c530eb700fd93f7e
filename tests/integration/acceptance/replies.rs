//! X8: what Envoy answers by itself has the form of every other refusal. What the filter answers stays as it is.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
};

use gatehouse_tests::{
    envoy::{cluster, manager},
    http::{Message, Request, exchange},
    wait,
};
use serde_json::{Value, json};

use super::gate::{AGENTS, Gate, Patch, Plan, get, token};

/// A problem with this status and code and everything that the contract asks for.
#[track_caller]
fn problem(answer: &Message, status: u16, code: &str, id: Option<&str>) {
    assert_eq!(answer.headers.all("content-type"), ["application/problem+json"], "{answer:?}");
    assert_eq!(answer.status().unwrap(), status, "{answer:?}");
    let body = answer.json().unwrap();
    assert_eq!((&body["status"], &body["code"]), (&json!(status), &json!(code)), "{body}");
    let fragment = code.replace('_', "-");
    assert_eq!(body["type"], format!("https://docs.greenlang.ai/problems#{fragment}"));
    assert!(body["title"].as_str().is_some_and(|title| title.len() > 5), "{body}");
    let id = |prefix: &str| id.map_or(Value::Null, |id| json!(format!("{prefix}{id}")));
    assert_eq!((&body["request_id"], &body["instance"]), (&id(""), &id("urn:request:")), "{body}");
    let members = body.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
    let known = ["code", "instance", "request_id", "status", "title", "type"];
    assert!(members.iter().all(|member| known.contains(member)), "{members:?}");
}

/// Routes that end soon, heads that must come soon, and the upstream there.
fn at(there: SocketAddr) -> Patch {
    Box::new(move |bootstrap| {
        let away = gatehouse_xtask::render::envoy::cluster("control-api", there);
        *cluster(bootstrap, "control-api")? = away.as_object()?.clone();
        let manager = manager(bootstrap)?;
        manager.insert("request_headers_timeout".to_owned(), json!("1s"));
        let routes = manager.get_mut("route_config")?.pointer_mut("/virtual_hosts/0/routes")?;
        for route in routes.as_array_mut()? {
            route["route"]["timeout"] = json!("0.5s");
        }
        Some(())
    })
}

/// Somebody who takes connections and says nothing.
fn silent() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).unwrap()
}

/// A request in bytes that are not as they should be.
fn raw(gate: &Gate, text: &str) -> Message {
    exchange(gate.envoy.listen, text.as_bytes()).unwrap()
}

#[test]
fn x8_what_envoy_answers_by_itself_is_a_problem_too() {
    let gate = Gate::with(Plan { bootstrap: at(wait::address().unwrap()), ..Plan::default() });
    let good = get().bearer(&token()).header("X-Request-ID", "r1");
    let away = gate.send(&good);
    problem(&away, 503, "dependency_unavailable", Some("r1"));
    // What the filter adds to every response stands there, too.
    for (name, value) in [("x-request-id", "r1"), ("api-version", "v1")] {
        assert_eq!(away.headers.all(name), [value], "{away:?}");
    }
    // An id that the filter made.
    let made = gate.send(&get().bearer(&token()).header("X-Request-ID", "r\"1"));
    let id = made.headers.one("x-request-id").unwrap();
    problem(&made, 503, "dependency_unavailable", Some(&id));

    // Heads that no filter sees. Of an id that may be anything nothing is said.
    let line = "GET /api/v1/registry/agents HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
    for (text, status, code, id) in [
        ("GARBAGE\r\n\r\n".to_owned(), 400, "header_invalid", None),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "header_invalid", None),
        (format!("{line}x y: 1\r\n\r\n"), 400, "header_invalid", None),
        (
            format!("{line}x-request-id: r\"2\r\ncontent-length: x\r\n\r\n"),
            400,
            "header_invalid",
            None,
        ),
        (line.to_owned(), 408, "request_timeout", None),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 426, "header_invalid", None),
    ] {
        problem(&raw(&gate, &text), status, code, id);
    }
    let huge = get().raw(b"X-Of-Nobody", &vec![b'a'; 65_536]);
    problem(&gate.send(&huge), 431, "headers_too_large", None);

    // The filter's own refusals have other codes than their statuses would have here, and keep their members.
    let anonymous = get().header("X-Request-ID", "r1");
    problem(&gate.send(&anonymous), 401, "credential_missing", Some("r1"));
    let forged = gate.denies(&get().bearer("x.y.z"), "401 token_invalid");
    assert_eq!(forged.headers.all("www-authenticate").len(), 1, "{forged:?}");
    let unknown = Request::new("GET", "/api/v9/registry/agents").bearer(&token());
    let unknown = gate.denies(&unknown, "404 version_unknown");
    assert!(unknown.json().unwrap()["supported"].is_array(), "{unknown:?}");
}

#[test]
fn x8_an_upstream_that_is_late_is_a_problem_too() {
    let listener = silent();
    let gate =
        Gate::with(Plan { bootstrap: at(listener.local_addr().unwrap()), ..Plan::default() });
    let late = gate.send(&get().bearer(&token()).header("X-Request-ID", "r1"));
    problem(&late, 504, "answer_timeout", Some("r1"));
}

/// Envoy refuses requests while this file says that it has too much to do.
fn overloaded(file: PathBuf) -> Patch {
    Box::new(move |bootstrap| {
        let name = "envoy.resource_monitors.injected_resource";
        let kind = "envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig";
        let action = json!({
            "name": "envoy.overload_actions.stop_accepting_requests",
            "triggers": [{"name": name, "threshold": {"value": 0.9}}],
        });
        let manager = json!({
            "refresh_interval": "0.01s",
            "resource_monitors": [{
                "name": name,
                "typed_config": {"@type": format!("type.googleapis.com/{kind}"), "filename": file},
            }],
            "actions": [action],
        });
        bootstrap.as_object_mut()?.insert("overload_manager".to_owned(), manager);
        Some(())
    })
}

#[test]
fn x8_an_envoy_that_has_too_much_to_do_says_so_in_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pressure");
    let press = |pressure: &str| {
        let new = dir.path().join("new");
        fs::write(&new, pressure).unwrap();
        fs::rename(new, &file).unwrap();
    };
    press("0.5");
    let gate = Gate::with(Plan { bootstrap: overloaded(file.clone()), ..Plan::default() });
    let good = get().bearer(&token()).header("X-Request-ID", "r1");
    gate.allows(&good);
    press("1.0");
    let refused = wait::until("Envoy refuses", wait::START, || {
        let answer = gate.send(&good);
        Ok((answer.status()? != 200).then_some(answer))
    });
    problem(&refused.unwrap(), 503, "dependency_unavailable", Some("r1"));
}

#[test]
fn x8_calls_of_grpc_have_envoys_status_and_no_problem() {
    let gate = Gate::with(Plan { bootstrap: at(wait::address().unwrap()), ..Plan::default() });
    let call = |token: Option<String>| {
        let request = Request::new("POST", AGENTS).body("application/grpc", [0; 5]);
        gate.send(&token.into_iter().fold(request, |request, token| request.bearer(&token)))
    };
    let away = call(Some(token()));
    assert_eq!((away.status().unwrap(), away.header("grpc-status")), (200, "14".to_owned()));
    assert!(!away.header("grpc-message").contains("problem"), "{away:?}");
    assert_eq!(away.headers.all("content-type"), ["application/grpc"], "{away:?}");
    let refused = call(None);
    assert_eq!(refused.header("grpc-status"), "16", "{refused:?}");
    assert_eq!(refused.header("grpc-message"), "Authentication is required");
}
