//! Clients that fail to authenticate, peers that need no limit, and what is free.

use super::*;

fn world(limiter: Value) -> World {
    World::with(|document| document["limiter"] = limiter)
}

fn post(world: &mut World, bearer: &str) -> End {
    world.send("POST", AGENTS, &[("authorization", bearer)])
}

/// A token whose signature is somebody else's.
fn forged(number: u32) -> String {
    let mut token = claiming("n", Some(number.into()));
    let last = token.pop().unwrap();
    token.push(if last == 'A' { 'Q' } else { 'A' });
    let middle = token.len() - 20;
    let other = if token.as_bytes()[middle] == b'A' { "B" } else { "A" };
    token.replace_range(middle..=middle, other);
    token
}

#[test]
fn r17_failed_authentication_is_charged_to_the_client_and_not_to_the_tenant() {
    let mut world = world(json!({"failed_authn_per_minute": 3}));
    assert_eq!(post(&mut world, &good()).verdict(), "passed");
    for number in 0..3 {
        assert_eq!(post(&mut world, &forged(number)).verdict(), "401 token_invalid");
        assert!(!world.asked().contains(&"/v1/lease"), "the tenant pays nothing");
    }
    let end = post(&mut world, &forged(3));
    assert_eq!(end.verdict(), "429 quota_exceeded");
    assert_eq!(end.header("retry-after"), Some("61"));
    assert_eq!(end.header("x-envoy-ratelimited"), Some("true"));
    assert_eq!(end.header("x-ratelimit-limit"), None, "no limit of the tenant's");
    // No signature is looked at: a good token that nobody remembers waits, too.
    let fresh = claiming("n", Some(99.into()));
    assert_eq!(post(&mut world, &fresh).verdict(), "429 quota_exceeded");
    // Who is remembered goes on: many share an address.
    assert_eq!(post(&mut world, &good()).verdict(), "passed");
    // No credential is no guess, and the neighbour has a budget of its own.
    assert_eq!(world.send("POST", AGENTS, &[]).verdict(), "401 credential_missing");
    world.client = "[2001:db8:0:1::7]:4711".to_owned();
    assert_eq!(post(&mut world, &forged(4)).verdict(), "401 token_invalid");
    // The same network of 64 bits.
    world.client = "[2001:db8::8]:1".to_owned();
    assert_eq!(post(&mut world, &forged(5)).verdict(), "429 quota_exceeded");
    world.pass(Duration::from_secs(61));
    assert_eq!(post(&mut world, &forged(6)).verdict(), "401 token_invalid", "as Retry-After said");
}

#[test]
fn r17_a_key_that_the_record_does_not_know_counts_when_the_answer_comes() {
    let mut world = world(json!({"failed_authn_per_minute": 1}));
    let key = recorded::key();
    world.principal.0 = 401;
    let send = |world: &mut World| world.send("POST", AGENTS, &[("x-api-key", &key)]).verdict();
    assert_eq!(send(&mut world), "401 token_invalid");
    assert_eq!(world.asked(), ["/v1/principal"]);
    assert_eq!(send(&mut world), "429 quota_exceeded");
    assert_eq!(world.calls, [""; 0], "nobody is asked");
}

#[test]
fn r17_without_a_budget_nobody_is_counted() {
    let mut world = world(json!({}));
    for number in 0..50 {
        assert_eq!(post(&mut world, &forged(number)).verdict(), "401 token_invalid");
    }
}

#[test]
fn r18_the_client_is_who_the_trusted_forwarders_saw() {
    let mut world = world(json!({"failed_authn_per_minute": 1, "trusted_hops": 1}));
    let mut send = |forwarded: &str, number| {
        let bearer = forged(number);
        let headers = [("authorization", bearer.as_str()), ("x-forwarded-for", forwarded)];
        world.send("POST", AGENTS, &headers).verdict()
    };
    assert_eq!(send("198.51.100.1", 1), "401 token_invalid");
    assert_eq!(send("198.51.100.2", 2), "401 token_invalid");
    assert_eq!(send("198.51.100.3, 198.51.100.2", 3), "429 quota_exceeded", "spoofed");
    let mut world = super::failures::world(json!({"failed_authn_per_minute": 1}));
    let mut send = |forwarded: &str, number| {
        let bearer = forged(number);
        let headers = [("authorization", bearer.as_str()), ("x-forwarded-for", forwarded)];
        world.send("POST", AGENTS, &headers).verdict()
    };
    assert_eq!(send("198.51.100.1", 1), "401 token_invalid");
    assert_eq!(send("198.51.100.2", 2), "429 quota_exceeded", "nobody is trusted");
}

const PEER: &str = "spiffe://mesh.local/ns/factory/sa/worker";

#[test]
fn r15_a_verified_peer_passes_unlimited_authenticated_and_metered() {
    let mut world = world(json!({"bypass": {"spiffe_ids": [PEER]}}));
    world.check = json!({"allowed": false, "retry_after_s": 7, "limits": [
        {"name": "tenant", "limit": 60, "window_s": 60, "remaining": 0, "reset_s": 7},
    ]});
    assert_eq!(post(&mut world, &good()).verdict(), "429 quota_exceeded");
    world.peer = Some(PEER);
    for _ in 0..3 {
        let end = post(&mut world, &good());
        assert_eq!(end.verdict(), "passed");
        assert!(end.record().limit.is_none(), "no standing that it has not");
        assert!(!world.asked().contains(&"/v1/lease"));
    }
    world.told.clear();
    world.tick();
    let told = world.told.join("\n");
    assert!(
        told.starts_with("/v1/check ") && told.ends_with("\"cost\":1,\"forced\":true}"),
        "{told}"
    );
    // It still has to say who it is, and for whom.
    assert_eq!(world.send("POST", AGENTS, &[]).verdict(), "401 credential_missing");
    assert_eq!(post(&mut world, &forged(1)).verdict(), "401 token_invalid");
    for other in [
        "spiffe://mesh.local/ns/factory/sa/worker2",
        "spiffe://mesh.local/ns/factory/sa/work",
        "spiffe://evil.local/ns/factory/sa/worker",
        "spiffe://mesh.local/ns/factory/sa/Worker",
        "",
    ] {
        world.peer = Some(other);
        assert_eq!(post(&mut world, &good()).verdict(), "429 quota_exceeded", "{other}");
    }
}

#[test]
fn r15_where_no_peer_is_named_the_host_is_not_asked() {
    for (bypass, asks) in [(json!({}), 0), (json!({"bypass": {"spiffe_ids": [PEER]}}), 1)] {
        let asked = Cell::new(0);
        let peer = || {
            asked.set(asked.get() + 1);
            Some(PEER.to_owned())
        };
        let headers: [(&str, &str); 0] = [];
        let view = RequestView::new(&headers).with_peer(&peer);
        let internal = world(bypass).suite.is_internal(&view);
        assert_eq!((internal, asked.get()), (asks == 1, asks));
    }
}

#[test]
fn r15_no_header_makes_a_peer_internal_and_a_forged_certificate_goes_no_further() {
    let mut world = world(json!({"bypass": {"spiffe_ids": [PEER]}}));
    let uri = format!("By=x;Hash=y;URI={PEER}");
    let headers = [
        ("x-forwarded-client-cert", uri.as_str()),
        ("x-envoy-internal", "true"),
        ("x-forwarded-for", "127.0.0.1"),
    ];
    let mut all = vec![("authorization", good())];
    all.extend(headers.map(|(name, value)| (name, value.to_owned())));
    let all: Vec<(&str, &str)> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let end = world.send("POST", AGENTS, &all);
    assert_eq!(world.asked().last(), Some(&"/v1/lease"), "limited as anybody");
    assert!(!end.upstream().contains_key("x-forwarded-client-cert"));
    // On public routes and in any spelling, too.
    for name in ["X-Forwarded-Client-Cert", "x_forwarded_client_cert"] {
        let end = world.send("POST", "/oauth2/token", &[(name, &uri)]);
        assert!(end.upstream().keys().all(|seen| !seen.contains("cert")), "{name}");
    }
}

#[test]
fn r16_preflights_and_public_routes_are_free() {
    let mut world = world(json!({}));
    let origin = ("origin", "https://app.greenlang.local");
    let end = world.send("OPTIONS", AGENTS, &[origin, ("access-control-request-method", "POST")]);
    assert_eq!(end.verdict(), "passed");
    assert_eq!(world.calls, [""; 0]);
    let end = world.send("POST", "/oauth2/token", &[("authorization", &good())]);
    assert_eq!((end.verdict().as_str(), world.calls.len()), ("passed", 0));
}
