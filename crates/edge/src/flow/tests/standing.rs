//! What is remembered, and for how long it counts: revocation, silence, and a record that cannot be asked.

use gatehouse_authn::revocation;
use gatehouse_contract::sidecar::Denied;

use super::*;

fn send(world: &mut World, authorization: &str) -> String {
    world.send("GET", AGENTS, &[("authorization", authorization)]).verdict()
}

fn asks_first(world: &World) -> bool {
    world.asked().contains(&"/v1/principal")
}

#[test]
fn a_revoked_token_is_refused_from_the_next_answer_of_the_feed_and_its_neighbour_passes() {
    let mut world = World::new();
    let (one, other) = (claiming("jti", Some("1".into())), claiming("jti", Some("2".into())));
    assert_eq!(send(&mut world, &one), "passed");
    assert_eq!(send(&mut world, &other), "passed");
    let token = revocation::mark(ISSUER, "1");
    let until_s = NOW.as_secs() + 600;
    world.changes.push(Change::Deny(Denied::Token { token, until_s }));
    assert_eq!(send(&mut world, &one), "401 token_invalid");
    assert_eq!(send(&mut world, &other), "passed");
    assert!(!asks_first(&world));
}

#[test]
fn tokens_from_before_a_revocation_are_refused_and_later_ones_pass() {
    let mut world = World::new();
    let issued = |at: u64| claiming("iat", Some(at.into()));
    let now = NOW.as_secs();
    let (before, after) = (issued(now - 10), issued(now));
    assert_eq!(send(&mut world, &before), "passed");
    world.changes.push(Change::Deny(Denied::IssuedBefore {
        tenant: TENANT.parse().unwrap(),
        subject: "s".to_owned(),
        before_s: now,
        until_s: now + 600,
    }));
    assert_eq!(send(&mut world, &before), "401 token_invalid");
    assert_eq!(send(&mut world, &claiming("iat", None)), "401 token_invalid");
    assert_eq!(send(&mut world, &after), "passed");
}

#[test]
fn the_question_for_a_principal_tells_the_record_which_token_asks() {
    let mut world = World::new();
    send(&mut world, &claiming("jti", Some("7".into())));
    let asked = world.calls.iter().find_map(|call| call.strip_prefix("/v1/principal ")).unwrap();
    let asked: Value = serde_json::from_str(asked).unwrap();
    assert_eq!(asked["token"], revocation::mark(ISSUER, "7"));
    assert_eq!(asked["issued_at_s"], NOW.as_secs());
    assert_eq!(asked["vouched"], false);
    world.changes.push(Change::Tenant { tenant: TENANT.parse().unwrap() });
    world.principal.0 = 401;
    assert_eq!(send(&mut world, &good()), "401 token_invalid", "revoked, says the record");
}

#[test]
fn a_changed_role_acts_on_the_next_request() {
    let mut world = World::new().roles(&[Role::Developer], false);
    let post =
        |world: &mut World| world.send("POST", AGENTS, &[("authorization", &good())]).verdict();
    assert_eq!(post(&mut world), "passed");
    world.principal.1.roles = Roles::NONE.with(Role::Viewer);
    assert_eq!(post(&mut world), "passed", "nobody said so yet");
    let (tenant, subject) = (TENANT.parse().unwrap(), "s".to_owned());
    world.changes.push(Change::Subject { tenant, subject });
    assert_eq!(post(&mut world), "403 permission_denied");
    assert_eq!(send(&mut world, &good()), "passed");
}

#[test]
fn in_silence_every_token_asks_and_a_known_one_goes_on_where_nobody_answers() {
    let mut world = World::new();
    let known = good();
    assert_eq!(send(&mut world, &known), "passed");
    world.alive = false;
    for (after_s, asks) in [(3, false), (29, false), (30, true)] {
        world.now = NOW + Duration::from_secs(after_s);
        assert_eq!(send(&mut world, &known), "passed");
        assert_eq!(asks_first(&world), asks, "after {after_s} s");
    }
    world.away = vec!["/v1/principal", "/v1/jwks"];
    world.now = NOW + Duration::from_secs(200);
    assert_eq!(send(&mut world, &known), "passed");
    let fresh = claiming("exp", Some((NOW.as_secs() + 500).into()));
    assert_eq!(send(&mut world, &fresh), "503 identity_unavailable", "never a silent pass");
    world.now = NOW + Duration::from_secs(299);
    assert_eq!(send(&mut world, &known), "passed");
    world.now = NOW + Duration::from_secs(300);
    assert_eq!(send(&mut world, &known), "503 identity_unavailable");
    world.away.clear();
    assert_eq!(send(&mut world, &known), "passed", "asked, and answered");
    world.away = vec!["/v1/principal"];
    assert_eq!(send(&mut world, &known), "503 identity_unavailable");
    world.alive = true;
    world.away.clear();
    assert_eq!(send(&mut world, &known), "passed");
}

#[test]
fn silence_may_be_configured_down_to_none_and_not_up() {
    let mut world = World::with(|document| document["sidecar"]["max_silence_s"] = 0.into());
    assert_eq!(send(&mut world, &good()), "passed");
    world.alive = false;
    world.away = vec!["/v1/principal"];
    world.now = NOW + Duration::from_secs(29);
    assert_eq!(send(&mut world, &good()), "passed");
    world.now = NOW + Duration::from_secs(30);
    assert_eq!(send(&mut world, &good()), "503 identity_unavailable");
}

#[test]
fn a_vm_that_never_heard_the_feed_asks_before_every_use() {
    let mut world = World::new();
    world.away = vec!["/v1/changes"];
    for _ in 0..3 {
        assert_eq!(send(&mut world, &good()), "passed");
        assert!(asks_first(&world));
    }
    world.away = vec!["/v1/changes", "/v1/principal"];
    assert_eq!(send(&mut world, &good()), "503 identity_unavailable");
    world.away.clear();
    assert_eq!(send(&mut world, &good()), "passed");
}

#[test]
fn a_known_token_goes_on_while_the_record_is_away_and_a_dropped_one_does_not() {
    let mut world = World::new();
    assert_eq!(send(&mut world, &good()), "passed");
    world.away = vec!["/v1/principal"];
    world.now = NOW + Duration::from_secs(6);
    assert_eq!(send(&mut world, &good()), "passed", "its facts are old, and nobody named them");
    world.changes.push(Change::Tenant { tenant: TENANT.parse().unwrap() });
    assert_eq!(send(&mut world, &good()), "503 identity_unavailable");
}
