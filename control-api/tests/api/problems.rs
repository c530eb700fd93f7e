//! Every refusal is a problem with the request's id, whoever made it.

use serde_json::{Map, Value, json};

use crate::{
    conventions::{Furnished, example, operations},
    http::send,
    oidc::issuers,
    world::World,
};

#[test]
fn whatever_goes_wrong_is_a_problem() {
    let mut world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = format!("Bearer {}", world.member(&tenant, "admin"));
    let url = |path: &str| format!("{}{path}", world.service.url);
    let agents = url("/api/v1/registry/agents");
    let json = ("content-type", "application/json");
    let auth = ("authorization", token.as_str());
    let large = format!(r#"{{"name":"{}"}}"#, "a".repeat(64 * 1024));
    let huge = format!(r#"{{"input":"{}"}}"#, "a".repeat(300 * 1024));
    let runs = url("/api/v1/runtime/executions");
    for (method, url, headers, body, status, code) in [
        ("GET", url("/nothing"), vec![], None, 404, "not_found"),
        ("GET", url("/api/v1/registry/agents/"), vec![auth], None, 404, "not_found"),
        ("PATCH", agents.clone(), vec![auth], None, 405, "method_not_allowed"),
        ("GET", url("/oauth2/token"), vec![], None, 405, "method_not_allowed"),
        ("POST", agents.clone(), vec![auth], Some("{}"), 415, "media_type_unsupported"),
        (
            "POST",
            agents.clone(),
            vec![auth, ("content-type", "text/json")],
            Some("{}"),
            415,
            "media_type_unsupported",
        ),
        ("POST", url("/oauth2/token"), vec![json], Some("{}"), 415, "media_type_unsupported"),
        ("POST", agents.clone(), vec![auth, json], Some(&large), 413, "body_too_large"),
        ("POST", runs, vec![auth, json], Some(&huge), 413, "body_too_large"),
        ("POST", agents.clone(), vec![auth, json], Some("{\"name\":"), 400, "body_malformed"),
        ("POST", agents.clone(), vec![auth, json], Some("\u{feff}{}"), 400, "body_malformed"),
    ] {
        let headers = [headers, vec![("x-request-id", "ask-1")]].concat();
        let answer = send(method, &url, &headers, body);
        assert_eq!(answer.status, status, "{method} {url}: {}", answer.text);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{url}");
        assert_eq!(answer.header("x-request-id"), Some("ask-1"));
        let body = answer.json();
        assert_eq!(body["code"], code);
        assert_eq!(body["request_id"], "ask-1");
        assert_eq!(body["status"], status);
    }
    let audited =
        world.database.query("SELECT count(*) FROM tenant_audit WHERE request_id = 'ask-1'");
    assert_eq!(audited, "0");
    let made =
        send("POST", &agents, &[auth, json, ("x-request-id", "ask-2")], Some(r#"{"name":"a"}"#));
    assert_eq!(made.status, 201);
    let audited =
        world.database.query("SELECT count(*) FROM tenant_audit WHERE request_id = 'ask-2'");
    assert_eq!(audited, "1");
    let log = world.service.log().join("\n");
    assert!(log.contains(r#""request.id":"ask-2""#), "{log}");
    let metrics = send("GET", &format!("{}/metrics", world.service.admin), &[], None).text;
    let counted = r#"gatehouse_http_requests_total{route="/api/v1/registry/agents",method="PATCH",status="405",reason="method_not_allowed"} 1"#;
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    assert!(!metrics.contains(&tenant.id));
}

#[test]
fn a_database_that_goes_away_is_503_and_not_ready_and_comes_back() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "viewer");
    let name = world.database.query("SELECT current_database()");
    let role = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
    let superuser = crate::database::superuser_url();
    let other = |statement: &str| {
        let out = std::process::Command::new("psql")
            .args(["-X", "-d", &superuser, "-c", statement])
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
    };
    other(&role);
    other(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    ));
    let ready = || send("GET", &format!("{}/readyz", world.service.admin), &[], None);
    let down = ready();
    assert_eq!((down.status, &down.json()["checks"]), (503, &json!({"postgres": "down"})));
    let asked = world.get(&token, "/api/v1/registry/agents");
    assert_eq!(asked.status, 503, "{}", asked.text);
    assert_eq!(send("GET", &format!("{}/livez", world.service.admin), &[], None).status, 200);
    other(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"));
    assert_eq!(ready().status, 200);
    assert_eq!(world.get(&token, "/api/v1/registry/agents").status, 200);
}

#[test]
fn x7_every_operation_says_what_is_wrong_with_a_body_in_the_same_members() {
    let furnished = Furnished::of(issuers::anyone());
    let many: Map<String, Value> = (0..20).map(|n| (format!("a.{n}/~"), json!(n))).collect();
    let mut judged = 0;
    for (method, template, operation) in operations() {
        if example(operation).is_none() {
            continue;
        }
        let path = furnished.path(template);
        assert!(!path.contains('{'), "{path}");
        for body in [json!([]), Value::Object(many.clone())] {
            let caller = furnished.caller(operation);
            let answer =
                furnished.call(caller, (&method, &path), &[("if-match", "*")], Some(&body));
            let what = format!("{method} {path}: {}", answer.text);
            assert_eq!(answer.status, 422, "{what}");
            let problem = answer.json();
            let members: Vec<&String> = problem.as_object().unwrap().keys().collect();
            let expected =
                ["code", "detail", "errors", "instance", "request_id", "status", "title", "type"];
            assert_eq!(members, expected, "{what}");
            let errors = problem["errors"].as_array().unwrap();
            assert!((1..=10).contains(&errors.len()), "{what}");
            for error in errors {
                let error = error.as_object().unwrap();
                assert_eq!(error.keys().collect::<Vec<_>>(), ["detail", "pointer"], "{what}");
                let pointer = error["pointer"].as_str().unwrap();
                let parent = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
                assert!(body.pointer(parent).is_some(), "{pointer} points nowhere: {what}");
                assert!(!error["detail"].as_str().unwrap().is_empty());
            }
            judged += 1;
        }
    }
    assert!(judged >= 24, "{judged}");
}
