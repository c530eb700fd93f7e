//! J40: a clock that steps. No real Envoy can be told the time, so that the wasmtime host plays it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::filter::gate::{Gate, NOW_S, claims, key, now, refusal, request};
use gatehouse_tests::vm::Standing;

const HOUR: Duration = Duration::from_secs(3600);

fn verdict(gate: &mut Gate, token: &str) -> String {
    let bearer = format!("Bearer {token}");
    match gate.send(&request("GET", "/api/v1/registry/agents", Some(&bearer))) {
        Standing::Forwarded(_) => "200".to_owned(),
        standing => refusal(standing),
    }
}

fn token(issued: u64, expires: u64) -> String {
    let mut claims: Value = claims();
    claims["iat"] = json!(issued);
    claims["nbf"] = json!(issued);
    claims["exp"] = json!(expires);
    key().jwt(&key().header(), &claims).unwrap()
}

#[test]
fn j40_a_clock_step_of_an_hour_keeps_nothing_for_ever_and_costs_no_vm() {
    let mut gate = Gate::open();
    let short = token(NOW_S - 10, NOW_S + 890);
    let long = token(NOW_S - 3 * 3600, NOW_S + 3 * 3600);
    assert_eq!(verdict(&mut gate, &short), "200");
    assert_eq!(verdict(&mut gate, &long), "200");
    gate.take_asked();

    for _ in 0..3 {
        // Back: the short one is not yet issued, what was remembered is of the future and asked for again.
        gate.vm.host().set_clock(now() - HOUR);
        assert_eq!(verdict(&mut gate, &short), "401 token_invalid");
        assert_eq!(verdict(&mut gate, &long), "200");
        assert!(!gate.take_asked().is_empty(), "the future was believed");
        // Forth: the short one is over, remembered or not.
        gate.vm.host().set_clock(now() + HOUR);
        assert_eq!(verdict(&mut gate, &short), "401 token_invalid");
        assert_eq!(verdict(&mut gate, &long), "200");
        assert!(!gate.take_asked().is_empty(), "an hour was not noticed");
        gate.vm.host().set_clock(now());
        assert_eq!(verdict(&mut gate, &short), "200");
        assert!(!gate.vm.is_dead());
    }
    // What was learnt in a wrong future ends within its own length, not at the end of that future.
    gate.vm.host().set_clock(now() + HOUR);
    assert_eq!(verdict(&mut gate, &long), "200");
    gate.vm.host().set_clock(now());
    gate.take_asked();
    assert_eq!(verdict(&mut gate, &long), "200");
    assert!(!gate.take_asked().is_empty());
    gate.vm.host().set_clock(now() + 4 * HOUR);
    assert_eq!(verdict(&mut gate, &long), "401 token_invalid");
}
