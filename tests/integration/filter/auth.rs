//! The single module `auth`: who calls, handed over by filter state.

use std::sync::OnceLock;

use gatehouse_tests::{
    env,
    vm::{Filter, Headers, StreamId, Vm},
};
use serde_json::{Value, json};

use super::gate::{
    Gate, TENANT, TICK, USER, around, document, facts, forwarded, now, refusal, request, token,
};

const AGENTS: &str = "/api/v1/registry/agents";
const STATE: &str = "gatehouse_identity";

fn filter() -> &'static Filter {
    static AUTH: OnceLock<Filter> = OnceLock::new();
    AUTH.get_or_init(|| Filter::load(&env::path(env::AUTH).unwrap()).unwrap())
}

/// Neither versions nor limits: other modules see to them.
fn gate() -> Gate {
    let mut document = document();
    let members = document.as_object_mut().unwrap();
    members.remove("versions");
    members.remove("limiter");
    let vm = Vm::start(filter(), &around(now() - TICK, true)).unwrap();
    let mut gate = Gate::of(vm, &document);
    gate.pass(TICK);
    gate
}

fn begin(gate: &mut Gate, headers: &[(&str, &str)]) -> StreamId {
    gate.vm.request(Headers::new(headers.iter().copied()), true).unwrap()
}

#[test]
fn the_caller_is_handed_over_by_filter_state_and_nobody_is_limited() {
    let mut gate = gate();
    let bearer = format!("Bearer {}", token());
    let mut headers = request("GET", AGENTS, Some(&bearer));
    headers.push(("x-tenant-id", "evil"));
    for asked in
        [&["GET /v1/jwks?issuer=https%3A%2F%2Fauth.greenlang.local", "POST /v1/principal"][..], &[]]
    {
        let stream = begin(&mut gate, &headers);
        let upstream = forwarded(gate.finish(stream));
        assert_eq!(upstream.all("x-tenant-id"), [TENANT]);
        let state: Value =
            serde_json::from_slice(gate.vm.filter_state(stream, STATE).unwrap()).unwrap();
        assert_eq!(
            state,
            json!({
                "tenant": TENANT, "tier": "free", "subject": USER, "roles": ["developer"],
                "platform": false, "method": "jwt", "scopes": null, "limits": null,
            })
        );
        assert_eq!(gate.take_asked(), asked);
        let response = gate.vm.respond(stream, Headers::new([(":status", "200")])).unwrap();
        assert_eq!(response.all("api-version"), [""; 0]);
        assert_eq!(response.all("x-ratelimit-limit"), [""; 0]);
        assert_eq!(response.all("x-request-id").len(), 1);
        gate.vm.finish(stream).unwrap();
    }
}

#[test]
fn whoever_is_refused_or_unknown_is_handed_over_to_nobody() {
    let mut gate = gate();
    let bearer = format!("Bearer {}", token());
    gate.sidecar.principal = super::gate::Fate::Says(facts(&[]));
    let check = |gate: &mut Gate, headers: &[(&str, &str)], expected: &str| {
        let stream = begin(gate, headers);
        let standing = gate.finish(stream);
        match expected {
            "passes" => drop(forwarded(standing)),
            code => assert_eq!(refusal(standing), code),
        }
        assert_eq!(gate.vm.filter_state(stream, STATE), None, "{headers:?}");
        gate.vm.finish(stream).unwrap();
    };
    check(&mut gate, &request("GET", AGENTS, Some(&bearer)), "403 permission_denied");
    check(&mut gate, &request("GET", AGENTS, None), "401 credential_missing");
    check(&mut gate, &request("GET", "/.well-known/jwks.json", None), "passes");
}
