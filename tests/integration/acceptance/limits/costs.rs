//! R24: requests that cost more than one, by their route or by what the response says.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use gatehouse_tests::{
    http::serve::{self, response},
    wait,
};
use serde_json::json;

use super::{
    AGENTS, LIMITED, Plan, asking, charged, left_after, limiter, of_tenant, peek,
    refusals::try_again, told,
};
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

#[test]
fn r24_what_envoy_tries_again_is_charged_once_and_by_its_last_answer() {
    let attempts = Arc::new(AtomicU32::new(0));
    let made = Arc::clone(&attempts);
    // Every third attempt succeeds; those before it say that they cost more.
    let upstream: serve::Handler = Arc::new(move |request| {
        let attempt = made.fetch_add(1, Ordering::SeqCst) + 1;
        match (request.start.contains("/never"), attempt % 3) {
            (true, _) => response(503, &[("x-cost", "5")], ""),
            (false, 0) => serve::echo(request).with("X-Cost", "9"),
            (false, _) => response(503, &[("x-cost", "40")], ""),
        }
    });
    let gate = Gate::with(Plan {
        document: limiter(&json!({"cost_header": "x-cost"})),
        upstream,
        bootstrap: Box::new(|bootstrap| try_again(bootstrap, json!([]))),
        ..of_tenant(100)
    });
    assert_eq!(peek(&gate), 100);
    for n in 1..=3 {
        assert_eq!(gate.send(&asking("GET", AGENTS)).status().unwrap(), 200);
        assert_eq!(attempts.swap(0, Ordering::SeqCst), 3);
        charged(&gate, 9 * n);
    }
    let answer = gate.send(&asking("GET", &format!("{AGENTS}/never")));
    assert_eq!((answer.status().unwrap(), attempts.swap(0, Ordering::SeqCst)), (503, 4));
    charged(&gate, 27 + 5);
    // A charge that came twice would come with this one's.
    assert_eq!(gate.send(&asking("GET", AGENTS)).status().unwrap(), 200);
    charged(&gate, 27 + 5 + 9);
}

#[test]
fn r24_passes_that_are_handed_back_leave_exactly_what_was_used() {
    let mut plan = of_tenant(6000);
    plan.document = limiter(&json!({"leases": true}));
    plan.sidecar["limits"]["mode"] = json!("lease");
    let gate = Gate::with(plan);
    let sidecar = gate.sidecar.as_ref().unwrap();
    let passes = |holder: &str, state: &str| {
        let name = "gatehouse_ratelimit_lease_passes_total";
        sidecar.count(&format!("{name}{{holder=\"{holder}\",state=\"{state}\"}}"))
    };
    let mut sent = 0;
    wait::until("a VM hands passes back", Duration::from_secs(20), || {
        sent += 1;
        assert_eq!(gate.send(&asking("GET", AGENTS)).status().unwrap(), 200);
        Ok((passes("vm", "returned")? > 0).then_some(()))
    })
    .unwrap();
    // What was taken along at either level has an end. A VM says nothing of a lease that it used up; what it hands back
    // the sidecar had handed down, and hands on.
    wait::until("every pass is accounted for", Duration::from_secs(20), || {
        let back = passes("vm", "returned")?;
        for (holder, twice) in [("vm", 0), ("sidecar", back)] {
            let granted = passes(holder, "granted")?;
            let [used, returned, expired] =
                ["used", "returned", "expired"].map(|state| passes(holder, state).unwrap());
            let all =
                format!("{holder}: {granted}, {twice} twice, are {used}+{returned}+{expired}");
            anyhow::ensure!(used + returned + expired == granted + twice, "{all}");
        }
        Ok(Some(()))
    })
    .unwrap();
    assert_eq!(passes("sidecar", "expired").unwrap(), 0);
    assert_eq!(peek(&gate), 6000 - sent, "after {sent} requests");
}
