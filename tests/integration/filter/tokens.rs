//! Tokens of every kind, through both signature paths: the host's own verifier and the portable one.
//! The vectors are the same, the verdicts must be.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use gatehouse_tests::{
    token::{Key, jwks, unsigned},
    vm::Standing,
};
use serde_json::{Value, json};

use super::gate::{Fate, Gate, NOW_S, claims, document, key, replied, request, start, token};

const GOOD: &str = "forwarded";
const INVALID: &str = "401 invalid_token";

/// The claims with one replaced or, by null, removed.
fn changed(name: &str, value: Value) -> String {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    key().jwt(&key().header(), &claims).unwrap()
}

fn header(name: &str, value: Value) -> String {
    let mut header = key().header();
    match value {
        Value::Null => drop(header.as_object_mut().unwrap().remove(name)),
        value => header[name] = value,
    }
    key().jwt(&header, &claims()).unwrap()
}

fn vectors() -> Vec<(&'static str, String, &'static str)> {
    let good = token();
    let other = Key::generate("key-1").unwrap();
    let (text, signature) = good.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let with = |signature: &[u8]| format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature));
    let mut flipped = signature.clone();
    flipped[100] ^= 1;
    let longer: Vec<u8> = [&[0], signature.as_slice()].concat();
    let public = key().spki().unwrap();
    let hs256 = {
        let header = json!({"alg": "HS256", "typ": "at+jwt", "kid": "key-1"});
        let text = unsigned(&header, &claims());
        let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &public);
        let tag = aws_lc_rs::hmac::sign(&secret, text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    };
    let none = |alg: &str| format!("{}.", unsigned(&json!({"alg": alg}), &claims()));
    vec![
        ("good", good.clone(), GOOD),
        ("a list of audiences", changed("aud", json!(["x", super::gate::AUDIENCE])), GOOD),
        ("expired, within the leeway", changed("exp", json!(NOW_S - 59)), GOOD),
        ("expired at the leeway's end", changed("exp", json!(NOW_S - 60)), INVALID),
        ("expired", changed("exp", json!(NOW_S - 3600)), INVALID),
        ("no expiry", changed("exp", Value::Null), INVALID),
        ("expiry as text", changed("exp", json!("1900000000")), INVALID),
        ("negative expiry", changed("exp", json!(-1)), INVALID),
        ("not yet valid", changed("nbf", json!(NOW_S + 61)), INVALID),
        ("issued in the future", changed("iat", json!(NOW_S + 3600)), INVALID),
        ("wrong audience", changed("aud", json!("https://other.local")), INVALID),
        ("no audience", changed("aud", Value::Null), INVALID),
        ("audience in other case", changed("aud", json!("https://API.greenlang.local")), INVALID),
        ("wrong issuer", changed("iss", json!("https://evil.local")), INVALID),
        ("issuer with a slash", changed("iss", json!("https://auth.greenlang.local/")), INVALID),
        ("no issuer", changed("iss", Value::Null), INVALID),
        (
            "forged by another key of the same id",
            other.jwt(&key().header(), &claims()).unwrap(),
            INVALID,
        ),
        ("one bit of the signature", with(&flipped), INVALID),
        ("signature cut short", with(&signature[1..]), INVALID),
        ("signature too long", with(&longer), INVALID),
        ("no signature", format!("{text}."), INVALID),
        ("two parts", text.to_owned(), INVALID),
        ("five parts", format!("{good}.a.b"), INVALID),
        ("none", none("none"), INVALID),
        ("nOnE", none("nOnE"), INVALID),
        ("none over a signature", key().jwt(&json!({"alg": "none"}), &claims()).unwrap(), INVALID),
        ("the public key as an HMAC secret", hs256, INVALID),
        ("another algorithm's name", header("alg", json!("RS512")), INVALID),
        ("no algorithm", header("alg", Value::Null), INVALID),
        ("critical extension", header("crit", json!(["exp"])), INVALID),
        ("unencoded payload", header("b64", json!(false)), INVALID),
        ("an ID token's type", header("typ", json!("JWT+id")), INVALID),
        ("a key of its own", header("jwk", key().jwk().unwrap()), GOOD),
        ("padded", format!("{good}=="), INVALID),
        ("empty", String::new(), INVALID),
        ("no token at all", "x".to_owned(), INVALID),
        ("tenant missing", changed("tenant_id", Value::Null), "403 tenant_missing"),
        ("tenant is no id", changed("tenant_id", json!("acme")), "403 tenant_invalid"),
        (
            "tenant with a line break",
            changed("tenant_id", json!("a\r\nx: y")),
            "403 tenant_invalid",
        ),
    ]
}

/// What became of a request with `token`.
fn verdict(gate: &mut Gate, token: &str) -> String {
    let bearer = format!("Bearer {token}");
    match gate.send(&request("GET", "/api/v1/registry/agents", Some(&bearer))) {
        Standing::Forwarded(_) => GOOD.to_owned(),
        Standing::Held => "held".to_owned(),
        standing @ Standing::Replied(_) => {
            let reply = replied(standing);
            let challenge = reply.headers.one("www-authenticate").unwrap_or_default();
            let body: Value = serde_json::from_slice(&reply.body).unwrap();
            if reply.status == 401 {
                // J2: a fixed description; nothing of the token or of a library.
                assert_eq!(
                    challenge,
                    r#"Bearer realm="gatehouse", error="invalid_token", error_description="The access token is not valid""#
                );
                assert_eq!(body["code"], "token_invalid");
                assert_eq!(body.get("detail"), None);
                return INVALID.to_owned();
            }
            assert_eq!(challenge, "");
            format!("{} {}", reply.status, body["code"].as_str().unwrap())
        }
    }
}

#[test]
fn both_signature_paths_give_the_same_verdicts() {
    let mut portable = document();
    portable["signatures"] = json!("portable");
    let vectors = vectors();
    for (path, mut gate) in [
        ("native", Gate::with(&document(), true)),
        ("portable by switch", Gate::with(&portable, true)),
        ("portable for want of the host's", Gate::with(&document(), false)),
    ] {
        for (name, token, expected) in &vectors {
            assert_eq!(verdict(&mut gate, token), *expected, "{path}: {name}");
        }
        // The good one again, now from what the VM remembers, and a bad one beside it.
        assert_eq!(verdict(&mut gate, &vectors[0].1), GOOD, "{path}: remembered");
        assert_eq!(verdict(&mut gate, &vectors[16].1), INVALID, "{path}: forged, after the good");
    }
}

#[test]
fn the_native_path_is_taken_when_it_is_there_and_its_absence_is_said() {
    let mut natively = start(true);
    assert!(natively.configure(&document().to_string()).unwrap());
    let probed = natively.take_counts()["proxy_call_foreign_function"].calls;
    assert!(probed >= 1, "a known vector is tried at configure time");
    assert_eq!(natively.take_log().iter().filter(|line| line.level >= 3).count(), 0);

    let mut without = start(false);
    assert!(without.configure(&document().to_string()).unwrap());
    let warnings: Vec<_> = without.take_log().into_iter().filter(|l| l.level >= 3).collect();
    assert!(
        warnings.len() == 1 && warnings[0].text.contains("signatures are checked in the module"),
        "{warnings:?}"
    );

    for (native, expected) in [(true, 1), (false, 0)] {
        let mut document = document();
        document["signatures"] = json!(if native { "native" } else { "portable" });
        let mut gate = Gate::with(&document, true);
        gate.vm.take_counts();
        assert_eq!(verdict(&mut gate, &token()), GOOD);
        let calls = gate.vm.take_counts().get("proxy_call_foreign_function").map_or(0, |c| c.calls);
        assert_eq!(calls, expected, "native: {native}");
    }
}

#[test]
fn j13_an_unknown_key_is_asked_for_once_and_then_used() {
    let mut gate = Gate::open();
    assert_eq!(verdict(&mut gate, &token()), GOOD);
    gate.take_asked();
    let next = Key::generate("key-2").unwrap();
    let rotated = next.jwt(&next.header(), &claims()).unwrap();
    // Not published yet: one question, then none within the cool-down.
    assert_eq!(verdict(&mut gate, &rotated), INVALID);
    let asked = gate.take_asked();
    assert_eq!(asked, ["GET /v1/jwks?issuer=https%3A%2F%2Fauth.greenlang.local&kid=key-2"]);
    assert_eq!(verdict(&mut gate, &rotated), INVALID);
    assert_eq!(gate.take_asked(), [""; 0]);
    // Published: after the cool-down it is found, and the old one goes on.
    gate.pass(Duration::from_secs(60));
    gate.sidecar.keys = Fate::Says(super::gate::keys_answer(&[key(), &next]));
    assert_eq!(verdict(&mut gate, &rotated), GOOD);
    assert_eq!(verdict(&mut gate, &token()), GOOD);
}

#[test]
fn j16_a_withdrawn_key_ends_what_is_remembered() {
    let mut gate = Gate::open();
    assert_eq!(verdict(&mut gate, &token()), GOOD);
    let next = Key::generate("key-2").unwrap();
    let mut keys = super::gate::keys_answer(&[&next]);
    keys["generation"] = json!(2);
    gate.sidecar.keys = Fate::Says(keys);
    // The set may be used for 300 s without asking again.
    gate.pass(Duration::from_secs(299));
    assert_eq!(verdict(&mut gate, &token()), GOOD);
    gate.pass(Duration::from_secs(1));
    assert_eq!(verdict(&mut gate, &token()), INVALID);
}

#[test]
fn j31_what_is_remembered_ends_with_the_token() {
    let mut gate = Gate::open();
    assert_eq!(verdict(&mut gate, &token()), GOOD);
    // It has 890 s left, and 60 more by the leeway.
    gate.pass(Duration::from_secs(949));
    assert_eq!(verdict(&mut gate, &token()), GOOD);
    gate.pass(Duration::from_secs(1));
    assert_eq!(verdict(&mut gate, &token()), INVALID);
}

#[test]
fn j11_unfit_keys_are_left_out_and_the_rest_serves() {
    let fit = key().jwk().unwrap();
    let check = |field: &str, value: Value, expected: &str| {
        let mut unfit = fit.clone();
        unfit[field] = value;
        let jwks = json!({"keys": [unfit]}).to_string();
        let mut gate = Gate::open();
        gate.sidecar.keys = Fate::Says(json!({"generation": 1, "jwks": jwks, "max_age_ms": 1000}));
        assert_eq!(verdict(&mut gate, &token()), expected, "{field}");
    };
    check("use", json!("sig"), GOOD);
    check("use", json!("enc"), INVALID);
    check("alg", json!("RS512"), INVALID);
    check("kty", json!("EC"), INVALID);
    check("key_ops", json!(["sign"]), INVALID);
    check("e", json!("AQ"), INVALID);
    check("n", json!("AQAB"), INVALID);
    let mut set = jwks(&[key()]).unwrap();
    set["keys"].as_array_mut().unwrap().insert(0, json!({"kty": "unknown"}));
    let mut gate = Gate::open();
    gate.sidecar.keys =
        Fate::Says(json!({"generation": 1, "jwks": set.to_string(), "max_age_ms": 1000}));
    assert_eq!(verdict(&mut gate, &token()), GOOD);
}

#[test]
fn j5_schemes_and_their_damage() {
    let good = token();
    let check = |value: &str, expected: &str| {
        let mut gate = Gate::open();
        let standing = gate.send(&request("GET", "/api/v1/registry/agents", Some(value)));
        let got = match standing {
            Standing::Forwarded(_) => GOOD.to_owned(),
            standing => {
                let reply = replied(standing);
                let body: Value = serde_json::from_slice(&reply.body).unwrap();
                format!("{} {}", reply.status, body["code"].as_str().unwrap())
            }
        };
        assert_eq!(got, expected, "{value:?}");
    };
    check(&format!("bEARER {good}"), GOOD);
    check("Bearer", "401 token_invalid");
    check("Bearer ", "401 token_invalid");
    check(&format!("Bearer {good} x"), "401 token_invalid");
    check(&format!("Bearer {good},Basic b"), "401 token_invalid");
    check(&format!("Bearer\t{good}"), "401 token_invalid");
    check("Basic eDp5", "401 credential_missing");
    check("", "401 credential_missing");
}
