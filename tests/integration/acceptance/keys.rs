//! J11, J12: which keys of a published set verify what.

use gatehouse_tests::token::{Ec, Key};
use serde_json::{Value, json};

use super::gate::{ALLOWED, Gate, ISSUER, Plan, claims, document, issuer, key, with_header};

const INVALID: &str = "401 token_invalid";

#[test]
fn j11_an_unfit_key_is_left_out_and_its_set_serves() {
    const LEAKY: &str = "https://leaky.greenlang.local";
    let mut document = document();
    document["issuers"][0]["algorithms"] = json!(["RS256", "ES256"]);
    let mut leaky = document["issuers"][0].clone();
    leaky["issuer"] = json!(LEAKY);
    leaky["platform"] = json!(false);
    leaky["tenants"] = json!("from_record");
    document["issuers"].as_array_mut().unwrap().push(leaky);
    let ec = Ec::generate("ec").unwrap();
    let rsa: [(&str, Value, &str); 12] = [
        ("use", json!("sig"), ALLOWED),
        ("use", json!("enc"), INVALID),
        ("use", json!(7), INVALID),
        ("key_ops", json!(["verify"]), ALLOWED),
        ("key_ops", json!(["sign"]), INVALID),
        ("key_ops", json!([]), INVALID),
        ("kty", json!("EC"), INVALID),
        ("kty", json!("unknown"), INVALID),
        ("alg", json!("RS512"), INVALID),
        ("e", json!("AQ"), INVALID),
        ("e", json!("AQAA"), INVALID),
        // 1024 bits.
        ("n", json!(format!("{}Q", "z".repeat(170))), INVALID),
    ];
    let curve: [(&str, Value, &str); 5] = [
        ("crv", json!("P-256"), ALLOWED),
        ("crv", json!("P-521"), INVALID),
        ("crv", json!("secp256k1"), INVALID),
        // Off the curve.
        ("y", ec.jwk().unwrap()["x"].clone(), INVALID),
        ("kty", json!("OKP"), INVALID),
    ];
    let mut keys = vec![json!({}), json!({"kty": "oct"})];
    let mut place = |jwk: Value, name: &str, value: &Value| {
        let kid = format!("{}-{}", name, keys.len());
        let mut jwk = jwk;
        jwk[name] = value.clone();
        jwk["kid"] = json!(kid);
        keys.push(jwk);
        kid
    };
    let rsa: Vec<(String, &str)> = rsa
        .iter()
        .map(|(name, value, expected)| (place(key().jwk().unwrap(), name, value), *expected))
        .collect();
    let curve: Vec<(String, &str)> = curve
        .iter()
        .map(|(name, value, expected)| (place(ec.jwk().unwrap(), name, value), *expected))
        .collect();
    // A set that publishes a private member is refused whole: whoever read it can sign.
    let mut private = key().jwk().unwrap();
    private["kid"] = json!("private");
    private["d"] = json!("AQAB");
    let leak = json!({"keys": [key().jwk().unwrap(), private]});
    let gate = Gate::with(Plan {
        document,
        issuers: vec![LEAKY.to_owned()],
        keys: vec![
            (ISSUER.to_owned(), 200, json!({ "keys": keys })),
            (LEAKY.to_owned(), 200, leak),
        ],
        ..Plan::default()
    });
    for (kid, expected) in rsa {
        assert_eq!(gate.judges(&with_header("kid", json!(kid))), expected, "{kid}");
    }
    for (kid, expected) in curve {
        let token = ec.jwt(&json!({"alg": "ES256", "kid": kid}), &claims()).unwrap();
        assert_eq!(gate.judges(&token), expected, "{kid}");
    }

    let mut theirs = claims();
    theirs["iss"] = json!(LEAKY);
    let token = key().jwt(&key().header(), &theirs).unwrap();
    assert_eq!(gate.judges(&token), "503 identity_unavailable");
}

#[test]
fn j12_without_a_key_id_at_most_five_fitting_keys_are_tried() {
    let both = || issuer(&json!({"algorithms": ["RS256", "ES256"]}));
    let ec = Ec::generate("twin").unwrap();
    let rsa: Vec<Key> = (0..6).map(|_| Key::generate("twin").unwrap()).collect();
    let anonymous = |key: &Key| {
        let mut jwk = key.jwk().unwrap();
        jwk.as_object_mut().unwrap().remove("kid");
        jwk
    };
    let mut keys: Vec<Value> = vec![ec.jwk().unwrap()];
    keys.extend(rsa.iter().map(anonymous));
    let gate = Gate::publishing(both(), json!({ "keys": keys }));
    let without = |key: &Key| key.jwt(&json!({"alg": "RS256"}), &claims()).unwrap();
    // The EC key does not fit and is not counted.
    for (n, expected) in [(0, ALLOWED), (4, ALLOWED), (5, INVALID)] {
        assert_eq!(gate.judges(&without(&rsa[n])), expected, "key {n}");
    }
    let token = ec.jwt(&json!({"alg": "ES256"}), &claims()).unwrap();
    assert_eq!(gate.judges(&token), ALLOWED);
    drop(gate);

    let twins: Vec<Value> = vec![ec.jwk().unwrap(), rsa[0].jwk().unwrap(), rsa[1].jwk().unwrap()];
    let gate = Gate::publishing(both(), json!({ "keys": twins }));
    let named = |key: &Key| key.jwt(&json!({"alg": "RS256", "kid": "twin"}), &claims()).unwrap();
    assert_eq!(gate.judges(&ec.jwt(&ec.header(), &claims()).unwrap()), ALLOWED);
    assert_eq!(gate.judges(&named(&rsa[0])), ALLOWED);
    assert_eq!(gate.judges(&named(&rsa[1])), ALLOWED);
    assert_eq!(gate.judges(&named(&rsa[2])), INVALID);
}
