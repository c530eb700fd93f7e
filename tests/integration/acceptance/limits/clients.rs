//! R17, R18: whose failures are counted, and by what.

use gatehouse_tests::http::Request;
use serde_json::json;

use super::{AGENTS, LIMITED, Plan, asking, left_after, limiter, number, of_tenant};
use crate::acceptance::gate::{Gate, PUBLIC, get, with_claim};

const INVALID: &str = "401 token_invalid";

/// One proxy in front, and Envoy itself, which notes an address of its own where the peer is on the loopback.
const ONE_PROXY: u32 = 2;

/// A gate that lets one client fail three times, behind this many that note whom they forward for.
fn failing(trusted_hops: u32) -> Gate {
    let document = limiter(&json!({"failed_authn_per_minute": 3, "trusted_hops": trusted_hops}));
    Gate::with(Plan { document, ..of_tenant(50) })
}

fn from(request: Request, forwarded: &str) -> Request {
    request.header("X-Forwarded-For", forwarded)
}

#[test]
fn r17_a_credential_that_is_worth_nothing_is_charged_to_its_client_and_to_no_tenant() {
    let gate = failing(ONE_PROXY);
    let here = |request: Request| from(request, "198.51.100.4");
    let before = left_after(&gate, &here(asking("GET", AGENTS)));
    // No credential is no guess, and what may not be done is no failure of who it is.
    for _ in 0..5 {
        gate.denies(&here(get()), "401 credential_missing");
    }
    // Three kinds of failure, one budget; a token of the same tenant among them.
    gate.denies(&here(get().bearer("x.y.z")), INVALID);
    gate.denies(&here(get().bearer(&with_claim("exp", json!(1_000_000)))), INVALID);
    gate.denies(&here(get().bearer(&with_claim("aud", json!("https://other.local")))), INVALID);
    for _ in 0..3 {
        let refused = gate.denies(&here(get().bearer("x.y.z")), LIMITED);
        let after = number(&refused, "retry-after").unwrap();
        // The window, and the slot of it in which the last failure stands.
        assert!((1..=62).contains(&after), "{after}");
        assert_eq!(super::told(&refused), None, "no tenant's limit is told");
    }
    // A new credential from there is not even looked at; one that is known goes on, and elsewhere all is well.
    let unseen = with_claim("jti", json!("unseen"));
    gate.denies(&here(get().bearer(&unseen)), LIMITED);
    gate.denies(&here(get()), "401 credential_missing");
    assert_eq!(gate.verdict(&here(Request::new("GET", PUBLIC))), "200");
    assert_eq!(left_after(&gate, &here(asking("GET", AGENTS))), before - 1, "only its own");
    assert_eq!(left_after(&gate, &from(get().bearer(&unseen), "198.51.100.5")), before - 2);
    gate.sound();
}

#[test]
fn r18_only_forwarders_that_are_told_of_are_believed_and_ipv6_counts_by_network() {
    let gate = failing(ONE_PROXY);
    let bad = |forwarded: &str| from(get().bearer("x.y.z"), forwarded);
    for _ in 0..3 {
        gate.denies(&bad("6.6.6.6, 2001:db8:1:2::1"), INVALID);
    }
    // What stands before the last forwarder's word is the client's own, and changes nothing.
    for same in [
        "2001:db8:1:2::1",
        "9.9.9.9, 2001:db8:1:2::1",
        "9.9.9.9, 2001:db8:1:2:ffff:ffff:ffff:ffff",
        "unknown, 2001:DB8:1:2::7",
    ] {
        assert_eq!(gate.verdict(&bad(same)), LIMITED, "{same}");
    }
    // The nearest that are others.
    for other in ["2001:db8:1:3::1", "6.6.6.6", "2001:db8:1:2::1, 198.51.100.4"] {
        assert_eq!(gate.verdict(&bad(other)), INVALID, "{other}");
    }
    drop(gate);

    // No forwarder is told of: all of them are one client, whatever they say.
    let gate = failing(0);
    for n in 0..3 {
        gate.denies(&bad(&format!("198.51.100.{n}")), INVALID);
    }
    gate.denies(&bad("203.0.113.9"), LIMITED);
    gate.denies(&get().bearer("x.y.z"), LIMITED);
}
