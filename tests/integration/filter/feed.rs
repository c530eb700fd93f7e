//! What a VM has heard of changes, and has not: revocation, silence, reloads.

use std::time::Duration;

use gatehouse_contract::{
    Role,
    sidecar::{Change, Denied},
};
use gatehouse_tests::vm::{Answer, Headers, Standing};
use serde_json::{Value, json};

use super::gate::{
    Fate, Gate, TENANT, TICK, USER, changes, document, facts, forwarded, refusal, request, token,
};

const AGENTS: &str = "/api/v1/registry/agents";
const ASKS: [&str; 2] = ["POST /v1/principal", "POST /v1/lease"];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What the feed says next.
fn says(sequence: u64, changed: &[Change]) -> Fate {
    let mut answer = changes(sequence, true);
    answer["snapshot"].take();
    answer["changes"] = serde_json::to_value(changed).unwrap();
    answer.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    Fate::Says(answer)
}

/// The record's answer about a credential that is worth nothing.
fn worthless() -> Fate {
    Fate::Status(401, json!({"code": "token_invalid"}))
}

struct Caller {
    gate: Gate,
    bearer: String,
}

impl Caller {
    /// One who is remembered.
    fn known() -> Self {
        let mut caller = Self { gate: Gate::open(), bearer: format!("Bearer {}", token()) };
        caller.passes();
        caller.gate.take_asked();
        caller.passes();
        assert_eq!(caller.gate.take_asked(), ["POST /v1/lease"], "remembered");
        caller
    }

    fn send(&mut self) -> Standing {
        self.gate.send(&request("GET", AGENTS, Some(&self.bearer)))
    }

    #[track_caller]
    fn passes(&mut self) {
        forwarded(self.send());
    }

    #[track_caller]
    fn is_refused(&mut self, expected: &str) {
        assert_eq!(refusal(self.send()), expected);
    }
}

#[test]
fn a_token_that_is_denied_is_refused_with_the_next_tick_though_it_is_remembered() {
    let mut gate = Gate::open();
    let bearer = format!("Bearer {}", token());
    forwarded(gate.send(&request("GET", AGENTS, Some(&bearer))));
    let asked: Value = serde_json::from_slice(&gate.asked[1].body).unwrap();
    let mark = asked["token"].as_str().unwrap().to_owned();
    let mut caller = Caller { gate, bearer };
    let deny = |token: String| Change::Deny(Denied::Token { token, until_s: u64::MAX });
    caller.gate.sidecar.changes = says(1, &[deny("another".to_owned())]);
    caller.gate.pass(TICK);
    caller.passes();
    caller.gate.sidecar.changes = says(2, &[deny(mark)]);
    caller.passes();
    caller.gate.pass(TICK);
    caller.is_refused("401 token_invalid");
}

#[test]
fn a_change_of_a_member_is_asked_for_with_the_next_tick() {
    let tenant = TENANT.parse().unwrap();
    for (change, asks) in [
        (Change::Subject { tenant, subject: USER.to_owned() }, true),
        (Change::Subject { tenant, subject: "somebody else".to_owned() }, false),
        (Change::Tenant { tenant }, true),
    ] {
        let mut caller = Caller::known();
        caller.gate.sidecar.changes = says(1, std::slice::from_ref(&change));
        caller.gate.pass(TICK);
        caller.passes();
        let expected = if asks { &ASKS[..] } else { &ASKS[1..] };
        assert_eq!(caller.gate.take_asked(), expected, "{change:?}");
    }
    // What the record says now is what counts.
    let mut caller = Caller::known();
    caller.gate.sidecar.changes = says(1, &[Change::Tenant { tenant }]);
    caller.gate.sidecar.principal = Fate::Says(facts(&[]));
    caller.passes();
    caller.gate.pass(TICK);
    caller.is_refused("403 permission_denied");
}

#[test]
fn silence_asks_first_and_then_refuses_where_nobody_answers() {
    let mut caller = Caller::known();
    caller.gate.sidecar.changes = Fate::Refused;
    // The principal is asked for again after its time; here the feed is what is looked at.
    caller.gate.pass(seconds(29));
    caller.passes();
    caller.gate.take_asked();
    caller.passes();
    assert_eq!(caller.gate.take_asked(), ASKS[1..], "29 s");
    caller.gate.pass(seconds(1));
    for _ in 0..2 {
        caller.passes();
        assert_eq!(caller.gate.take_asked(), ASKS, "30 s: before every use");
    }
    // Whoever answers is believed, and who does not costs a known token nothing yet.
    caller.gate.sidecar.principal = Fate::TimedOut;
    caller.passes();
    caller.gate.sidecar.principal = worthless();
    caller.is_refused("401 token_invalid");
    caller.gate.sidecar.principal = Fate::Says(facts(&[Role::Developer]));
    caller.passes();
    caller.gate.sidecar.principal = Fate::Refused;
    caller.gate.pass(seconds(269));
    caller.passes();
    caller.gate.pass(seconds(1));
    caller.is_refused("503 identity_unavailable");
    // One sign of life, and the record.
    caller.gate.sidecar.changes = says(0, &[]);
    caller.gate.sidecar.principal = Fate::Says(facts(&[Role::Developer]));
    caller.gate.pass(TICK);
    caller.passes();
}

#[test]
fn a_relay_that_died_is_silence_though_the_sidecar_answers() {
    let mut caller = Caller::known();
    let Fate::Says(mut dead) = says(0, &[]) else { unreachable!() };
    dead["alive"] = false.into();
    caller.gate.sidecar.changes = Fate::Says(dead);
    caller.gate.pass(seconds(30));
    caller.passes();
    assert_eq!(caller.gate.take_asked(), ASKS);
}

#[test]
fn a_vm_that_heard_nothing_asks_for_every_request() {
    let mut gate = Gate::deaf(&document(), true);
    let bearer = format!("Bearer {}", token());
    let headers = request("GET", AGENTS, Some(&bearer));
    forwarded(gate.send(&headers));
    gate.take_asked();
    forwarded(gate.send(&headers));
    assert_eq!(gate.take_asked(), ASKS);
    gate.sidecar.principal = Fate::TimedOut;
    assert_eq!(refusal(gate.send(&headers)), "503 identity_unavailable");
}

#[test]
fn a_reloaded_vm_un_revokes_nothing() {
    for trap in [false, true] {
        let mut caller = Caller::known();
        caller.gate.sidecar.principal = worthless();
        if trap {
            assert!(caller.gate.vm.reload().unwrap());
        } else {
            assert!(caller.gate.vm.configure(&document().to_string()).unwrap());
        }
        // Before it has heard the deny list it asks, and after it has, it asks as it remembers nothing.
        caller.is_refused("401 token_invalid");
        caller.gate.sidecar.changes = Fate::Says(changes(9, true));
        caller.gate.pass(TICK);
        caller.is_refused("401 token_invalid");
    }
}

#[test]
fn a_new_epoch_forgets_all_facts() {
    let mut caller = Caller::known();
    let mut snapshot = changes(3, true);
    snapshot["epoch"] = "epoch-2".into();
    caller.gate.sidecar.changes = Fate::Says(snapshot);
    caller.gate.pass(TICK);
    caller.passes();
    assert_eq!(caller.gate.take_asked(), ASKS);
    caller.passes();
    assert_eq!(caller.gate.take_asked(), ASKS[1..]);
}

#[test]
fn facts_that_a_change_overtakes_on_their_way_are_asked_for_again() {
    let mut gate = Gate::open();
    let bearer = format!("Bearer {}", token());
    let headers = Headers::new(request("GET", AGENTS, Some(&bearer)));
    let stream = gate.vm.request(headers, true).unwrap();
    gate.answer_next();
    let calls = gate.vm.calls();
    assert_eq!(calls[0].line(), ASKS[0]);
    let tenant = TENANT.parse().unwrap();
    gate.sidecar.changes = says(1, &[Change::Subject { tenant, subject: USER.to_owned() }]);
    gate.pass(TICK);
    gate.answer_next();
    gate.sidecar.principal = Fate::Says(facts(&[]));
    assert_eq!(refusal(gate.finish(stream)), "403 permission_denied");
}

#[test]
fn a_poll_s_answer_that_comes_late_changes_nothing() {
    let mut caller = Caller::known();
    // A poll that nobody answers is given up after two seconds.
    caller.gate.vm.advance(TICK * 9).unwrap();
    let polls = caller.gate.vm.calls();
    assert_eq!(polls.len(), 2, "{polls:#?}");
    let Fate::Says(gap) = says(0, &[]) else { unreachable!() };
    let mut gap = gap;
    gap["epoch"] = "epoch-9".into();
    let marked = [(":status", "200"), ("x-gatehouse-sidecar", "1")];
    let late = Answer::new(Headers::new(marked), gap.to_string());
    caller.gate.vm.answer(polls[0].token, late).unwrap();
    caller.gate.vm.answer(polls[1].token, Answer::nothing()).unwrap();
    caller.passes();
    assert_eq!(caller.gate.take_asked(), ASKS[1..]);
}

#[test]
fn t12_a_request_sees_the_configuration_that_it_began_with() {
    let mut gate = Gate::open();
    let bearer = format!("Bearer {}", token());
    let headers = request("GET", AGENTS, Some(&bearer));
    let stream = gate.vm.request(Headers::new(headers.iter().copied()), true).unwrap();
    // A new document knows other issuers only.
    let mut other = document();
    other["issuers"][0]["issuer"] = "https://other.example".into();
    assert!(gate.vm.configure(&other.to_string()).unwrap());
    forwarded(gate.finish(stream));
    assert_eq!(refusal(gate.send(&headers)), "401 token_invalid");
    // One that is refused leaves no engine behind: Envoy would go on with the VM before.
    let stream = gate.vm.request(Headers::new(headers.iter().copied()), true).unwrap();
    assert!(!gate.vm.configure("{}").unwrap());
    assert_eq!(refusal(gate.finish(stream)), "401 token_invalid");
}

#[test]
fn x11_a_thousand_reloads_leave_no_memory_behind() {
    let mut gate = Gate::open();
    let document = document().to_string();
    let mut reload = |count: usize| {
        for _ in 0..count {
            assert!(gate.vm.configure(&document).unwrap());
            gate.pass(TICK);
            gate.sidecar.changes = Fate::Says(changes(0, true));
        }
        gate.vm.memory_bytes()
    };
    let warm = reload(20);
    assert_eq!(reload(1000), warm);
}

#[test]
fn x11_clients_that_leave_while_they_are_held_leave_no_memory_behind() {
    let mut gate = Gate::open();
    let bearer = format!("Bearer {}", token());
    let headers = request("GET", AGENTS, Some(&bearer));
    let mut leave = |count: usize| {
        for _ in 0..count {
            let stream = gate.vm.request(Headers::new(headers.iter().copied()), true).unwrap();
            gate.vm.finish(stream).unwrap();
            // A host answers nevertheless: the call belongs to the root context.
            for call in gate.vm.calls() {
                gate.vm.answer(call.token, Answer::timed_out()).unwrap();
            }
        }
        gate.vm.memory_bytes()
    };
    let warm = leave(100);
    assert_eq!(leave(10_000), warm);
}
