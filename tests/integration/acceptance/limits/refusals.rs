//! R10, R12: what a refusal says, and that it is true.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gatehouse_tests::{
    envoy::{Gateway, bare, manager},
    http::serve::{self, response},
    wait,
};
use serde_json::{Value, json};

use super::{AGENTS, LIMITED, asking, limits, number, of_tenant, told};
use crate::acceptance::gate::{Gate, Plan, get, token};

#[test]
fn r10_who_comes_back_when_told_passes() {
    let gate = Gate::with(limits(&json!({
        "window_s": 2,
        "tiers": {"enterprise": 5},
        "endpoints": [{"method": "POST", "route": AGENTS, "per_window": 2}],
    })));
    for (method, passes) in [("POST", 2), ("GET", 5), ("POST", 2)] {
        let mut passed = 0;
        let refused = loop {
            let answer = gate.send(&asking(method, AGENTS));
            match answer.status().unwrap() {
                200 => passed += 1,
                429 => break answer,
                _ => panic!("{answer:?}"),
            }
            assert!(passed <= 2 * passes, "{passed} of {passes} passed");
        };
        let heard = Instant::now();
        let after = number(&refused, "retry-after").unwrap();
        assert!(after >= 1 && after >= told(&refused).unwrap().reset, "{refused:?}");
        assert!(after <= 3, "{refused:?}");
        // Denials cost nothing: asking again and again does not move the time. Whoever passes before it does, and
        // takes the place.
        let early = (0..20).any(|_| {
            let again = gate.send(&asking(method, AGENTS));
            let denied = again.status().unwrap() == 429;
            assert!(!denied || number(&again, "retry-after").unwrap() <= after, "{again:?}");
            !denied
        });
        if early {
            continue;
        }
        wait::until_instant(heard + Duration::from_secs(after.into()));
        assert_eq!(gate.verdict(&asking(method, AGENTS)), "200", "{method} after {after} s");
    }
}

#[test]
fn r12_a_refusal_is_a_problem_and_no_reason_to_try_at_once() {
    // Whoever asks for /429 is refused by the upstream itself, without our mark.
    let upstream: serve::Handler = Arc::new(|request| match request.start.contains("/429") {
        true => response(429, &[], ""),
        false => serve::echo(request),
    });
    let gate = Gate::with(Plan { upstream, ..of_tenant(12) });
    let dir = tempfile::tempdir().unwrap();
    let front = bare(dir.path(), gate.envoy.listen).unwrap();
    front.patch(|bootstrap| try_again(bootstrap, json!([429]))).unwrap();
    let front = Gateway::run(dir.path(), front).unwrap();
    let through = |request: gatehouse_tests::http::Request| request.send(front.listen).unwrap();

    // The front does try again what the upstream refuses: four times in all.
    let answer = through(asking("GET", &format!("{AGENTS}/429")));
    assert_eq!(answer.status().unwrap(), 429);
    assert_eq!(gate.upstream_saw().len(), 4);
    while through(get().bearer(&token())).status().unwrap() == 200 {}
    gate.upstream_saw();

    let asked = |gate: &Gate| gate.envoy.stat("http.gateway.downstream_rq_completed").unwrap();
    let before = asked(&gate);
    let refused = through(asking("GET", AGENTS));
    assert_eq!(asked(&gate), before + 1, "not tried again");
    assert_eq!(gate.upstream_saw().len(), 0);
    assert_eq!(super::super::gate::verdict(&refused), LIMITED);
    let body = refused.json().unwrap();
    assert!(body["type"].as_str().unwrap().ends_with("#quota-exceeded"), "{body}");
    assert_eq!(refused.headers.all("cache-control"), ["no-store"]);
    assert_eq!(gate.send(&asking("GET", AGENTS)).headers.all("x-envoy-ratelimited"), ["true"]);
    // Who passes is no such case.
    let public = gate.send(&asking("GET", super::super::gate::PUBLIC));
    assert_eq!(public.headers.all("x-envoy-ratelimited"), [""; 0]);
}

/// Every route tries thrice again what is answered with one of these statuses.
pub(super) fn try_again(bootstrap: &mut Value, statuses: Value) -> Option<()> {
    let hosts = manager(bootstrap)?.get_mut("route_config")?.get_mut("virtual_hosts")?;
    for route in hosts.pointer_mut("/0/routes")?.as_array_mut()? {
        let policy = json!({
            "retry_on": "5xx,retriable-status-codes", "retriable_status_codes": statuses,
            "num_retries": 3, "retry_back_off": {"base_interval": "0.001s"},
        });
        route.get_mut("route")?.as_object_mut()?.insert("retry_policy".to_owned(), policy);
    }
    Some(())
}
