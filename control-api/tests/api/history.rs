//! What becomes of agents and their versions: changed, promoted, deprecated; and what happened to them, told afterwards.

use serde_json::{Value, json};

use crate::{
    access::refused,
    http::{Answer, send},
    world::{Tenant, World},
};

const AGENTS: &str = "/api/v1/registry/agents";
const RUNS: &str = "/api/v1/runtime/executions";

/// A further version of the agent: where it is.
fn version(world: &World, tenant: &Tenant, token: &str, agent: &str, name: &str) -> String {
    let image = world.image(tenant, "fuel", 'a');
    let all = format!("{AGENTS}/{agent}/versions");
    let made = world.post(token, &all, json!({"version": name, "image": image}));
    assert_eq!(made.status, 201, "{}", made.text);
    made.header("location").unwrap().to_owned()
}

fn ok(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

#[test]
fn an_agent_has_another_name_once_somebody_said_which_state_was_meant() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    let place = format!("{AGENTS}/{}", world.published(&tenant, &token, "fuel"));
    world.published(&tenant, &token, "taken");
    let bearer = format!("Bearer {token}");
    let patch = |tag: Option<&str>, body: Value| {
        let mut headers =
            vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
        headers.extend(tag.map(|tag| ("if-match", tag)));
        let url = format!("{}{place}", world.service.url);
        send("PATCH", &url, &headers, Some(&body.to_string()))
    };
    let tag = world.get(&token, &place).header("etag").unwrap().to_owned();
    refused(&patch(None, json!({"name": "diesel"})), 428, "precondition_missing");
    let changed = ok(&patch(Some(&tag), json!({"name": "diesel", "description": "litres"})));
    assert_eq!((&changed["name"], &changed["description"]), (&json!("diesel"), &json!("litres")));
    refused(&patch(Some(&tag), json!({"name": "petrol"})), 412, "precondition_failed");
    assert_eq!(ok(&patch(Some("*"), json!({"description": null})))["description"], Value::Null);
    assert_eq!(ok(&world.get(&token, &place))["name"], "diesel", "what is not named stays");
    refused(&patch(Some("*"), json!({"name": "taken"})), 409, "conflict");
    assert_eq!(patch(Some("*"), json!({"name": "Diesel"})).status, 422);
    assert_eq!(patch(Some("*"), json!({})).status, 422);
}

#[test]
fn the_promoted_version_runs_where_none_is_named() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    let agent = world.published(&tenant, &token, "fuel");
    let submit = |body: Value| world.post(&token, RUNS, body);
    let none = submit(json!({"agent": "fuel"}));
    refused(&none, 409, "conflict");
    assert!(none.json()["detail"].as_str().unwrap().contains("promote one"), "{}", none.text);
    refused(&submit(json!({"agent": "nothing"})), 404, "not_found");
    let second = version(&world, &tenant, &token, &agent, "2.0.0");
    let third = version(&world, &tenant, &token, &agent, "3.0.0");
    let promoted = ok(&world.call(&token, "POST", &format!("{second}/promote"), None));
    assert!(promoted["promoted_at"].is_string(), "{promoted}");
    let taken = submit(json!({"agent": "fuel"}));
    assert_eq!(taken.status, 202, "{}", taken.text);
    assert_eq!(taken.json()["agent_version_id"], promoted["id"]);
    assert_eq!(taken.json()["deprecation"], Value::Null);
    ok(&world.call(&token, "POST", &format!("{third}/promote"), None));
    assert_eq!(ok(&world.get(&token, &second))["promoted_at"], Value::Null, "one at most");
    let list = |query: &str| {
        let all = ok(&world.get(&token, &format!("{AGENTS}/{agent}/versions?{query}")));
        let items = all["items"].as_array().unwrap().iter();
        items.map(|one| one["version"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list("promoted=true"), ["3.0.0"]);
    assert_eq!(list("promoted=false"), ["2.0.0", "1.0.0"]);
    assert_eq!(list("version=1.0.0"), ["1.0.0"]);
    let query = format!("{AGENTS}/{agent}/versions?promoted=yes");
    refused(&world.get(&token, &query), 400, "query_invalid");
    // A version is read as its own agent's alone, and changed by those who may.
    let other = world.published(&tenant, &token, "other");
    refused(&world.get(&token, &third.replace(&agent, &other)), 404, "not_found");
    let viewer = world.member(&tenant, "viewer");
    let denied = world.call(&viewer, "POST", &format!("{second}/promote"), None);
    refused(&denied, 403, "permission_denied");
}

#[test]
fn a_deprecated_version_runs_and_says_so() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    let agent = world.published(&tenant, &token, "fuel");
    let second = version(&world, &tenant, &token, &agent, "2.0.0");
    ok(&world.call(&token, "POST", &format!("{second}/promote"), None));
    let why = json!({"message": "take 3.0.0"});
    let deprecated = ok(&world.post(&token, &format!("{second}/deprecate"), why.clone()));
    assert_eq!(deprecated["deprecation"]["message"], "take 3.0.0");
    let again = ok(&world.post(&token, &format!("{second}/deprecate"), why));
    assert_eq!(again, deprecated, "said again, nothing changes");
    let taken = world.post(&token, RUNS, json!({"agent": "fuel"}));
    assert_eq!(taken.status, 202, "{}", taken.text);
    assert_eq!(taken.json()["deprecation"], deprecated["deprecation"]);
    let first = ok(&world.get(&token, &format!("{AGENTS}/{agent}/versions?version=1.0.0")));
    let first = format!("{AGENTS}/{agent}/versions/{}", first["items"][0]["id"].as_str().unwrap());
    ok(&world.post(&token, &format!("{first}/deprecate"), json!({})));
    refused(&world.call(&token, "POST", &format!("{first}/promote"), None), 409, "conflict");
    let audited = world.database.query(
        "SELECT string_agg(action, ' ' ORDER BY id) FROM tenant_audit WHERE target_kind = 'agent_version'",
    );
    assert_eq!(
        audited,
        "agent_version.create agent_version.create agent_version.promote agent_version.deprecate agent_version.deprecate"
    );
}

#[test]
fn what_happened_is_told_page_by_page_and_rebuilt_for_any_time() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    let agent = world.published(&tenant, &token, "fuel");
    let place = format!("{AGENTS}/{agent}");
    let second = version(&world, &tenant, &token, &agent, "2.0.0");
    let promoted = ok(&world.call(&token, "POST", &format!("{second}/promote"), None));
    let told = ok(&world.get(&token, &format!("{place}/history?limit=3")));
    let kinds = |page: &Value| {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|one| one["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&told), ["version.promoted", "version.published", "version.published"]);
    assert_eq!(told["items"][0]["payload"]["version_id"], promoted["id"]);
    let rest = ok(&world.get(&token, told["next"].as_str().unwrap()));
    assert_eq!((kinds(&rest), &rest["next"]), (vec!["agent.created".to_owned()], &Value::Null));
    // As it was between the second version and its promotion.
    let then = told["items"][1]["at"].as_str().unwrap();
    let state = ok(&world.get(&token, &format!("{place}/state?at={then}")))["state"].take();
    let id = promoted["id"].as_str().unwrap();
    assert_eq!(state["versions"][id]["promoted_at"], Value::Null);
    assert_eq!(world.call(&token, "DELETE", &place, None).status, 204);
    assert_eq!(world.get(&token, &place).status, 404);
    let state = ok(&world.get(&token, &format!("{place}/state")))["state"].take();
    assert!(state["deleted_at"].is_string(), "a deleted one has its history: {state}");
    assert_eq!(state["versions"][id]["promoted_at"], promoted["promoted_at"]);
    let early = world.get(&token, &format!("{place}/state?at=2020-01-01T00:00:00Z"));
    refused(&early, 404, "not_found");
    for query in
        ["at=yesterday", "at=", "then=2026-01-01T00:00:00Z", "at=2026-01-01T00:00:00Z&at=x"]
    {
        let bad = world.get(&token, &format!("{place}/state?{query}"));
        refused(&bad, 400, "query_invalid");
    }
    let foreign = world.member(&world.tenant("tenant-b"), "admin");
    for what in ["history", "state"] {
        refused(&world.get(&foreign, &format!("{place}/{what}")), 404, "not_found");
    }
    // An execution's, with what it reads.
    world.published(&tenant, &token, "fuel");
    let body = json!({"agent": "fuel", "version": "1.0.0", "input": {"litres": 1}});
    let run = world.post(&token, RUNS, body);
    let run = run.header("location").unwrap();
    let told = ok(&world.get(&token, &format!("{run}/history")));
    assert_eq!(kinds(&told), ["execution.submitted"]);
    let state = ok(&world.get(&token, &format!("{run}/state")))["state"].take();
    assert_eq!((&state["state"], &state["input"]), (&json!("pending"), &json!({"litres": 1})));
}
