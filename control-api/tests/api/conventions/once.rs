//! A request that is repeated under its key does nothing again.

use serde_json::{Value, json};

use super::{Beside, Furnished, example, operations, settled, takes, waiting};
use crate::{access::refused, http::Answer, world::World};

const AGENTS: &str = "/api/v1/registry/agents";

/// The members that are another one's at each making.
fn without_replay(answer: &Answer) -> (u16, String, Option<String>, Option<String>) {
    let header = |name| answer.header(name).map(str::to_owned);
    (answer.status, answer.text.clone(), header("location"), header("cache-control"))
}

#[test]
fn every_post_is_done_once_per_key() {
    let furnished = Furnished::new();
    let world = &furnished.world;
    let image = world.image(&furnished.tenant, "fuel-emissions", 'a');
    let mut done = 0;
    for (method, template, operation) in operations() {
        if method != "POST" || !takes(operation, "IdempotencyKey") {
            continue;
        }
        done += 1;
        let (path, token) = (furnished.path(template), furnished.caller(operation));
        let body = example(operation).map(|body| match template {
            "/api/v1/registry/agents/{agent}/versions" => {
                json!({"version": "2.0.0", "image": image})
            }
            AGENTS => json!({"name": "another"}),
            _ => body,
        });
        let ask = |key: &str, body: Option<&Value>| {
            furnished.call(token, ("POST", &path), &[("idempotency-key", key)], body)
        };
        let rows = || {
            world
                .database
                .query("SELECT (SELECT count(*) FROM tenant_audit) + (SELECT count(*) FROM outbox)")
        };
        furnished.ready(template);
        let first = ask(template, body.as_ref());
        assert!((200..300).contains(&first.status), "{template}: {}", first.text);
        assert_eq!(first.header("idempotency-replayed"), None);
        let after = rows();
        let again = ask(template, body.as_ref());
        assert_eq!(again.header("idempotency-replayed"), Some("true"), "{template}");
        assert_eq!(without_replay(&again), without_replay(&first), "{template}");
        assert_eq!(rows(), after, "{template}: nothing was done again");
        let quoted = ask(&format!("\"{template}\""), body.as_ref());
        assert_eq!(quoted.text, first.text, "{template}");
        // Another request under the key: another query here, as not all have bodies.
        let other = furnished.call(
            token,
            ("POST", &format!("{path}?x=1")),
            &[("idempotency-key", template)],
            body.as_ref(),
        );
        refused(&other, 422, "key_reused");
        for broken in ["", "a b", &"x".repeat(256)] {
            refused(&ask(broken, body.as_ref()), 400, "header_invalid");
        }
        if template.ends_with("/deprecate") {
            // Which no endpoint takes back: another version would be promoted.
            world
                .database
                .query("UPDATE agent_versions SET deprecated_at = NULL, deprecation = NULL");
        }
        if template.ends_with("/suspend") {
            let resume = path.replace("/suspend", "/resume");
            let resumed = furnished.call(token, ("POST", &resume), &[], None);
            assert_eq!(resumed.status, first.status, "{template}: {}", resumed.text);
        }
    }
    assert!(done >= 14, "{done}");
    // What was shown once is not to be found in what is kept.
    let secrets = "SELECT count(*) FROM idempotency_keys WHERE encode(sealed_answer, 'escape') ~ '(gk_|gs_|client_secret)'";
    assert_eq!(world.database.query(secrets), "0");
    assert_ne!(world.database.query("SELECT count(*) FROM idempotency_keys"), "0");
}

#[test]
fn of_fifty_at_once_one_takes_effect_and_all_learn_of_it() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    let bearer = format!("Bearer {token}");
    let url = format!("{}{AGENTS}", world.service.url);
    let ask = || {
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", "fifty"),
        ];
        crate::http::send("POST", &url, &headers, Some(r#"{"name":"fuel"}"#))
    };
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..50).map(|_| scope.spawn(|| settled(ask))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let made: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 201).collect();
    let fresh = made.iter().filter(|answer| answer.header("idempotency-replayed").is_none());
    assert_eq!(fresh.count(), 1);
    for answer in &answers {
        match answer.status {
            201 => assert_eq!(answer.text, made[0].text),
            _ => {
                refused(answer, 409, "key_in_flight");
                assert_eq!(answer.header("retry-after"), Some("1"));
            }
        }
    }
    assert_eq!(world.database.query("SELECT count(*) FROM agents"), "1");
    assert_eq!(
        world.database.query("SELECT count(*) FROM tenant_audit WHERE action = 'agent.create'"),
        "1"
    );
    assert_eq!(ask().text, made[0].text);
}

/// A transaction that holds the key is a request that runs, whichever process it is in.
#[test]
fn while_the_first_one_runs_the_second_is_told_so() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    let bearer = format!("Bearer {token}");
    let url = format!("{}{AGENTS}", world.service.url);
    let ask = || {
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", "k"),
        ];
        crate::http::send("POST", &url, &headers, Some(r#"{"name":"fuel"}"#))
    };
    // The first one waits for the row that somebody else is about to write.
    let beside = Beside::holding(
        &world,
        &format!(
            "INSERT INTO agents (tenant_id, id, name) VALUES ('{}', gen_random_uuid(), 'fuel');",
            tenant.id
        ),
    );
    std::thread::scope(|scope| {
        let first = scope.spawn(ask);
        waiting(&world, 1);
        let second = ask();
        refused(&second, 409, "key_in_flight");
        beside.release();
        let first = first.join().unwrap();
        assert_eq!(first.status, 201, "{}", first.text);
        assert_eq!(ask().text, first.text);
    });
}

#[test]
fn a_key_is_its_callers_for_a_day_and_refusals_are_judged_anew() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let (one, two) = (world.member(&tenant, "developer"), world.member(&tenant, "developer"));
    let ask = |token: &str, name: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", "k"),
        ];
        let body = json!({"name": name}).to_string();
        crate::http::send("POST", &format!("{}{AGENTS}", world.service.url), &headers, Some(&body))
    };
    // A refusal had no effect and is not kept.
    refused(&ask(&one, "Not A Name"), 422, "body_invalid");
    assert_eq!(world.database.query("SELECT count(*) FROM idempotency_keys"), "0");
    let made = ask(&one, "fuel");
    assert_eq!(made.status, 201, "{}", made.text);
    // Another caller's key of the same name is another key.
    refused(&ask(&two, "fuel"), 409, "conflict");
    assert_eq!(ask(&two, "other").status, 201);
    refused(&ask(&one, "third"), 422, "key_reused");
    // After a day it is forgotten, and forgotten ones go.
    world.database.query("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'");
    refused(&ask(&one, "fuel"), 409, "conflict");
    assert_eq!(ask(&one, "third").status, 201);
    assert_eq!(world.database.query("SELECT count(*) FROM idempotency_keys"), "1");
}
