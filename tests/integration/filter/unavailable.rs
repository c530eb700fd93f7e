//! The sidecar away in every way that a host can say so: refuse with 503, never let pass, never hang.

use gatehouse_tests::vm::Headers;
use serde_json::json;

use super::gate::{
    Fate, Gate, allowed, document, facts, forwarded, keys_answer, refusal, replied, request, token,
};
use gatehouse_contract::Role;

const AGENTS: &str = "/api/v1/registry/agents";

fn faults(good: serde_json::Value) -> Vec<Fate> {
    vec![
        Fate::Refused,
        Fate::TimedOut,
        Fate::Nothing,
        // Somebody else's 200 is no answer of the sidecar's.
        Fate::Unmarked(good),
        Fate::Status(503, json!({})),
        Fate::Status(500, json!({})),
        Fate::Says(json!({})),
        Fate::Says(json!("nonsense")),
    ]
}

#[test]
fn without_the_sidecar_the_answer_is_503_and_says_what_is_away() {
    let bearer = format!("Bearer {}", token());
    let check = |gate: &mut Gate, expected: &str| {
        let reply = replied(gate.send(&request("GET", AGENTS, Some(&bearer))));
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        let got = format!("{} {}", reply.status, body["code"].as_str().unwrap());
        assert_eq!(got, expected, "{:?}", gate.sidecar);
        assert_eq!(reply.headers.all("retry-after"), ["1"]);
    };
    for fate in faults(keys_answer(&[super::gate::key()])) {
        let mut gate = Gate::open();
        gate.sidecar.keys = fate;
        check(&mut gate, "503 identity_unavailable");
    }
    for fate in faults(facts(&[Role::Developer])) {
        let mut gate = Gate::open();
        gate.sidecar.principal = fate;
        check(&mut gate, "503 identity_unavailable");
    }
    for fate in faults(allowed(1)) {
        let mut gate = Gate::open();
        gate.sidecar.check = fate;
        check(&mut gate, "503 limiter_unavailable");
    }
}

#[test]
fn what_failed_is_asked_again_by_the_next_request() {
    let bearer = format!("Bearer {}", token());
    let mut gate = Gate::open();
    for surface in 0..3 {
        let whole = gate.sidecar.clone();
        match surface {
            0 => gate.sidecar.keys = Fate::Refused,
            1 => gate.sidecar.principal = Fate::Refused,
            _ => gate.sidecar.check = Fate::Refused,
        }
        replied(gate.send(&request("GET", AGENTS, Some(&bearer))));
        gate.sidecar = whole;
        if surface == 2 {
            forwarded(gate.send(&request("GET", AGENTS, Some(&bearer))));
        }
    }
}

#[test]
fn an_unknown_cluster_is_refused_at_once() {
    let mut document = document();
    document["sidecar"]["target"] = json!("no-such-cluster");
    let mut gate = Gate::with(&document, true);
    let bearer = format!("Bearer {}", token());
    let standing = gate.send(&request("GET", AGENTS, Some(&bearer)));
    assert_eq!(refusal(standing), "503 identity_unavailable");
}

#[test]
fn an_open_limiter_lets_pass_and_says_so() {
    let mut document = document();
    document["limiter"] = json!("open");
    let mut gate = Gate::with(&document, true);
    gate.sidecar.check = Fate::Refused;
    let bearer = format!("Bearer {}", token());
    let headers = Headers::new(request("GET", AGENTS, Some(&bearer)));
    let stream = gate.vm.request(headers, true).unwrap();
    forwarded(gate.finish(stream));
    let answer = gate.vm.respond(stream, Headers::new([(":status", "200")])).unwrap();
    assert_eq!(answer.all("x-ratelimit-degraded"), ["true"]);
    assert_eq!(answer.all("x-ratelimit-limit"), [""; 0]);
}

#[test]
fn public_routes_need_no_sidecar() {
    let mut gate = Gate::open();
    gate.sidecar.keys = Fate::Refused;
    gate.sidecar.principal = Fate::Refused;
    gate.sidecar.check = Fate::Refused;
    for (method, path) in [("POST", "/oauth2/token"), ("GET", "/.well-known/jwks.json")] {
        forwarded(gate.send(&request(method, path, None)));
    }
    assert_eq!(gate.take_asked(), [""; 0]);
}

#[test]
fn r19_a_client_that_leaves_while_held_disturbs_nobody() {
    let mut gate = Gate::open();
    let bearer = format!("Bearer {}", token());
    let headers = || Headers::new(request("GET", AGENTS, Some(&bearer)));
    let gone = gate.vm.request(headers(), true).unwrap();
    let stays = gate.vm.request(headers(), true).unwrap();
    gate.vm.finish(gone).unwrap();
    let standing = gate.finish(stays);
    forwarded(standing);
}

#[test]
fn whoever_is_asked_for_a_request_is_told_its_id() {
    let bearer = format!("Bearer {}", token());
    let mut gate = Gate::open();
    let mut headers = request("GET", AGENTS, Some(&bearer));
    headers.push(("x-request-id", "from-the-client-1"));
    forwarded(gate.send(&headers));
    // Keys, the principal, and the limit.
    assert_eq!(gate.asked.len(), 3);
    for call in &gate.asked {
        assert_eq!(call.headers.all("x-request-id"), ["from-the-client-1"], "{}", call.line());
    }
    gate.pass(std::time::Duration::from_secs(2));
    for call in &gate.told {
        assert_eq!(call.headers.all("x-request-id"), [""; 0], "{}", call.line());
    }
}
