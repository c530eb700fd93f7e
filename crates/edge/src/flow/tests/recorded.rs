//! API keys and browser sessions.

use super::*;

const SESSION: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

pub(super) fn key() -> String {
    let environment = "test".parse().unwrap();
    gatehouse_authn::api_key::compose(&environment, TENANT.parse().unwrap(), [7; 32])
}

fn world() -> World {
    let mut world = World::with(|document| document["sessions"] = true.into());
    world.principal.1.credential = Some("c".to_owned());
    world
}

fn both() -> [(&'static str, String, &'static str); 2] {
    [("x-api-key", key(), "api_key"), ("cookie", format!("__Host-gatehouse={SESSION}"), "session")]
}

#[test]
fn t9_every_kind_of_credential_gives_the_same_context() {
    let mut world = world();
    let mut shapes = std::collections::BTreeSet::new();
    for (name, value, method) in both().into_iter().chain([("authorization", good(), "jwt")]) {
        let end = world.send("GET", AGENTS, &[(name, &value), ("x-auth-method", "evil")]);
        let upstream = end.upstream();
        assert_eq!(upstream["x-auth-method"], [method]);
        shapes.insert(
            ["x-tenant-id", "x-tenant-tier", "x-user-id", "x-user-roles", "baggage"]
                .map(|name| upstream[name].join("|")),
        );
    }
    let expected =
        [TENANT, "pro", "s", "developer", &format!("tenant.id={TENANT}")].map(str::to_owned);
    assert_eq!(Vec::from_iter(shapes), [expected]);
}

#[test]
fn a_key_is_asked_about_once_in_the_body_with_the_clients_address() {
    let mut world = world();
    for (name, value, _) in both() {
        assert_eq!(world.send("GET", AGENTS, &[(name, &value)]).verdict(), "passed");
        let (path, body) = world.calls[0].split_once(' ').unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!((path, &body["client"]), ("/v1/principal", &json!("2001:db8::7")));
        assert_eq!(world.send("GET", AGENTS, &[(name, &value)]).verdict(), "passed");
        assert_eq!(world.asked(), ["/v1/lease"]);
    }
}

#[test]
fn what_has_not_the_form_of_a_credential_is_refused_without_a_call() {
    let mut world = world();
    let key = key();
    let twice = format!("{key},{key}");
    let changed = key.replace("test", "tesu");
    for bad in ["", "gk_", "a\u{e9}", &twice, &changed, &key[1..]] {
        let end = world.send("GET", AGENTS, &[("x-api-key", bad)]);
        assert_eq!(end.verdict(), "401 token_invalid", "{bad}");
        assert!(world.calls.is_empty(), "{bad}");
    }
    for bad in ["", "short", &SESSION[1..], &format!("{SESSION}A"), &format!("{}=", &SESSION[1..])]
    {
        let cookie = format!("__Host-gatehouse={bad}");
        let end = world.send("GET", AGENTS, &[("cookie", &cookie)]);
        assert_eq!(end.verdict(), "401 token_invalid", "{bad}");
        assert!(world.calls.is_empty(), "{bad}");
    }
}

#[test]
fn a_credential_that_the_record_does_not_know_is_worth_nothing_and_one_that_ended_too() {
    for (name, value, _) in both() {
        let mut world = world();
        world.principal.0 = 401;
        let end = world.send("GET", AGENTS, &[(name, &value)]);
        assert_eq!(end.verdict(), "401 token_invalid");
        assert!(end.header("www-authenticate").unwrap().contains("invalid_token"));
        world.principal.0 = 200;
        world.principal.1.expires_at_s = Some(NOW.as_secs() + 2);
        assert_eq!(world.send("GET", AGENTS, &[(name, &value)]).verdict(), "passed");
        world.now = NOW + Duration::from_secs(1);
        assert_eq!(world.send("GET", AGENTS, &[(name, &value)]).verdict(), "passed");
        assert_eq!(world.asked(), ["/v1/lease"]);
        world.now = NOW + Duration::from_secs(2);
        let end = world.send("GET", AGENTS, &[(name, &value)]);
        assert_eq!(end.verdict(), "401 token_invalid", "expires_at == now has ended");
    }
}

#[test]
fn a_keys_scopes_narrow_what_its_roles_open() {
    let mut world = world().roles(&[Role::Developer], false);
    world.principal.1.scopes = Some(vec!["agents:read".to_owned()]);
    let key = key();
    assert_eq!(world.send("GET", AGENTS, &[("x-api-key", &key)]).verdict(), "passed");
    let end = world.send("POST", AGENTS, &[("x-api-key", &key)]);
    assert_eq!(end.verdict(), "403 permission_denied");
    assert_eq!(end.header("www-authenticate"), None);
    assert_eq!(end.record().decision.unwrap().ruling, crate::Ruling::KeyNarrowed);
}

#[test]
fn a_suspended_caller_or_tenant_may_nothing() {
    for (name, value, _) in both().into_iter().chain([("authorization", good(), "jwt")]) {
        let mut world = world();
        world.principal.1.suspended = true;
        let end = world.send("GET", AGENTS, &[(name, &value)]);
        assert_eq!(end.verdict(), "403 principal_inactive");
        let mut world = World::with(|document| document["sessions"] = true.into());
        world.principal.1.status = TenantStatus::Suspended;
        let end = world.send("GET", AGENTS, &[(name, &value)]);
        assert_eq!(end.verdict(), "403 tenant_inactive");
    }
}

#[test]
fn a_changed_key_is_asked_about_again_and_a_record_that_is_away_opens_nothing() {
    let mut world = world();
    let key = key();
    let send = |world: &mut World| world.send("GET", AGENTS, &[("x-api-key", &key)]).verdict();
    assert_eq!(send(&mut world), "passed");
    world.changes.push(Change::Credential { credential: "c".to_owned() });
    world.principal.0 = 401;
    assert_eq!(send(&mut world), "401 token_invalid");
    world.principal.0 = 200;
    assert_eq!(send(&mut world), "passed");
    // Silence: a key asks before use, and where nobody answers, it is 503 at once (design §3.1).
    world.alive = false;
    world.now = NOW + Duration::from_secs(31);
    assert_eq!(send(&mut world), "passed");
    assert_eq!(world.asked(), ["/v1/principal", "/v1/lease"]);
    world.away = vec!["/v1/principal"];
    assert_eq!(send(&mut world), "503 identity_unavailable");
    world.away.clear();
    world.alive = true;
    assert_eq!(send(&mut world), "passed");
}

#[test]
fn keys_and_sessions_that_are_not_taken_are_no_credential() {
    let mut world = World::with(|document| {
        document["api_keys"] = false.into();
        document["sessions"] = false.into();
    });
    for (name, value, _) in both() {
        let end = world.send("GET", AGENTS, &[(name, &value)]);
        assert_eq!(end.verdict(), "401 credential_missing", "{name}");
        assert!(world.calls.is_empty());
    }
}
