//! J20–J23: times, issuers, audiences and kinds of tokens.

use std::process::Command;

use gatehouse_tests::{
    env,
    envoy::configuration,
    token::{Key, jwks},
    wait,
};
use serde_json::{Value, json};

use super::gate::{
    ALLOWED, AUDIENCE, Gate, ISSUER, Plan, claims, document, issuer, key, now_s, signed, token,
    with_claim, with_header,
};

const INVALID: &str = "401 token_invalid";

/// What Envoy says of a document that it refuses; `None` if it takes it.
pub fn refused(document: &Value) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let nobody = wait::address().unwrap();
    let suite = env::path(env::SUITE).unwrap();
    let config = configuration(dir.path(), &suite, document, nobody, nobody).unwrap();
    let mut envoy = Command::new(env::path(env::ENVOY).unwrap());
    envoy.args(["--mode", "validate", "--config-path"]).arg(&config.file);
    let output = envoy.output().unwrap();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn j20_times_are_numbers_within_bounds_and_the_leeway_counts_once() {
    let gate = Gate::open();
    let now = now_s();
    let check = |name: &str, value: Value, expected: &str| {
        assert_eq!(gate.judges(&with_claim(name, value.clone())), expected, "{name}: {value}");
    };
    // The leeway is 60 s; the clock goes on while this test runs.
    for (name, value, expected) in [
        ("exp", json!(now + 30), ALLOWED),
        ("exp", json!(now as f64 + 30.5), ALLOWED),
        ("exp", json!(now - 30), ALLOWED),
        ("exp", json!(now - 60), INVALID),
        ("exp", json!(now - 90), INVALID),
        ("exp", Value::Null, INVALID),
        ("exp", json!((now + 30).to_string()), INVALID),
        ("exp", json!(-1), INVALID),
        ("exp", json!(true), INVALID),
        ("exp", json!([now + 30]), INVALID),
        ("exp", json!(9_007_199_254_740_993_u64), INVALID),
        ("exp", json!(1e300), INVALID),
        ("nbf", json!(now), ALLOWED),
        ("nbf", json!(now + 50), ALLOWED),
        ("nbf", json!(now + 90), INVALID),
        ("nbf", json!("0"), INVALID),
        ("nbf", json!(-1), INVALID),
        ("nbf", Value::Null, ALLOWED),
        ("iat", json!(now - 100), ALLOWED),
        ("iat", json!(now + 50), ALLOWED),
        ("iat", json!(now + 120), INVALID),
        ("iat", json!("x"), INVALID),
    ] {
        check(name, value, expected);
    }
    // Beyond what a double holds: the number ends the whole document.
    let text = claims().to_string().replace(&format!("{}", claims()["exp"]), "1e400");
    assert!(text.contains("1e400"));
    let part = |text: &str| {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    let text = format!("{}.{}", part(&key().header().to_string()), part(&text));
    let signature = key().sign(text.as_bytes()).unwrap();
    let huge = {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(signature)
    };
    assert_eq!(gate.judges(&format!("{text}.{huge}")), INVALID);
    drop(gate);

    let strict = Gate::document(issuer(&json!({"leeway_s": 0})));
    assert_eq!(strict.judges(&with_claim("exp", json!(now_s() + 30))), ALLOWED);
    assert_eq!(strict.judges(&with_claim("exp", json!(now_s()))), INVALID);
    assert_eq!(refused(&issuer(&json!({"leeway_s": 300}))), None);
    let said = refused(&issuer(&json!({"leeway_s": 301}))).unwrap();
    assert!(said.contains("$.issuers[0].leeway_s"), "{said}");
}

#[test]
fn j21_issuers_are_told_apart_byte_by_byte_and_share_no_keys() {
    const SECOND: &str = "https://second.greenlang.local";
    let mut document = document();
    let mut second = document["issuers"][0].clone();
    second["issuer"] = json!(SECOND);
    second["platform"] = json!(false);
    second["tenants"] = json!("from_record");
    document["issuers"].as_array_mut().unwrap().push(second);
    // The same id at both: nothing but the issuer tells the keys apart.
    let theirs = Key::generate("key-1").unwrap();
    let gate = Gate::with(Plan {
        document: document.clone(),
        issuers: vec![SECOND.to_owned()],
        keys: vec![(SECOND.to_owned(), 200, jwks(&[&theirs]).unwrap())],
        ..Plan::default()
    });
    let by = |key: &Key, issuer: &str| {
        let mut claims = claims();
        claims["iss"] = json!(issuer);
        key.jwt(&key.header(), &claims).unwrap()
    };
    for (key, issuer, expected) in [
        (key(), ISSUER, ALLOWED),
        (&theirs, SECOND, ALLOWED),
        (key(), SECOND, INVALID),
        (&theirs, ISSUER, INVALID),
        (key(), "https://auth.greenlang.local/", INVALID),
        (key(), "https://AUTH.greenlang.local", INVALID),
        (key(), "http://auth.greenlang.local", INVALID),
        (key(), "https://auth.greenlang.local:443", INVALID),
        (key(), "", INVALID),
    ] {
        assert_eq!(gate.judges(&by(key, issuer)), expected, "{issuer}");
    }
    assert_eq!(gate.judges(&with_claim("iss", Value::Null)), INVALID);
    assert_eq!(gate.judges(&with_claim("iss", json!([ISSUER]))), INVALID);
    drop(gate);

    assert_eq!(refused(&document), None);
    document["issuers"][1]["issuer"] = json!(ISSUER);
    let said = refused(&document).unwrap();
    assert!(said.contains("$.issuers[1].issuer"), "{said}");
}

#[test]
fn j22_an_audience_is_wanted_as_it_is_written() {
    let gate = Gate::open();
    for (aud, expected) in [
        (json!(AUDIENCE), ALLOWED),
        (json!([AUDIENCE]), ALLOWED),
        (json!(["https://other.local", AUDIENCE]), ALLOWED),
        (json!("https://other.local"), INVALID),
        (json!(["https://other.local"]), INVALID),
        (json!("https://API.greenlang.local"), INVALID),
        (json!(format!("{AUDIENCE}/")), INVALID),
        (json!(format!("{AUDIENCE},x")), INVALID),
        (json!(""), INVALID),
        (json!([]), INVALID),
        (json!([[AUDIENCE]]), INVALID),
        (json!([AUDIENCE, 7]), INVALID),
        (json!(7), INVALID),
        (json!({"aud": AUDIENCE}), INVALID),
        (Value::Null, INVALID),
    ] {
        assert_eq!(gate.judges(&with_claim("aud", aud.clone())), expected, "{aud}");
    }
    assert!(!gate.envoy.process.log().contains("issuers[0].audiences"));
    drop(gate);
    // Without an audience configured every token passes, and the log says so at load.
    let open = Gate::document(issuer(&json!({"audiences": []})));
    assert_eq!(open.judges(&with_claim("aud", json!("https://other.local"))), ALLOWED);
    let log = open.envoy.process.log();
    assert!(log.contains("$.issuers[0].audiences"), "{log}");
}

#[test]
fn j23_only_access_tokens_are_access_tokens() {
    let gate = Gate::open();
    for (typ, expected) in [
        (json!("at+jwt"), ALLOWED),
        (json!("application/at+jwt"), ALLOWED),
        (json!("AT+JWT"), ALLOWED),
        (json!("JWT"), ALLOWED),
        (Value::Null, ALLOWED),
        (json!("JWT+id"), INVALID),
        (json!("logout+jwt"), INVALID),
        (json!("dpop+jwt"), INVALID),
        (json!(""), INVALID),
        (json!(7), INVALID),
    ] {
        assert_eq!(gate.judges(&with_header("typ", typ.clone())), expected, "{typ}");
    }
    drop(gate);
    let strict = Gate::document(issuer(&json!({"access_tokens_only": true})));
    for (typ, expected) in [
        (json!("at+jwt"), ALLOWED),
        (json!("application/at+jwt"), ALLOWED),
        (json!("JWT"), INVALID),
        (Value::Null, INVALID),
    ] {
        assert_eq!(strict.judges(&with_header("typ", typ.clone())), expected, "{typ}");
    }
    // What only ID tokens carry, whatever the type says.
    for claim in ["nonce", "at_hash"] {
        let mut claims = claims();
        claims[claim] = json!("x");
        assert_eq!(strict.judges(&signed(&claims)), INVALID, "{claim}");
    }
    assert_eq!(strict.judges(&token()), ALLOWED);
}
