//! Key sets that the filter fetches itself: several VMs of one process, no sidecar.

use std::time::Duration;

use gatehouse_tests::{
    token::jwks,
    vm::{Answer, Filter, Headers, Standing, StreamId, Vm, advance},
};
use serde_json::{Value, json};

use super::gate::{
    AUDIENCE, ISSUER, PROVIDER, TENANT, TICK, around, claims, key, now, refusal, request,
};

const AGENTS: &str = "/api/v1/registry/agents";

/// No record stands behind this gateway.
fn document() -> Value {
    json!({
        "host": "envoy",
        "signatures": "native",
        "issuers": [{
            "issuer": ISSUER,
            "audiences": [AUDIENCE],
            "algorithms": ["RS256", "ES256"],
            "jwks": {
                "target": PROVIDER, "authority": "provider.example", "path": "/jwks.json",
                "refresh_s": 60,
            },
            "tenants": [TENANT],
            "max_role": "developer",
            "roles": {"claim": "/groups", "map": {"authors": "developer"}},
        }],
        "versions": {"served": ["v1"], "default": "v1"},
        "limiter": {"local": {"per_minute": 600}},
    })
}

/// A process with three VMs.
struct Process {
    vms: Vec<Vm>,
}

impl Process {
    fn start() -> Self {
        let around = around(now(), true);
        let start = |_| {
            let mut vm = Vm::start(Filter::suite().unwrap(), &around).unwrap();
            assert!(vm.configure(&document().to_string()).unwrap(), "{:?}", vm.take_log());
            vm
        };
        Self { vms: (0..3).map(start).collect() }
    }

    fn pass(&mut self, time: Duration) {
        let mut vms: Vec<&mut Vm> = self.vms.iter_mut().collect();
        advance(&mut vms, time).unwrap();
    }

    /// Answers every fetch that waits; how many there were.
    fn answer(&mut self, answer: &Answer) -> usize {
        let mut count = 0;
        for vm in &mut self.vms {
            for call in vm.calls() {
                assert_eq!(call.target, PROVIDER);
                assert_eq!(call.line(), "GET /jwks.json");
                assert_eq!(call.headers.one(":authority").as_deref(), Some("provider.example"));
                vm.answer(call.token, answer.clone()).unwrap();
                count += 1;
            }
        }
        count
    }

    fn send(&mut self, vm: usize, bearer: &str) -> Standing {
        let vm = &mut self.vms[vm];
        let headers = Headers::new(request("GET", AGENTS, Some(bearer)));
        let stream: StreamId = vm.request(headers, true).unwrap();
        let standing = vm.standing(stream).unwrap().clone();
        vm.finish(stream).unwrap();
        standing
    }
}

fn set(mark: u32) -> Answer {
    let mut set = jwks(&[key()]).unwrap();
    set["mark"] = mark.into();
    Answer::new(Headers::new([(":status", "200")]), set.to_string())
}

fn bearer(kid: Option<&str>) -> String {
    let mut claims = claims();
    claims["groups"] = json!(["authors"]);
    let mut header = key().header();
    if let Some(kid) = kid {
        header["kid"] = kid.into();
    }
    format!("Bearer {}", key().jwt(&header, &claims).unwrap())
}

#[test]
fn j18_one_worker_fetches_and_all_agree_within_a_second() {
    let mut process = Process::start();
    // J19: cold, and nobody has answered yet.
    assert_eq!(refusal(process.send(0, &bearer(None))), "503 identity_unavailable");
    process.pass(TICK * 2);
    assert_eq!(process.answer(&set(1)), 1, "one leader");
    process.pass(TICK);
    for vm in 0..3 {
        let standing = process.send(vm, &bearer(None));
        assert!(matches!(standing, Standing::Forwarded(_)), "VM {vm}: {standing:?}");
    }
    process.pass(Duration::from_secs(50));
    assert_eq!(process.answer(&set(1)), 0);
}

#[test]
fn j13_a_thousand_unknown_key_ids_over_all_workers_cost_one_fetch() {
    let mut process = Process::start();
    process.pass(TICK * 2);
    process.answer(&set(1));
    process.pass(Duration::from_secs(31));
    for attempt in 0..1000 {
        let kid = format!("random-{attempt}");
        let refused = refusal(process.send(attempt % 3, &bearer(Some(&kid))));
        assert_eq!(refused, "503 identity_unavailable", "nobody knows yet");
    }
    process.pass(TICK);
    assert_eq!(process.answer(&set(1)), 1);
    process.pass(TICK);
    for vm in 0..3 {
        let refused = refusal(process.send(vm, &bearer(Some("random-0"))));
        assert_eq!(refused, "401 token_invalid", "the provider has not got it");
        assert!(matches!(process.send(vm, &bearer(None)), Standing::Forwarded(_)));
    }
    process.pass(Duration::from_secs(20));
    assert_eq!(process.answer(&set(1)), 0);
}

#[test]
fn j15_a_provider_that_is_away_or_lies_leaves_the_keys_as_they_are() {
    let mut process = Process::start();
    process.pass(TICK * 2);
    process.answer(&set(1));
    let html = Answer::new(Headers::new([(":status", "200")]), "<html>");
    let large = Answer::new(Headers::new([(":status", "200")]), vec![b' '; 300 * 1024]);
    for bad in [Answer::refused(), Answer::timed_out(), Answer::nothing(), html, large] {
        for _ in 0..(100 * 4) {
            process.pass(TICK);
            process.answer(&bad);
        }
        for vm in 0..3 {
            assert!(matches!(process.send(vm, &bearer(None)), Standing::Forwarded(_)), "{bad:?}");
        }
        // It is tried again; a good answer ends the trouble.
        while process.answer(&set(1)) == 0 {
            process.pass(TICK);
        }
    }
}
