//! `Accept` is judged before anything is done, and refusals are problems whatever it says.

use serde_json::json;

use super::{Furnished, example, operations};
use crate::{access::refused, http::send, oidc::issuers, world::World};

#[test]
fn what_can_be_answered_in_no_acceptable_way_is_not_done() {
    // Whoever asks a stranger for its documents must reach one.
    let furnished = Furnished::of(issuers::anyone());
    let world = &furnished.world;
    let audited = || world.database.query("SELECT count(*) FROM tenant_audit");
    let before = audited();
    let (mut judged, mut silent) = (0, 0);
    for (method, template, operation) in operations() {
        let responses = operation["responses"].as_object().unwrap();
        let (_, success) = responses.iter().find(|(status, _)| status.as_str() < "400").unwrap();
        let at = (method.as_str(), &*furnished.path(template));
        let body = example(operation);
        let ask = |accept: &str| {
            let more = [("accept", accept), ("if-match", "*")];
            furnished.call(furnished.caller(operation), at, &more, body.as_ref())
        };
        let Some(content) = success["content"].as_object() else {
            assert!(
                !responses.contains_key("406"),
                "{template} says nothing that could be refused"
            );
            silent += 1;
            continue;
        };
        judged += 1;
        for accept in ["image/png", "*/*;q=0", "application/problem+json, text/*;q=0"] {
            let answer = ask(accept);
            refused(&answer, 406, "media_type_not_acceptable");
            let problem = answer.json();
            let supported = problem["supported"].as_array().unwrap();
            let sent = content.keys().next().unwrap();
            assert_eq!(supported.first(), Some(&json!(sent)), "{method} {template}");
        }
        refused(&ask(&"a/b,".repeat(40)), 400, "header_invalid");
        // What any of them names is answered.
        if method == "GET" && operation["security"].is_null() {
            let named = ask("image/png").json()["supported"].clone();
            for name in named.as_array().unwrap() {
                let answer = ask(name.as_str().unwrap());
                assert_eq!(answer.status, 200, "{template} as {name}: {}", answer.text);
            }
        }
    }
    assert!(judged >= 60 && silent >= 10, "{judged}, {silent}");
    assert_eq!(audited(), before, "nothing was done");
}

#[test]
fn a_refusal_is_a_problem_whatever_is_accepted() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = format!("Bearer {}", world.member(&tenant, "viewer"));
    let url = |path: &str| format!("{}{path}", world.service.url);
    let png = ("accept", "image/png");
    let auth = ("authorization", token.as_str());
    let json = ("content-type", "application/json");
    for (method, path, headers, body, status, code) in [
        ("GET", "/nothing", vec![png], None, 404, "not_found"),
        // Who may not call learns nothing of what is answered.
        ("GET", "/api/v1/registry/agents", vec![png], None, 401, "credential_missing"),
        (
            "POST",
            "/api/v1/registry/agents",
            vec![png, auth, json],
            Some("{}"),
            403,
            "permission_denied",
        ),
        ("PATCH", "/api/v1/registry/agents", vec![png, auth], None, 405, "method_not_allowed"),
    ] {
        let answer = send(method, &url(path), &headers, body);
        refused(&answer, status, code);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    // A list in which nothing can be read says nothing.
    for accept in ["", "json", "*", "text/html, *; q=.2, */*; q=.2, */*;q=0.2"] {
        let headers = [auth, ("accept", accept)];
        assert_eq!(send("GET", &url("/api/v1/registry/agents"), &headers, None).status, 200);
    }
}
