//! What becomes of executions by their callers' will: cancelled, tried again, found, started anew after they were given up.

use serde_json::{Value, json};

use super::{Case, DEAD_LETTERS, RUNS, pointers};
use crate::access::refused;

const STATES: [&str; 9] = [
    "pending",
    "queued",
    "running",
    "retry",
    "completed",
    "failed",
    "timeout",
    "dead_letter",
    "cancelled",
];

#[test]
fn ee14_a_cancel_has_its_outcome_in_each_state_and_asked_again_the_same() {
    let case = Case::new();
    for state in STATES {
        let place = case.in_state(state);
        let id = place.rsplit('/').next().unwrap();
        let (becomes, runs) = match state {
            "pending" | "queued" | "retry" => ("cancelled", false),
            "running" => ("running", true),
            ended => (ended, false),
        };
        let first = case.act(&case.operator, &place, "cancel");
        assert_eq!(first.status, 200, "{state}: {}", first.text);
        let shown = first.json();
        assert_eq!(
            (&shown["state"], &shown["cancel_requested"]),
            (&json!(becomes), &json!(runs)),
            "{state}"
        );
        assert_eq!(first.header("retry-after").is_some(), runs, "{state}");
        // Whatever it was, the second one changes nothing.
        let rows = format!(
            "(SELECT FROM event_store WHERE aggregate_id = '{id}' AND kind = 'execution.cancelled'
              UNION ALL SELECT FROM tenant_audit WHERE target_id = '{id}' AND action = 'execution.cancel') AS t"
        );
        let written = case.count(&rows);
        let expected = match (runs, state == becomes) {
            // It was asked for: that is audited, and ends nothing yet.
            (true, _) => "1",
            (false, true) => "0",
            (false, false) => "2",
        };
        assert_eq!(written, expected, "{state}");
        let second = case.act(&case.operator, &place, "cancel");
        assert_eq!((second.status, second.json()), (200, shown), "{state}");
        assert_eq!(case.count(&rows), written, "{state}");
    }
}

#[test]
fn another_try_is_a_new_execution_that_names_the_first() {
    let case = Case::new();
    let terms =
        json!({"priority": "p2", "limits": {"timeout_s": 7}, "max_attempts": 2, "input": {"n": 1}});
    let made = case.submit(&case.operator, terms);
    let first = made.header("location").unwrap().to_owned();
    refused(&case.act(&case.operator, &first, "retry"), 409, "conflict");
    case.act(&case.operator, &first, "cancel");
    let again = case.act(&case.operator, &first, "retry");
    assert_eq!(again.status, 202, "{}", again.text);
    let (old, new) = (
        case.world.get(&case.operator, &first).json(),
        case.world.get(&case.operator, again.header("location").unwrap()).json(),
    );
    assert_ne!(old["id"], new["id"]);
    assert_eq!((&old["state"], &new["state"]), (&json!("cancelled"), &json!("pending")));
    assert_eq!((&old["retry_of"], &new["retry_of"]), (&Value::Null, &old["id"]));
    for same in ["input", "priority", "limits", "max_attempts", "agent_version_id"] {
        assert_eq!(old[same], new[same], "{same}");
    }
    for state in STATES {
        let place = case.in_state(state);
        let before = case.count("executions");
        let answer = case.act(&case.operator, &place, "retry");
        let added = case.count("executions") != before;
        match state {
            "failed" | "timeout" | "cancelled" => {
                assert!(answer.status == 202 && added, "{state}: {}", answer.text);
            }
            // It goes on under its own id.
            "dead_letter" => {
                assert!(answer.status == 202 && !added, "{}", answer.text);
                assert_eq!(answer.header("location"), Some(place.as_str()));
                assert_eq!(case.world.get(&case.operator, &place).json()["attempt"], 0);
            }
            _ => {
                refused(&answer, 409, "conflict");
                assert!(!added, "{state}");
            }
        }
    }
    // Of an agent that is gone nothing is run again.
    let failed = case.in_state("failed");
    let gone = format!("/api/v1/registry/agents/{}", case.agent);
    assert_eq!(case.world.call(&case.developer, "DELETE", &gone, None).status, 204);
    refused(&case.act(&case.operator, &failed, "retry"), 409, "conflict");
}

#[test]
fn a_list_is_narrowed_by_what_executions_are() {
    let case = Case::new();
    let version = case.publish("2.0.0", json!({})).json()["id"].as_str().unwrap().to_owned();
    let other = case.world.published(&case.tenant, &case.developer, "other");
    for state in ["completed", "failed", "dead_letter", "pending"] {
        case.in_state(state);
    }
    case.submit(&case.operator, json!({"version": "2.0.0", "priority": "p3"}));
    case.submit(&case.operator, json!({"agent": "other"}));
    let times =
        "UPDATE executions SET created_at = '2026-01-01T00:00:00Z' WHERE state = 'completed'";
    case.world.database.query(times);
    let narrowed = |query: &str| {
        let answer = case.world.get(&case.operator, &format!("{RUNS}?{query}"));
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["items"].as_array().unwrap().len()
    };
    let agent = &case.agent;
    for (query, expected) in [
        ("limit=100", 6),
        ("state=failed", 1),
        ("state=completed", 1),
        ("state=pending", 3),
        ("state=timeout", 0),
        ("end_reason=poison", 1),
        ("priority=p3", 1),
        ("priority=p1", 5),
        (&format!("agent_id={agent}"), 5),
        (&format!("agent_id={other}"), 1),
        (&format!("agent_version_id={version}"), 1),
        (&format!("agent_id={other}&agent_version_id={version}"), 0),
        (&format!("agent_id={agent}&state=pending&priority=p1"), 1),
        ("created_before=2026-01-02T00:00:00Z", 1),
        ("created_after=2026-01-02T00:00:00Z", 5),
        ("created_after=2026-01-01T00:00:00Z", 6),
        ("created_before=2026-01-01T00:00:00Z", 0),
    ] {
        assert_eq!(narrowed(query), expected, "{query}");
    }
    // Page by page it is the same, each once and in the same order.
    let all = case.world.get(&case.operator, &format!("{RUNS}?agent_id={agent}")).json();
    let mut found = Vec::new();
    let mut at = Some(format!("{RUNS}?agent_id={agent}&limit=2"));
    while let Some(place) = at {
        let page = case.world.get(&case.operator, &place).json();
        found.extend(page["items"].as_array().unwrap().clone());
        at = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(json!(found), all["items"]);
    for bad in [
        "state=done",
        "agent_id=fuel",
        "priority=0",
        "end_reason=x",
        "created_after=now",
        "agent=fuel",
    ] {
        refused(&case.world.get(&case.operator, &format!("{RUNS}?{bad}")), 400, "query_invalid");
    }
    // Another tenant's agent narrows to nothing.
    let theirs = case.world.tenant("tenant-b");
    let of_theirs = case.world.member(&theirs, "operator");
    let none = case.world.get(&of_theirs, &format!("{RUNS}?agent_id={agent}")).json();
    assert_eq!(none["items"], json!([]));
}

#[test]
fn what_was_given_up_is_found_and_started_anew_one_or_many() {
    let case = Case::new();
    let places: Vec<String> = (0..4).map(|_| case.in_state("dead_letter")).collect();
    let ids: Vec<&str> = places.iter().map(|place| place.rsplit('/').next().unwrap()).collect();
    let other = "UPDATE executions SET end_reason = 'retry_asked', completed_at = '2026-01-01T00:00:00Z' WHERE id = ";
    case.world.database.query(&format!("{other} '{}'", ids[0]));
    let failed = case.in_state("failed");
    let list = |query: &str| {
        let answer = case.world.get(&case.operator, &format!("{DEAD_LETTERS}{query}"));
        assert_eq!(answer.status, 200, "{}", answer.text);
        let items = answer.json()["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // The last one given up comes first.
    assert_eq!(list(""), [ids[3], ids[2], ids[1], ids[0]]);
    assert_eq!(list("?reason=poison"), [ids[3], ids[2], ids[1]]);
    assert_eq!(list("?before=2026-01-02T00:00:00Z"), [ids[0]]);
    let one = case.world.get(&case.operator, &format!("{DEAD_LETTERS}/{}", ids[3])).json();
    assert_eq!(
        (&one["reason"], &one["attempts"], &one["losses"]),
        (&json!("poison"), &json!(3), &json!(3))
    );
    assert_eq!(one["message"], "worker after worker was lost under it");
    assert_eq!(case.world.get(&case.operator, one["execution"].as_str().unwrap()).status, 200);
    // What is none is not among them.
    let none = format!("{DEAD_LETTERS}/{}", failed.rsplit('/').next().unwrap());
    refused(&case.world.get(&case.operator, &none), 404, "not_found");
    refused(&case.act(&case.operator, &none, "replay"), 409, "conflict");
    let replayed = case.act(&case.operator, &format!("{DEAD_LETTERS}/{}", ids[3]), "replay");
    assert_eq!((replayed.status, replayed.header("location")), (202, Some(places[3].as_str())));
    refused(
        &case.act(&case.operator, &format!("{DEAD_LETTERS}/{}", ids[3]), "replay"),
        409,
        "conflict",
    );
    // Many: the oldest first, and asked again it goes on.
    let many =
        |body: Value| case.world.post(&case.operator, &format!("{DEAD_LETTERS}/replay"), body);
    let some = many(json!({"reason": "poison", "limit": 1}));
    assert_eq!(some.status, 202, "{}", some.text);
    assert_eq!(some.json(), json!({"replayed": 1, "executions": [ids[1]], "more": true}));
    assert_eq!(many(json!({"before": "2025-01-01T00:00:00Z"})).json()["replayed"], 0);
    assert_eq!(
        many(json!({})).json(),
        json!({"replayed": 2, "executions": [ids[0], ids[2]], "more": false})
    );
    assert_eq!(list("").len(), 0);
    let states = "SELECT DISTINCT state FROM executions WHERE attempt = 0";
    assert_eq!(case.world.database.query(states), "pending");
    for (body, pointer) in [
        (json!({"limit": 101}), "/limit"),
        (json!({"limit": 0}), "/limit"),
        (json!({"reason": "x"}), "/reason"),
        (json!({"before": "now"}), "/before"),
    ] {
        assert_eq!(pointers(&many(body)), [pointer]);
    }
    // Others have none of these.
    let theirs = case.world.member(&case.world.tenant("tenant-b"), "admin");
    let again = case.in_state("dead_letter");
    let letter = format!("{DEAD_LETTERS}/{}", again.rsplit('/').next().unwrap());
    refused(&case.world.get(&theirs, &letter), 404, "not_found");
    refused(&case.act(&theirs, &letter, "replay"), 404, "not_found");
    assert_eq!(
        case.world.post(&theirs, &format!("{DEAD_LETTERS}/replay"), json!({})).json()["replayed"],
        0
    );
    assert_eq!(list(""), [again.rsplit('/').next().unwrap()]);
}
