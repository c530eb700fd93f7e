//! R24: requests that cost more than one, by their route or by what the response says.

use std::{sync::Arc, time::Duration};

use gatehouse_tests::{http::serve, wait};
use serde_json::json;

use super::{AGENTS, LIMITED, Plan, asking, left_after, limiter, of_tenant, told};
use crate::acceptance::gate::Gate;

const AGENT: &str = "/api/v1/registry/agents/a";

#[test]
fn r24_a_route_costs_what_the_document_says_or_nothing() {
    let costs = json!([{"method": "GET", "route": AGENTS, "cost": 3}]);
    let document = limiter(&json!({ "costs": costs }));
    let gate = Gate::with(Plan { document, ..of_tenant(10) });
    for left in [7, 4, 1] {
        assert_eq!(left_after(&gate, &asking("GET", AGENTS)), left);
    }
    // One is left: too few for this one, which is not charged a part of it.
    let refused = gate.denies(&asking("GET", AGENTS), LIMITED);
    assert_eq!(told(&refused).unwrap().remaining, 1);
    assert_eq!(left_after(&gate, &asking("GET", AGENT)), 0);
    gate.denies(&asking("GET", AGENT), LIMITED);
}

#[test]
fn r24_what_the_response_says_it_cost_is_charged_afterwards() {
    // The last segment of the path is what the upstream says.
    let upstream: serve::Handler = Arc::new(|request| {
        let path = request.start.split(' ').nth(1).unwrap_or_default();
        match path.rsplit('/').next().unwrap_or_default() {
            "twice" => serve::echo(request).with("X-Cost", "2").with("X-Cost", "11"),
            "agents" => serve::echo(request),
            cost => serve::echo(request).with("X-Cost", cost),
        }
    });
    let document = limiter(&json!({"cost_header": "x-cost"}));
    let gate = Gate::with(Plan { document, upstream, ..of_tenant(1000) });
    let mut left = left_after(&gate, &asking("GET", AGENTS));
    // What is no number, less than was charged, or as much, changes nothing; of two values the greater counts.
    for (said, costs) in [("41", 41), ("1", 1), ("0", 1), ("x", 1), ("-5", 1), ("twice", 11)] {
        let answer = gate.send(&asking("GET", &format!("{AGENTS}/{said}")));
        assert_eq!(told(&answer).unwrap().remaining, left - 1, "{said}: one before the answer");
        left -= 1;
        let due = costs - 1;
        let mut asked = 0;
        // The charge follows on a tick; each look costs one.
        wait::until(&format!("{said} is charged"), Duration::from_secs(20), || {
            asked += 1;
            let now = left_after(&gate, &asking("GET", AGENTS));
            assert!(now >= left - asked - due, "{said}: {now} of {left} after {asked}");
            Ok((now == left - asked - due).then_some(()))
        })
        .unwrap();
        left -= asked + due;
    }
    assert_eq!(left_after(&gate, &asking("GET", AGENTS)), left - 1, "and once");
}
