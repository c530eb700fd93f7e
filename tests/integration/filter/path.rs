//! The path of a request: what is asked, in which order, what goes on, what is refused and how.

use std::time::Duration;

use gatehouse_contract::Role;
use serde_json::{Value, json};

use super::gate::{
    Fate, Gate, SUBJECT, TENANT, USER, allowed, denied, facts, forwarded, refusal, replied,
    request, token,
};

const AGENTS: &str = "/api/v1/registry/agents";

#[test]
fn j1_without_a_credential_the_answer_is_401_with_a_bare_challenge() {
    let mut gate = Gate::open();
    let reply = replied(gate.send(&request("GET", AGENTS, None)));
    assert_eq!(reply.status, 401);
    let id = reply.headers.one("x-request-id").unwrap();
    let mut headers: Vec<String> = reply
        .headers
        .iter()
        .map(|(n, v)| format!("{}: {}", String::from_utf8_lossy(n), String::from_utf8_lossy(v)))
        .collect();
    headers.sort();
    let length = format!("content-length: {}", reply.body.len());
    let request_id = format!("x-request-id: {id}");
    assert_eq!(
        headers,
        [
            ":status: 401",
            "api-version: v1",
            "cache-control: no-store",
            &length,
            "content-type: application/problem+json",
            r#"www-authenticate: Bearer realm="gatehouse""#,
            &request_id,
        ]
    );
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(
        body,
        json!({
            "type": "https://docs.greenlang.ai/problems#credential-missing",
            "title": "Authentication is required",
            "status": 401,
            "code": "credential_missing",
            "instance": format!("urn:request:{id}"),
            "request_id": id,
        })
    );
    assert_eq!(gate.take_asked(), [""; 0]);
}

#[test]
fn a_good_token_asks_for_keys_principal_and_limit_in_this_order() {
    let mut gate = Gate::open();
    let bearer = format!("Bearer {}", token());
    let headers = request("POST", AGENTS, Some(&bearer));
    let upstream = forwarded(gate.send(&headers));
    let mut bodies: Vec<Value> = gate
        .asked
        .iter()
        .map(|call| serde_json::from_slice(&call.body).unwrap_or_default())
        .collect();
    // So that the record can tell a revoked token from a good one.
    assert_eq!(bodies[1]["token"].take().as_str().map(str::len), Some(22), "{bodies:#?}");
    assert!(bodies[1]["issued_at_s"].take().is_u64(), "{bodies:#?}");
    // Names this VM, so that it alone hands back what it took along.
    assert_eq!(bodies[2]["holder"].take().as_str().map(str::len), Some(36), "{bodies:#?}");
    assert_eq!(
        bodies,
        [
            Value::Null,
            json!({
                "kind": "subject", "issuer": super::gate::ISSUER, "tenant": TENANT,
                "subject": SUBJECT, "token": null, "issued_at_s": null, "vouched": false,
            }),
            json!({
                "holder": null, "want": 0,
                "check": {
                    "tenant": TENANT, "tier": "free", "method": "POST", "route": AGENTS, "cost": 1,
                },
            }),
        ]
    );
    // The document gives the limiter 50 ms; what may have to ask others has the default of a second.
    let deadlines: Vec<u32> = gate.asked.iter().map(|call| call.timeout_ms).collect();
    assert_eq!(deadlines, [1000, 1000, 50]);
    assert_eq!(
        gate.take_asked(),
        [
            "GET /v1/jwks?issuer=https%3A%2F%2Fauth.greenlang.local",
            "POST /v1/principal",
            "POST /v1/lease"
        ]
    );
    for (name, value) in [
        ("x-tenant-id", TENANT),
        ("x-tenant-tier", "free"),
        ("x-user-id", USER),
        ("x-user-roles", "developer"),
        ("x-auth-method", "jwt"),
        ("authorization", &bearer),
        (":path", AGENTS),
    ] {
        assert_eq!(upstream.all(name), [value], "{name}");
    }
    assert_eq!(upstream.all("baggage"), [format!("tenant.id={TENANT}")]);
    assert_eq!(upstream.all("x-request-id").len(), 1);

    // What is known is not asked again; the limit is, each time. Then the principal's minute is over.
    forwarded(gate.send(&headers));
    assert_eq!(gate.take_asked(), ["POST /v1/lease"]);
    gate.pass(Duration::from_secs(60));
    forwarded(gate.send(&headers));
    assert_eq!(gate.take_asked(), ["POST /v1/principal", "POST /v1/lease"]);
}

#[test]
fn roles_decide_and_deny_is_the_default() {
    let bearer = format!("Bearer {}", token());
    let check = |role: Option<Role>, method: &str, path: &str, expected: &str| {
        let mut gate = Gate::open();
        gate.sidecar.principal = Fate::Says(facts(role.as_slice()));
        let standing = gate.send(&request(method, path, Some(&bearer)));
        let asked = gate.take_asked();
        if expected == "forwarded" {
            forwarded(standing);
        } else {
            assert_eq!(refusal(standing), expected, "{role:?} {method} {path}");
            assert!(!asked.contains(&"POST /v1/lease".to_owned()), "a refusal is not charged");
        }
    };
    check(Some(Role::Viewer), "GET", AGENTS, "forwarded");
    check(Some(Role::Viewer), "POST", AGENTS, "403 permission_denied");
    check(Some(Role::Operator), "POST", AGENTS, "403 permission_denied");
    check(Some(Role::Developer), "POST", AGENTS, "forwarded");
    check(Some(Role::Viewer), "POST", "/api/v1/runtime/executions", "403 permission_denied");
    check(Some(Role::Operator), "POST", "/api/v1/runtime/executions", "forwarded");
    check(None, "GET", AGENTS, "403 permission_denied");
    check(Some(Role::Admin), "POST", "/api/v1/factory/tenants", "403 permission_denied");
    check(Some(Role::Admin), "GET", "/api/v1/nothing", "404 not_found");
    check(Some(Role::Admin), "PATCH", AGENTS, "405 method_not_allowed");
}

#[test]
fn the_record_wins_over_the_token() {
    let bearer = format!("Bearer {}", token());
    let check = |principal: Fate, expected: &str| {
        let mut gate = Gate::open();
        gate.sidecar.principal = principal;
        assert_eq!(refusal(gate.send(&request("GET", AGENTS, Some(&bearer)))), expected);
    };
    let mut suspended = facts(&[Role::Admin]);
    suspended["status"] = json!("suspended");
    check(Fate::Says(suspended), "403 tenant_inactive");
    check(Fate::Status(404, json!({})), "403 tenant_invalid");
}

#[test]
fn v4_an_unknown_version_is_a_404_that_lists_the_served_ones() {
    let mut gate = Gate::open();
    for path in ["/api/v9/registry/agents", "/api/v10", "/api/v01/x", "/api/v1.1/x"] {
        let reply = replied(gate.send(&request("GET", path, None)));
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!((reply.status, &body["code"]), (404, &json!("version_unknown")), "{path}");
        assert_eq!(body["supported"], json!(["v1"]), "{path}");
    }
    assert_eq!(refusal(gate.send(&request("GET", AGENTS, None))), "401 credential_missing");
}

#[test]
fn r10_a_used_up_limit_is_429_and_says_when_to_return() {
    let mut gate = Gate::open();
    gate.sidecar.check = Fate::Says(denied(37));
    let bearer = format!("Bearer {}", token());
    let reply = replied(gate.send(&request("GET", AGENTS, Some(&bearer))));
    assert_eq!(reply.status, 429);
    for (name, value) in [
        ("x-ratelimit-limit", "60"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", "37"),
        ("retry-after", "37"),
        ("x-envoy-ratelimited", "true"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(reply.headers.all(name), [value], "{name}");
    }
    gate.sidecar.check = Fate::Says(allowed(0));
    forwarded(gate.send(&request("GET", AGENTS, Some(&bearer))));
}

#[test]
fn r9_every_response_carries_version_limit_and_request_id_once() {
    let mut gate = Gate::open();
    let bearer = format!("Bearer {}", token());
    let headers = request("GET", AGENTS, Some(&bearer));
    for status in ["200", "304", "401", "404", "429", "502"] {
        let headers = gatehouse_tests::vm::Headers::new(headers.iter().copied());
        let stream = gate.vm.request(headers, true).unwrap();
        let upstream = forwarded(gate.finish(stream));
        // What the upstream says of itself under these names must not stand beside ours.
        let answer = [
            (":status", status),
            ("x-ratelimit-limit", "1"),
            ("api-version", "v7"),
            ("x-tenant-id", "leak"),
            ("cache-control", "max-age=9"),
        ];
        let answer = gatehouse_tests::vm::Headers::new(answer);
        let answer = gate.vm.respond(stream, answer).unwrap();
        assert_eq!(answer.all(":status"), [status]);
        assert_eq!(answer.all("x-ratelimit-limit"), ["60"]);
        assert_eq!(answer.all("x-ratelimit-remaining"), ["59"]);
        assert_eq!(answer.all("x-ratelimit-reset"), ["0"]);
        assert_eq!(answer.all("api-version"), ["v1"]);
        assert_eq!(answer.all("x-request-id"), upstream.all("x-request-id"));
        assert_eq!(answer.all("x-tenant-id"), [""; 0]);
        let kept: &[&str] =
            if matches!(status, "401" | "429") { &["no-store"] } else { &["max-age=9"] };
        assert_eq!(answer.all("cache-control"), kept, "{status}");
        gate.vm.finish(stream).unwrap();
    }
}
