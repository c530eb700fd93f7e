//! The executions API as a tenant's members use it: what a version lets a run use, what is refused before it waits, what a
//! cancel and another try do in each state, what was given up. What becomes of a run is the worker's tests'.

mod ended;

use serde_json::{Value, json};

use crate::{
    access::refused,
    conventions::{Beside, waiting},
    http::{Answer, send},
    world::{Tenant, World},
};

const RUNS: &str = "/api/v1/runtime/executions";
const DEAD_LETTERS: &str = "/api/v1/runtime/dead-letters";
/// A tenant with an agent that has a plain version, and one with terms.
struct Case {
    world: World,
    tenant: Tenant,
    developer: String,
    operator: String,
    agent: String,
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"litres": {"type": "number", "minimum": 0}, "a/b": {"type": "string"}},
        "required": ["litres"],
        "additionalProperties": false,
    })
}

impl Case {
    fn new() -> Self {
        let world = World::new();
        let tenant = world.tenant("tenant-a");
        let developer = world.member(&tenant, "developer");
        let operator = world.member(&tenant, "operator");
        let agent = world.published(&tenant, &developer, "fuel");
        Self { world, tenant, developer, operator, agent }
    }

    fn publish(&self, version: &str, terms: Value) -> Answer {
        let mut body = json!({"version": version, "image": self.image()});
        let members = body.as_object_mut().unwrap();
        members.extend(terms.as_object().unwrap().clone());
        let path = format!("/api/v1/registry/agents/{}/versions", self.agent);
        self.world.post(&self.developer, &path, body)
    }

    fn image(&self) -> String {
        format!("fuel@sha256:{}", "a".repeat(64))
    }

    fn submit(&self, token: &str, more: Value) -> Answer {
        let mut body = json!({"agent": "fuel", "version": "1.0.0", "input": {"litres": 1}});
        let members = body.as_object_mut().unwrap();
        members.extend(more.as_object().unwrap().clone());
        self.world.post(token, RUNS, body)
    }

    /// The address of a new one in this state.
    fn in_state(&self, state: &str) -> String {
        let made = self.submit(&self.operator, json!({}));
        let place = made.header("location").unwrap().to_owned();
        let id = made.json()["id"].as_str().unwrap().to_owned();
        let more = match state {
            "pending" => "",
            "queued" => ", queued_at = now()",
            "running" => ", worker = 'w', lease_epoch = 1, attempt = 1, started_at = now()",
            "retry" => {
                ", attempt = 1, due_at = now() + interval '1 hour', end_reason = 'retry_asked'"
            }
            "completed" => ", attempt = 1, completed_at = now(), end_reason = 'completed'",
            "dead_letter" => {
                ", attempt = 3, losses = 3, completed_at = now(), end_reason = 'poison',
                error = 'worker after worker was lost under it'"
            }
            _ => ", attempt = 1, completed_at = now(), end_reason = 'failed', error = 'it said so'",
        };
        self.world
            .database
            .query(&format!("UPDATE executions SET state = '{state}'{more} WHERE id = '{id}'"));
        place
    }

    fn act(&self, token: &str, place: &str, verb: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        let url = format!("{}{place}/{verb}", self.world.service.url);
        send("POST", &url, &[("authorization", &bearer)], None)
    }

    fn count(&self, of: &str) -> String {
        self.world.database.query(&format!("SELECT count(*) FROM {of}"))
    }
}

fn pointers(answer: &Answer) -> Vec<String> {
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (422, &json!("body_invalid")),
        "{}",
        answer.text
    );
    let errors = answer.json()["errors"].as_array().unwrap().clone();
    errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_version_says_what_its_runs_may_use_and_a_submit_asks_for_less() {
    let case = Case::new();
    let terms = json!({
        "limits": {"memory_bytes": 128 << 20, "timeout_s": 60, "cpu_millis": 4000},
        "input_schema": schema(),
        "output_schema": true,
        "egress": ["api.example.com:8443", "*.example.org", "API.example.com"],
    });
    let made = case.publish("2.0.0", terms.clone());
    assert_eq!(made.status, 201, "{}", made.text);
    let shown = made.json();
    let limits = json!({
        "cpu_millis": 4000, "memory_bytes": 128 << 20, "scratch_bytes": 1 << 30, "processes": 64, "open_files": 1024,
        "output_bytes": 1 << 20, "timeout_s": 60, "egress_requests": 100,
    });
    assert_eq!((&shown["limits"], &shown["input_schema"]), (&limits, &schema()));
    assert_eq!(shown["output_schema"], true);
    let hosts = json!(["*.example.org", "api.example.com", "api.example.com:8443"]);
    assert_eq!(shown["egress"], hosts);
    // What it is does not change, whoever asks.
    let path = made.header("location").unwrap();
    assert_eq!(case.world.get(&case.operator, path).json(), shown);
    assert_eq!(case.world.call(&case.developer, "PATCH", path, Some(terms)).status, 405);
    // The platform's bounds, before anything is stored.
    let before = case.count("agent_versions");
    for (terms, expected) in [
        (json!({"limits": {"memory_bytes": (8_u64 << 30) + 1}}), "/limits/memory_bytes"),
        (json!({"limits": {"timeout_s": 0}}), "/limits/timeout_s"),
        (json!({"limits": {"gpus": 1}}), "/limits/gpus"),
        (json!({"input_schema": {"$ref": "https://example.com/schema"}}), "/input_schema"),
        (json!({"input_schema": {"type": "strnig"}}), "/input_schema"),
        (json!({"output_schema": {"const": "a\u{0}"}}), "/output_schema"),
        (json!({"output_schema": {"description": "x".repeat(25 << 10)}}), "/output_schema"),
        (json!({"egress": ["10.0.0.1"]}), "/egress"),
        (json!({"egress": ["a.example.com:0"]}), "/egress"),
        (json!({"egress": vec!["a.example.com"; 65]}), "/egress"),
    ] {
        let told = pointers(&case.publish("3.0.0", terms.clone()));
        assert!(told.iter().all(|pointer| pointer.starts_with(expected)), "{terms}: {told:?}");
    }
    assert_eq!(case.count("agent_versions"), before);
    // Less than the version's, each limit by itself; more is refused before it waits, and is not charged.
    let less = json!({"version": "2.0.0", "limits": {"timeout_s": 5, "egress_requests": 0}});
    let run = case.submit(&case.operator, less);
    assert_eq!(run.status, 202, "{}", run.text);
    let shown = case.world.get(&case.operator, run.header("location").unwrap()).json();
    let mut lowered = limits.clone();
    lowered["timeout_s"] = json!(5);
    lowered["egress_requests"] = json!(0);
    assert_eq!(shown["limits"], lowered);
    let stored = case.world.database.query("SELECT timeout_s FROM executions");
    assert_eq!(stored, "5");
    let used = case.count("usage_counters");
    let more = json!({"version": "2.0.0", "limits": {"timeout_s": 61, "memory_bytes": 129 << 20, "processes": 64}});
    assert_eq!(
        pointers(&case.submit(&case.operator, more)),
        ["/limits/memory_bytes", "/limits/timeout_s"]
    );
    assert_eq!((case.count("executions"), case.count("usage_counters")), ("1".to_owned(), used));
}

#[test]
fn an_input_is_judged_by_its_versions_schema_before_it_waits() {
    let case = Case::new();
    assert_eq!(case.publish("2.0.0", json!({"input_schema": schema()})).status, 201);
    let submit =
        |input: Value| case.submit(&case.operator, json!({"version": "2.0.0", "input": input}));
    assert_eq!(submit(json!({"litres": 1.5})).status, 202);
    for (input, expected) in [
        (json!({}), "/input/litres"),
        (json!({"litres": -1}), "/input/litres"),
        (json!({"litres": 1, "a/b": 2}), "/input/a~1b"),
        (json!({"litres": 1, "x": 2}), "/input/x"),
        (json!([]), "/input"),
        (Value::Null, "/input"),
    ] {
        assert_eq!(pointers(&submit(input.clone())), [expected], "{input}");
    }
    assert_eq!(case.count("executions"), "1");
}

#[test]
fn ee13_a_submit_is_done_once_per_key() {
    let case = Case::new();
    let bearer = format!("Bearer {}", case.operator);
    let url = format!("{}{RUNS}", case.world.service.url);
    let ask = |litres: u32| {
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", "k"),
        ];
        let body = json!({"agent": "fuel", "version": "1.0.0", "input": {"litres": litres}});
        send("POST", &url, &headers, Some(&body.to_string()))
    };
    // While the first one waits for what it is charged to, the second is told so.
    case.submit(&case.operator, json!({}));
    let counters = "SELECT FROM usage_counters FOR UPDATE;";
    let beside = Beside::holding(&case.world, counters);
    let first = std::thread::scope(|scope| {
        let first = scope.spawn(|| ask(1));
        waiting(&case.world, 1);
        refused(&ask(1), 409, "key_in_flight");
        beside.release();
        first.join().unwrap()
    });
    assert_eq!(first.status, 202, "{}", first.text);
    let again = ask(1);
    assert_eq!(
        (again.text.as_str(), again.header("location")),
        (first.text.as_str(), first.header("location"))
    );
    refused(&ask(2), 422, "key_reused");
    assert_eq!(case.count("executions"), "2");
    // After a day it is another request.
    case.world
        .database
        .query("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'");
    assert_ne!(ask(1).json()["id"], first.json()["id"]);
    assert_eq!(case.count("executions"), "3");
}

#[test]
fn ee22_an_input_that_cannot_be_kept_is_refused_and_nothing_waits() {
    let case = Case::new();
    let bearer = format!("Bearer {}", case.operator);
    let url = format!("{}{RUNS}", case.world.service.url);
    let ask = |input: &str| {
        let body = format!(r#"{{"agent": "fuel", "version": "1.0.0", "input": {input}}}"#);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        send("POST", &url, &headers, Some(&body))
    };
    let bomb = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for malformed in [
        bomb(64).as_str(),
        &bomb(100_000),
        &format!("{}1", "[".repeat(100_000)),
        r#"{"a": 1, "a": 2}"#,
        r#"{"a": {"b": 1, "\u0062": 2}}"#,
        "NaN",
        "1e999",
        r#""\ud800""#,
    ] {
        let told = ask(malformed);
        assert_eq!(told.status, 400, "{}: {}", malformed.get(..40).unwrap_or(malformed), told.text);
        refused(&told, 400, "body_malformed");
    }
    for nul in [r#""a\u0000""#, r#"{"a\u0000": 1}"#, r#"[[{"a": ["\u0000"]}]]"#] {
        assert_eq!(pointers(&ask(nul)), ["/input"], "{nul}");
    }
    assert_eq!(case.count("executions"), "0");
    // The nearest that can be kept is kept as it is.
    let deep = ask(&bomb(63));
    assert_eq!(deep.status, 202, "{}", deep.text);
    let kept = case.world.get(&case.operator, deep.header("location").unwrap());
    assert_eq!(kept.json()["input"].to_string(), bomb(63));
}

#[test]
fn p0_is_for_those_who_answer_for_agents() {
    let case = Case::new();
    for (token, priority, status) in [
        (&case.operator, json!("p0"), 403),
        (&case.operator, json!("p1"), 202),
        (&case.developer, json!("p0"), 202),
        (&case.developer, json!("p3"), 202),
        (&case.developer, json!(null), 202),
        (&case.developer, json!("p4"), 422),
        (&case.developer, json!(0), 422),
    ] {
        let made = case.submit(token, json!({"priority": priority}));
        assert_eq!(made.status, status, "{priority}: {}", made.text);
    }
    let stored = "SELECT string_agg(priority::text, ' ' ORDER BY created_at) FROM executions";
    assert_eq!(case.world.database.query(stored), "1 0 3 1");
    // Nor does another try make an operator's urgent.
    let urgent = case.world.get(&case.operator, &format!("{RUNS}?priority=p0")).json();
    let place = format!("{RUNS}/{}", urgent["items"][0]["id"].as_str().unwrap());
    assert_eq!(case.act(&case.operator, &place, "cancel").status, 200);
    refused(&case.act(&case.operator, &place, "retry"), 403, "permission_denied");
    let again = case.act(&case.developer, &place, "retry");
    assert_eq!(again.status, 202, "{}", again.text);
    let attempts =
        |max_attempts: u32| case.submit(&case.operator, json!({"max_attempts": max_attempts}));
    assert_eq!((attempts(0).status, attempts(11).status, attempts(10).status), (422, 422, 202));
}
