//! The log lines of the real service after requests of every kind: whose each one is, and what none of them says.

use serde_json::{Value, json};

use crate::{
    http::send,
    world::{World, until},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const AGENTS: &str = "/api/v1/registry/agents";

/// Parts whose lines are about no request: they start, stop, listen, and run beside.
const BESIDE: &[&str] = &[
    "gatehouse_control_api::serve",
    "gatehouse_control_api::sealer",
    "gatehouse_control_api::months",
    "gatehouse_control_api::relay",
    "gatehouse_control_api::erasure",
    "gatehouse_control_api::publisher",
    "gatehouse_control_api::cache::follower",
    "gatehouse_service::listen",
    "gatehouse_service::shutdown",
    "gatehouse_redis_kit::link",
];

#[test]
fn tcp3_every_line_of_a_request_says_whose_it_is_and_none_says_a_secret() {
    let mut world = World::new();
    let tenant = world.tenant("tenant-a");
    let client = world.client(&tenant, "admin");
    let token = world.token_of(&client);
    let secret = client["client_secret"].as_str().unwrap().to_owned();
    let keys = format!("/api/v1/factory/tenants/{}/api-keys", tenant.id);
    let key = world.post(&token, &keys, json!({"name": "k", "roles": ["viewer"]})).json();
    let key = key["key"].as_str().unwrap().to_owned();
    world.user(&tenant, "viewer");
    world.service.log();

    // Of every kind: done, refused, not found, not known, malformed; each with what would like to be a line or a field.
    let url = world.service.url.clone();
    let bearer = format!("Bearer {token}");
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let hostile = "x\",\"tenant.id\":\"0191d6b0-7c3e-7aaa-8bbb-0123456789ab";
    let known = [
        ("authorization", bearer.as_str()),
        ("traceparent", parent.as_str()),
        ("content-type", "application/json"),
        ("user-agent", hostile),
        ("x-gatehouse-reason", hostile),
    ];
    let named = json!({"name": "a\n{\"level\":\"ERROR\"}"}).to_string();
    let mut ids = Vec::new();
    let mut ask = |method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>| {
        let answer = send(method, &format!("{url}{path}"), headers, body);
        ids.push(answer.header("x-request-id").unwrap().to_owned());
        answer.status
    };
    assert_eq!(ask("GET", AGENTS, &known, None), 200);
    assert_eq!(ask("POST", AGENTS, &known, Some(r#"{"name": "agent-a"}"#)), 201);
    assert_eq!(ask("POST", AGENTS, &known, Some(&named)), 422);
    assert_eq!(ask("POST", AGENTS, &known, Some("{")), 400);
    let nobody = format!("{AGENTS}/0191d6b0-7c3e-7aaa-8bbb-0123456789ab");
    assert_eq!(ask("GET", &nobody, &known, None), 404);
    assert_eq!(ask("GET", "/nowhere%0a%7b%22level%22", &known, None), 404);
    assert_eq!(ask("GET", AGENTS, &[("x-api-key", key.as_str())], None), 200);
    assert_eq!(ask("GET", AGENTS, &[("x-request-id", hostile), known[0]], None), 200);
    assert_eq!(ask("GET", AGENTS, &[("x-request-id", "mine-1"), known[0]], None), 200);
    let forged = format!("{bearer}x");
    assert_eq!(ask("GET", AGENTS, &[("authorization", forged.as_str())], None), 401);
    assert_eq!(ask("GET", AGENTS, &[], None), 401);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let id = client["client_id"].as_str().unwrap();
    let body = format!("client_id={id}&client_secret={secret}&token={token}");
    assert_eq!(ask("POST", "/oauth2/revoke", &form, Some(&body)), 200);
    assert!(ids.contains(&"mine-1".to_owned()));
    let count = ids.len();

    let mut lines: Vec<String> = Vec::new();
    until(|| {
        lines.extend(world.service.log());
        let answered = lines.iter().filter(|line| line.contains("request answered"));
        (answered.filter(|line| ids.iter().any(|id| line.contains(id))).count() >= count)
            .then_some(())
    });
    let signature = token.rsplit_once('.').unwrap().1;
    let mut of_requests = 0;
    for line in &lines {
        // One object each: nobody begins a line or a field of their own.
        let fields: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        for planted in [signature, &secret, &key, "@example.com", "agent-a", "0191d6b0-7c3e-7aaa"] {
            assert!(!line.contains(planted), "{planted}: {line}");
        }
        let span = &fields["span"];
        if span["name"] != "request" {
            let target = fields["target"].as_str().unwrap();
            assert!(BESIDE.iter().any(|beside| target.starts_with(beside)), "{line}");
            continue;
        }
        let request = span["request.id"].as_str().unwrap_or_else(|| panic!("{line}"));
        let trace = span["trace.id"].as_str().unwrap_or_else(|| panic!("{line}"));
        let sound =
            |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b));
        assert!(sound(request) && sound(trace) && trace.len() == 32, "{line}");
        if !ids.iter().any(|id| id == request) {
            continue;
        }
        of_requests += 1;
        let at = ids.iter().position(|id| id == request).unwrap();
        if at < 6 {
            assert_eq!(trace, TRACE, "{line}");
        }
        // Whose it is is known as soon as the credential is; who has none, or reads nothing of a tenant, has no tenant.
        let answered = fields["message"] == "request answered";
        let anonymous = [5, 9, 10].contains(&at);
        if answered && !anonymous {
            assert_eq!(span["tenant.id"], json!(tenant.id), "{line}");
        }
        if anonymous {
            assert_eq!(span["tenant.id"], Value::Null, "{line}");
        }
    }
    assert!(of_requests >= count, "{of_requests}");
}
