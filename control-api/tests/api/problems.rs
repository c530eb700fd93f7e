//! Every refusal is a problem with the request's id, whoever made it.

use serde_json::json;

use crate::{http::send, world::World};

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
