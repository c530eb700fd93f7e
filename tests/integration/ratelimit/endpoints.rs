//! Which windows a request is charged to: its tenant's and its endpoint's, both or neither, by template and method.

use std::time::Duration;

use gatehouse_contract::{Tier, sidecar::CheckAsk};
use gatehouse_tests::{
    fleet::{ROUTE, Settings, ask, tenant},
    wait,
};

use super::{Stage, shown};

const AGENT: &str = "/api/v1/registry/agents/{agent}";

#[test]
fn r6_tenant_and_endpoint_are_charged_both_or_neither() {
    let endpoints = vec![("POST", ROUTE, 3), ("DELETE", AGENT, 4)];
    let settings = Settings { tiers: [6; 3], endpoints, ..Settings::default() };
    let stage = Stage::single(1, &settings);
    let (sidecar, tenant) = (&stage.fleet.sidecars[0], tenant());
    let post = |cost| sidecar.check(&ask(tenant, Tier::Free, "POST", cost)).unwrap();
    let delete = |cost| {
        let route = AGENT.to_owned();
        sidecar.check(&CheckAsk { route, ..ask(tenant, Tier::Free, "DELETE", cost) }).unwrap()
    };
    assert_eq!(shown(&post(2)), "+ endpoint 1/3 tenant 4/6");
    // More than the endpoint has left: the tenant is not charged either.
    assert_eq!(shown(&post(2)), "- endpoint 1/3 tenant 4/6");
    assert_eq!(shown(&post(1)), "+ endpoint 0/3 tenant 3/6");
    for _ in 0..5 {
        assert_eq!(shown(&post(1)), "- endpoint 0/3 tenant 3/6");
    }
    // More than the tenant has left: the other endpoint is not charged either.
    assert_eq!(shown(&delete(4)), "- tenant 3/6 endpoint 4/4");
    assert_eq!(shown(&delete(3)), "+ tenant 0/6 endpoint 1/4");
    assert_eq!(shown(&delete(1)), "- tenant 0/6 endpoint 1/4");
    assert_eq!(shown(&delete(0)), "- tenant 0/6 endpoint 1/4");
}

#[test]
fn r6_of_limits_that_are_equally_used_the_one_that_takes_longer_is_shown() {
    let endpoints = vec![("POST", ROUTE, 2)];
    let settings = Settings { tiers: [4; 3], endpoints, ..Settings::default() };
    let stage = Stage::single(1, &settings);
    let (sidecar, tenant) = (&stage.fleet.sidecars[0], tenant());
    let check = |method, cost| sidecar.check(&ask(tenant, Tier::Free, method, cost)).unwrap();
    assert_eq!(shown(&check("GET", 4)), "+ tenant 0/4 endpoint 9999996/10000000");
    // Nothing is left of the tenant's; an endpoint that has some left is less tight, whatever its reset.
    assert_eq!(shown(&check("POST", 1)), "- tenant 0/4 endpoint 2/2");
    let other = gatehouse_tests::fleet::tenant();
    let check = |method, cost| sidecar.check(&ask(other, Tier::Free, method, cost)).unwrap();
    assert!(check("GET", 2).allowed);
    let reset = |answer: gatehouse_contract::sidecar::CheckAnswer, name: &str| {
        answer.limits.iter().find(|limit| limit.name == name).map(|limit| limit.reset_s)
    };
    // Two slots of a second later the endpoint's window is filled, which then takes longer than the tenant's.
    wait::until_instant(std::time::Instant::now() + Duration::from_secs(3));
    let full = check("POST", 2);
    assert_eq!(shown(&full), "+ endpoint 0/2 tenant 0/4");
    assert!(reset(full.clone(), "endpoint") > reset(full, "tenant"));
}

#[test]
fn r7_windows_are_of_templates_and_methods_and_unknown_ones_share_one() {
    let endpoints = vec![("GET", AGENT, 5)];
    let settings = Settings { tiers: [1000; 3], endpoints, ..Settings::default() };
    let stage = Stage::single(1, &settings);
    let (sidecar, tenant) = (&stage.fleet.sidecars[0], tenant());
    let redis = stage.fleet.store.redis().unwrap();
    let check = |method: &str, route: &str| {
        let route = route.to_owned();
        sidecar.check(&CheckAsk { route, ..ask(tenant, Tier::Pro, method, 1) }).unwrap()
    };
    let left = |method: &str, route: &str| {
        let answer = check(method, route);
        answer.limits.iter().find(|limit| limit.name == "endpoint").map(|limit| limit.remaining)
    };
    assert_eq!(left("GET", AGENT), Some(4));
    assert_eq!(left("GET", AGENT), Some(3));
    // Another method of the same route counts for itself.
    assert_eq!(left("DELETE", AGENT), Some(9_999_999));
    let keys = || {
        let keys = redis.ask(&["--scan", "--pattern", &format!("rl:{{{tenant}}}:*")]).unwrap();
        let mut keys: Vec<String> = keys.lines().map(str::to_owned).collect();
        keys.sort_unstable();
        keys
    };
    let known = keys().len();
    // Whatever is no route of the product is one more window, however many there are and whatever they spell.
    for n in 0..200 {
        let route = format!("/no/such/{n}/}}:tenant:*\r\n{{{}}}", uuid::Uuid::new_v4());
        assert_eq!(left("GET", &route), Some(9_999_999 - n), "{route:?}");
    }
    assert_eq!(left("BREW", "/api"), Some(9_999_799));
    let keys = keys();
    assert_eq!(keys.len(), known + 1, "{keys:?}");
    for key in &keys {
        assert!(key.bytes().all(|byte| byte.is_ascii_graphic()), "{key:?}");
        assert_eq!(key.matches('{').count() - key.matches("{agent}").count(), 1, "{key}");
    }
}
