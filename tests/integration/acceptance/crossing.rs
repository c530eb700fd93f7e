//! V14: what requests that go on meet at the second in which a version's standing changes, on every worker.

use std::{
    process::Command,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gatehouse_tests::{http::Request, wait};
use serde_json::json;

use super::gate::{AGENTS, ALLOWED, Gate, Plan, document, token, verdict};

/// How long before the first edge the requests begin, in seconds: the gateway has to start.
const BEFORE_S: u64 = 15;
const BETWEEN_S: u64 = 3;
/// Two workers may differ for so long.
const ALLOWANCE: Duration = Duration::from_secs(1);

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn rfc3339(second: u64) -> String {
    let moment = format!("@{second}");
    let told = Command::new("date").args(["-u", "-d", &moment, "+%FT%TZ"]).output().unwrap();
    String::from_utf8(told.stdout).unwrap().trim().to_owned()
}

/// A request's time, from before it was sent to after its answer came, and what became of it.
type Met = (Duration, Duration, String);

#[test]
fn v14_no_answers_are_mixed_a_second_after_an_edge() {
    let from = since_epoch().as_secs() + BEFORE_S;
    let until = from + BETWEEN_S;
    let mut document = document();
    document["versions"] = json!({"served": ["v1", "v2"], "default": "v1", "lifecycle": [{
        "version": "v1", "deprecated": "2024-01-01", "sunset": "2099-06-01", "successor": "v2",
        "brownouts": [{"from": rfc3339(from), "until": rfc3339(until)}],
    }]});
    let gate = Gate::with(Plan { document, workers: 2, ..Plan::default() });
    assert_eq!(gate.judges(&token()), ALLOWED);
    let (from, until) = (Duration::from_secs(from), Duration::from_secs(until));
    assert!(since_epoch() < from, "the gateway took too long to start");
    let listen = gate.envoy.listen;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let request = Request::new("GET", AGENTS).bearer(&token());
            thread::spawn(move || {
                wait::until_instant(
                    std::time::Instant::now() + from.saturating_sub(since_epoch() + ALLOWANCE),
                );
                let mut met: Vec<Met> = Vec::new();
                while since_epoch() < until + ALLOWANCE * 2 {
                    let sent = since_epoch();
                    // Each a connection of its own, so that both workers get some.
                    let answer = request.send(listen).unwrap();
                    met.push((sent, since_epoch(), verdict(&answer)));
                }
                met
            })
        })
        .collect();
    let met: Vec<Met> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    let count = |wanted: &dyn Fn(&Met) -> bool, expected: &str| {
        let found: Vec<_> = met.iter().filter(|met| wanted(met)).collect();
        for (sent, _, became) in &found {
            assert_eq!(became, expected, "{:?} after the first edge", sent.checked_sub(from));
        }
        found.len()
    };
    // Nobody is early, and nobody is late for longer than is allowed.
    let before = count(&|(_, answered, _)| *answered < from, ALLOWED);
    let within = count(
        &|(sent, answered, _)| *sent >= from + ALLOWANCE && *answered < until,
        "410 version_gone",
    );
    let after = count(&|(sent, ..)| *sent >= until + ALLOWANCE, ALLOWED);
    assert!([before, within, after].iter().all(|count| *count > 10), "{before} {within} {after}");
    let at = format!("{}_{}", listen.ip(), listen.port());
    for worker in 0..2 {
        let taken = format!("listener.{at}.worker_{worker}.downstream_cx_total");
        assert!(gate.envoy.stat(&taken).unwrap() > 10, "worker {worker} had no requests");
    }
    gate.sound();
}
