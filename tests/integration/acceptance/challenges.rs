//! J1–J5: which credential there is, and what a caller is told about it (RFC 6750 §3).

use gatehouse_contract::Role;
use gatehouse_tests::http::Request;
use serde_json::{Value, json};

use super::gate::{
    AGENTS, ALLOWED, Gate, PUBLIC, VIEWER, claims, get, member, signed, token, with_claim,
};

const BARE: &str = r#"Bearer realm="gatehouse""#;
const INVALID: &str = r#"Bearer realm="gatehouse", error="invalid_token", error_description="The access token is not valid""#;

#[test]
fn j1_no_credential_is_challenged_without_an_error() {
    let gate = Gate::open();
    let answer = gate.denies(&get(), "401 credential_missing");
    assert_eq!(answer.headers.all("www-authenticate"), [BARE]);
    assert_eq!(answer.headers.all("cache-control"), ["no-store"]);
    let saw = gate.allows(&get().bearer(&token()));
    assert_eq!(saw.start, format!("GET {AGENTS} HTTP/1.1"));
    let answer = gate.send(&get().bearer(&token()));
    assert_eq!(answer.headers.all("www-authenticate"), [""; 0]);
    // Nobody learns without a credential which paths there are.
    gate.denies(&Request::new("GET", "/api/v1/nowhere"), "401 credential_missing");
    gate.allows(&Request::new("GET", PUBLIC));
}

#[test]
fn j2_a_bad_token_gets_a_fixed_challenge_that_says_nothing_of_it() {
    let gate = Gate::open();
    let stranger = gatehouse_tests::token::Key::generate("key-1").unwrap();
    let secret = "hunter2-in-a-claim";
    let with = |exp: u64| {
        let mut claims = claims();
        claims["exp"] = json!(exp);
        claims["jti"] = json!(secret);
        claims
    };
    let now = super::gate::now_s();
    gate.allows(&get().bearer(&signed(&with(now + 60))));
    let expired = signed(&with(now - 90));
    let forged = stranger.jwt(&stranger.header(), &with(now + 60)).unwrap();
    for token in [expired.as_str(), &forged, "a.b.c", "x", "eyJhbGciOiJub25lIn0.e30."] {
        let answer = gate.denies(&get().bearer(token), "401 token_invalid");
        assert_eq!(answer.headers.all("www-authenticate"), [INVALID]);
        assert_eq!(answer.headers.all("cache-control"), ["no-store"]);
        assert_eq!(answer.json().unwrap().get("detail"), None);
        let text = String::from_utf8_lossy(&answer.bytes()).into_owned();
        let part = token.split('.').next_back().filter(|part| part.len() > 3);
        for leak in [Some(secret), Some(stranger.id.as_str()), part].into_iter().flatten() {
            assert!(!text.contains(leak), "{leak} in {text}");
        }
    }
    // Neither do the logs name it.
    let log = gate.envoy.process.log();
    assert!(!log.contains(secret) && !log.contains(&expired), "{log}");
}

#[test]
fn j3_a_role_that_does_not_reach_is_403_without_a_challenge() {
    let gate = Gate::open();
    let create = |token: &str| Request::new("POST", AGENTS).bearer(token).json(&json!({}));
    gate.allows(&create(&token()));
    let viewer = with_claim("sub", json!(VIEWER));
    gate.allows(&get().bearer(&viewer));
    let answer = gate.denies(&create(&viewer), "403 permission_denied");
    assert_eq!(answer.headers.all("www-authenticate"), [""; 0]);
    // A missing token is never 403, whatever the route.
    for (method, path) in [
        ("POST", AGENTS),
        ("POST", "/api/v1/factory/tenants"),
        ("DELETE", "/api/v1/registry/agents/x"),
        ("GET", "/api/v1/nowhere"),
    ] {
        gate.denies(&Request::new(method, path), "401 credential_missing");
    }
}

#[test]
fn j4_two_credentials_are_refused_and_none_of_them_is_chosen() {
    let gate = Gate::open();
    let (good, bad) = (token(), "x");
    for request in [
        get().bearer(&good).bearer(&good),
        get().bearer(&good).bearer(bad),
        get().bearer(bad).bearer(&good),
        get().header("Authorization", &format!("Bearer {good}, Bearer {bad}")),
        get().bearer(&good).header("authorization", "Basic eDp5"),
        get().header("Authorization", "Basic eDp5").bearer(&good),
    ] {
        let answer = gate.send(&request);
        let verdict = super::gate::verdict(&answer);
        // Envoy's HTTP/1 codec joins equal names: what then cannot be told from one broken token is 401.
        assert!(
            verdict == "400 credential_malformed" || verdict == "401 token_invalid",
            "{verdict}"
        );
        if verdict.starts_with("400") {
            let challenge = answer.header("www-authenticate");
            assert!(challenge.contains(r#"error="invalid_request""#), "{challenge}");
        }
    }
    let twice = get().bearer(&good).bearer(&good);
    gate.denies(&twice, "400 credential_malformed");
    // On public routes, too: the upstream might choose one.
    let public = Request::new("GET", PUBLIC).bearer(&good).bearer(bad);
    gate.denies(&public, "400 credential_malformed");
    gate.allows(&get().bearer(&good));
}

#[test]
fn j5_the_scheme_is_read_in_any_case_and_its_damage_is_refused() {
    let gate = Gate::open();
    let good = token();
    for (value, expected) in [
        (format!("Bearer {good}"), ALLOWED),
        (format!("bEARER {good}"), ALLOWED),
        (format!("BEARER {good}"), ALLOWED),
        (format!("Bearer   {good}"), ALLOWED),
        ("Bearer".to_owned(), "401 token_invalid"),
        ("Bearer  a b".to_owned(), "401 token_invalid"),
        (format!("Bearer {good} x"), "401 token_invalid"),
        (format!("Bearer {good},Basic b"), "401 token_invalid"),
        (format!("Bearer\t{good}"), "401 token_invalid"),
        (format!("Bearer {good};"), "401 token_invalid"),
        (format!("Bearer \"{good}\""), "401 token_invalid"),
        ("Basic eDp5".to_owned(), "401 credential_missing"),
        ("Negotiate".to_owned(), "401 credential_missing"),
        (format!("Token {good}"), "401 credential_missing"),
        (format!("Bearer-Token {good}"), "401 credential_missing"),
        (good.clone(), "401 credential_missing"),
        (String::new(), "401 credential_missing"),
    ] {
        let verdict = super::gate::verdict(&gate.send(&get().header("Authorization", &value)));
        assert_eq!(verdict, expected, "{value:?}");
    }
}

#[test]
fn j25_the_tenant_of_a_token_is_an_id_of_an_active_tenant() {
    let gate = Gate::open();
    let check = |claim: Value, expected: &str| {
        assert_eq!(gate.judges(&with_claim("tenant_id", claim.clone())), expected, "{claim}");
    };
    check(json!(super::gate::TENANT), ALLOWED);
    check(Value::Null, "403 tenant_missing");
    for broken in [json!("acme"), json!(""), json!(7), json!([]), json!({"id": 1})] {
        check(broken, "403 tenant_invalid");
    }
    check(json!(format!("{{{}}}", super::gate::TENANT)), "403 tenant_invalid");
    // A sound id of nobody: the record knows no such member.
    check(json!("0191d6b0-7c3e-7aaa-8bbb-0123456789ff"), "403 tenant_invalid");
    let inactive = "0191d6b0-7c3e-7aaa-8bbb-0123456789b0";
    let mut facts = member(inactive, super::gate::SUBJECT, &[Role::Admin]);
    facts.status = gatehouse_contract::TenantStatus::Suspended;
    gate.outside().members.insert((inactive.into(), super::gate::SUBJECT.into()), facts);
    check(json!(inactive), "403 tenant_inactive");
    // The refusals carry no challenge: another token of the same caller would be refused, too.
    let answer = gate.send(&get().bearer(&with_claim("tenant_id", json!(inactive))));
    assert_eq!(answer.headers.all("www-authenticate"), [""; 0]);
}
