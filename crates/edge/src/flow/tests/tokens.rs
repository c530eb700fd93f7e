//! Credentials, tokens and keys.

use super::*;

fn check(world: &mut World, authorization: &str, expected: &str) {
    let end = world.send("GET", AGENTS, &[("authorization", authorization)]);
    assert_eq!(end.verdict(), expected, "{authorization}");
}

#[test]
fn j1_a_missing_credential_is_challenged_without_an_error() {
    let mut world = World::new();
    let end = world.send("GET", AGENTS, &[]);
    assert_eq!(end.verdict(), "401 credential_missing");
    assert_eq!(end.header("www-authenticate"), Some("Bearer realm=\"gatehouse\""));
    assert_eq!(end.header("cache-control"), Some("no-store"));
    assert_eq!(end.problem()["status"], 401);
    assert!(world.calls.is_empty(), "{:?}", world.calls);
    check(&mut world, &good(), "passed");
}

#[test]
fn j2_a_bad_token_gets_a_fixed_challenge_that_says_nothing_of_it() {
    let good = good();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", "A".repeat(signature.len()));
    let mut world = World::new();
    let mut challenges = std::collections::BTreeSet::new();
    for bad in [
        forged,
        claiming("exp", Some((NOW.as_secs() - 60).into())),
        claiming("exp", None),
        claiming("nbf", Some((NOW.as_secs() + 61).into())),
        claiming("aud", Some("https://other".into())),
        claiming("aud", None),
        claiming("iss", Some(format!("{ISSUER}/").into())),
        "Bearer a.b.c".to_owned(),
    ] {
        let end = world.send("GET", AGENTS, &[("authorization", &bad)]);
        assert_eq!(end.verdict(), "401 token_invalid", "{bad}");
        challenges.insert(end.header("www-authenticate").unwrap().to_owned());
        assert_eq!(end.problem().get("detail"), None);
    }
    let challenge = r#"Bearer realm="gatehouse", error="invalid_token", error_description="The access token is not valid""#;
    assert_eq!(Vec::from_iter(challenges), [challenge]);
    check(&mut world, &good, "passed");
    check(&mut world, &claiming("exp", Some((NOW.as_secs() - 59).into())), "passed");
}

#[test]
fn j21_a_token_is_judged_by_the_keys_and_rules_of_its_own_issuer() {
    let mut world = World::with(|document| {
        let mut other = document["issuers"][0].clone();
        other["issuer"] = "https://other.example".into();
        other["platform"] = false.into();
        other["tenants"] = "from_record".into();
        document["issuers"].as_array_mut().unwrap().insert(0, other);
    });
    check(&mut world, &good(), "passed");
    check(&mut world, &claiming("iss", Some("https://third.example".into())), "401 token_invalid");
}

#[test]
fn j4_two_credentials_are_refused_on_every_path() {
    let (good, mut world) = (good(), World::new());
    let twice = [("authorization", good.as_str()), ("Authorization", good.as_str())];
    for path in [AGENTS, "/oauth2/token", "/nothing"] {
        let end = world.send("POST", path, &twice);
        assert_eq!(end.verdict(), "400 credential_malformed", "{path}");
        assert!(end.header("www-authenticate").unwrap().contains("error=\"invalid_request\""));
    }
    let end = world.send("POST", "/oauth2/token", &[("authorization", &good)]);
    assert_eq!(end.verdict(), "passed");
}

#[test]
fn j5_the_scheme_is_bearer_in_any_case_and_others_are_no_credential() {
    let mut world = World::new();
    let token = sign("rsa", &claims());
    for (value, expected) in [
        (format!("bEARER {token}"), "passed"),
        (format!("Basic {token}"), "401 credential_missing"),
        (String::new(), "401 credential_missing"),
        ("Bearer".to_owned(), "401 token_invalid"),
        (format!("Bearer {token} x"), "401 token_invalid"),
        (format!("Bearer\t{token}"), "401 token_invalid"),
        (format!("Bearer {token},Basic b"), "401 token_invalid"),
    ] {
        check(&mut world, &value, expected);
    }
}

#[test]
fn j7_unsigned_tokens_and_algorithms_outside_the_list_are_refused() {
    let mut world = World::with(|document| {
        document["issuers"][0]["algorithms"] = json!(["RS256"]);
    });
    world.published = vec!["rsa", "ec"];
    check(&mut world, &good(), "passed");
    check(&mut world, &format!("Bearer {}", sign("ec", &claims())), "401 token_invalid");
    let claims = URL_SAFE_NO_PAD.encode(claims().to_string());
    for algorithm in ["none", "None", "HS256"] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": algorithm, "kid": "rsa"}).to_string());
        for signature in ["", "AAAA"] {
            let token = format!("Bearer {header}.{claims}.{signature}");
            check(&mut world, &token, "401 token_invalid");
        }
    }
}

#[test]
fn j13_an_unknown_kid_asks_once_and_a_rotated_key_passes() {
    let mut world = World::new();
    check(&mut world, &good(), "passed");
    let rotated = format!("Bearer {}", sign("ec", &claims()));
    check(&mut world, &rotated, "401 token_invalid");
    assert_eq!(
        world.calls,
        [format!("/v1/jwks?issuer={}&kid=ec", "https%3A%2F%2Fauth.greenlang.local")]
    );
    // Random ids meet the cool-down: no call-out each (J14).
    for _ in 0..3 {
        check(&mut world, &rotated, "401 token_invalid");
        assert!(world.calls.is_empty(), "{:?}", world.calls);
    }
    world.now += Duration::from_secs(1);
    world.published.push("ec");
    world.generation += 1;
    check(&mut world, &rotated, "passed");
    check(&mut world, &good(), "passed");
}

#[test]
fn j13_keys_that_cannot_be_asked_for_are_503_and_never_401() {
    let mut world = World::new();
    world.away = vec!["/v1/jwks"];
    for _ in 0..2 {
        let end = world.send("GET", AGENTS, &[("authorization", &good())]);
        assert_eq!(end.verdict(), "503 identity_unavailable");
        assert_eq!(end.header("retry-after"), Some("1"));
        assert_eq!(end.header("www-authenticate"), None);
    }
    world.away.clear();
    check(&mut world, &good(), "passed");
    world.away = vec!["/v1/jwks"];
    let unknown = format!("Bearer {}", sign("ec", &claims()));
    check(&mut world, &unknown, "503 identity_unavailable");
    check(&mut world, &unknown, "503 identity_unavailable");
    assert!(world.calls.is_empty(), "within the cool-down nobody is asked: {:?}", world.calls);
    check(&mut world, &good(), "passed");
}

#[test]
fn j16_a_withdrawn_key_ends_its_tokens_with_the_next_set() {
    let mut world = World::new();
    check(&mut world, &good(), "passed");
    (world.published, world.generation) = (vec!["ec"], 2);
    check(&mut world, &good(), "passed");
    world.now += Duration::from_secs(300);
    check(&mut world, &good(), "401 token_invalid");
}

#[test]
fn j19_without_a_sidecar_public_routes_pass_and_protected_ones_are_503() {
    let mut world = World::new();
    world.away = vec!["/"];
    let end = world.send("GET", "/.well-known/jwks.json", &[]);
    assert_eq!(end.verdict(), "passed");
    check(&mut world, &good(), "503 identity_unavailable");
}

#[test]
fn j31_a_known_token_costs_one_rate_check_and_no_more() {
    let mut world = World::new();
    check(&mut world, &good(), "passed");
    assert_eq!(world.asked(), ["/v1/jwks", "/v1/principal", "/v1/lease"]);
    check(&mut world, &good(), "passed");
    assert_eq!(world.asked(), ["/v1/lease"]);
    // The principal ages (principal_ttl_ms), the token does not.
    world.now += Duration::from_secs(59);
    check(&mut world, &good(), "passed");
    assert_eq!(world.asked(), ["/v1/lease"]);
    world.now += Duration::from_secs(1);
    check(&mut world, &good(), "passed");
    assert_eq!(world.asked(), ["/v1/principal", "/v1/lease"]);
    world.now = NOW + Duration::from_secs(660);
    check(&mut world, &good(), "401 token_invalid");
}
