//! J6–J10: the strict compact form, algorithms, and everything in a header that would choose a key for us.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use gatehouse_tests::{
    http::Request,
    token::{Ec, Key, jwks, unsigned},
};
use serde_json::{Value, json};

use super::gate::{ALLOWED, Gate, SUBJECT, claims, get, issuer, key, token, verdict, with_header};

const INVALID: &str = "401 token_invalid";

/// A token over exactly these texts, signed by [`key`].
fn raw(header: &str, claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let text = format!("{}.{}", part(header), part(claims));
    let signature = key().sign(text.as_bytes()).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Texts of a good header and good claims, without their closing braces.
fn texts() -> (String, String) {
    let open = |value: Value| value.to_string().trim_end_matches('}').to_owned();
    (open(key().header()), open(claims()))
}

#[test]
fn j6_a_token_has_one_spelling() {
    let gate = Gate::open();
    let good = token();
    assert_eq!(gate.judges(&good), ALLOWED);
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts.as_slice() else { panic!("{good}") };
    // The last character of 256 bytes carries four spare bits.
    let spare = match signature.chars().last().unwrap() {
        'A' => 'B',
        'Q' => 'R',
        'g' => 'h',
        _ => 'x',
    };
    let trailing = format!("{header}.{payload}.{}{spare}", &signature[..signature.len() - 1]);
    assert_ne!(trailing, good);
    for bad in [
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!(".{payload}.{signature}"),
        format!("{header}..{signature}"),
        format!("{good}."),
        format!("{good}.x"),
        format!("{header}.{payload}.{signature}.a.b"),
        format!("{good}="),
        format!("{header}=.{payload}.{signature}"),
        format!("{header}.{payload}.{}+", &signature[..signature.len() - 1]),
        format!("{header}.{payload}.{}/", &signature[..signature.len() - 1]),
        format!("{header}.{payload}.%20{signature}"),
        trailing,
        json!({"protected": header, "payload": payload, "signature": signature}).to_string(),
    ] {
        assert_eq!(gate.judges(&bad), INVALID, "{bad}");
    }
    // Whitespace ends the token, so that what follows is junk.
    let spaced = get().header("Authorization", &format!("Bearer {header}.{payload}. {signature}"));
    gate.denies(&spaced, INVALID);
    gate.sound();
}

#[test]
fn j7_only_listed_algorithms_with_fitting_keys_verify() {
    let ec = Ec::generate("ec-1").unwrap();
    let mut set = jwks(&[key()]).unwrap();
    let list = set["keys"].as_array_mut().unwrap();
    list.push(ec.jwk().unwrap());
    let mut other = key().jwk().unwrap();
    other["kid"] = json!("rs512-only");
    other["alg"] = json!("RS512");
    list.push(other);
    let mut curve = ec.jwk().unwrap();
    curve["kid"] = json!("p-384");
    curve["crv"] = json!("P-384");
    list.push(curve);
    let both = issuer(&json!({"algorithms": ["RS256", "ES256"]}));
    let gate = Gate::publishing(both, set);

    let es = ec.jwt(&ec.header(), &claims()).unwrap();
    assert_eq!(gate.judges(&token()), ALLOWED);
    assert_eq!(gate.judges(&es), ALLOWED);
    let check = |what: &str, token: &str| assert_eq!(gate.judges(token), INVALID, "{what}");
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        check(alg, &format!("{}.", unsigned(&json!({"alg": alg}), &claims())));
        check(alg, &with_header("alg", json!(alg)));
    }
    for alg in ["RS384", "RS512", "PS256", "EdDSA", "ES384", "HS256", "HS512", "rs256", "RS256 "] {
        check(alg, &with_header("alg", json!(alg)));
    }
    check("no algorithm", &with_header("alg", Value::Null));
    check("an algorithm that is no text", &with_header("alg", json!(["RS256"])));
    check("the public key as an HMAC secret", &{
        let text = unsigned(&json!({"alg": "HS256", "kid": "key-1"}), &claims());
        let secret = key().spki().unwrap();
        let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
        let tag = aws_lc_rs::hmac::sign(&secret, text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
    });
    check("a key for another algorithm", &with_header("kid", json!("rs512-only")));
    check("an RSA signature under an EC key's id", &with_header("kid", json!("ec-1")));
    let named = |kid: &str| ec.jwt(&json!({"alg": "ES256", "kid": kid}), &claims()).unwrap();
    check("an EC signature under an RSA key's id", &named("key-1"));
    check("a curve that does not fit", &named("p-384"));

    let (text, signature) = es.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let with = |signature: &[u8]| format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature));
    let (r, s) = signature.split_at(32);
    let order: Vec<u8> = ORDER_P256.to_vec();
    for (what, bad) in [
        ("DER", ec.sign_der(text.as_bytes()).unwrap()),
        ("r = 0", [&[0; 32], s].concat()),
        ("s = 0", [r, &[0; 32]].concat()),
        ("r = n", [order.as_slice(), s].concat()),
        ("s = n", [r, order.as_slice()].concat()),
        ("s = 2^256 - 1", [r, &[0xff; 32]].concat()),
        ("too long", [signature.as_slice(), &[0]].concat()),
        ("too long in front", [&[0], signature.as_slice()].concat()),
        ("cut short", signature[..63].to_vec()),
        ("halves exchanged", [s, r].concat()),
        ("empty", Vec::new()),
    ] {
        check(what, &with(&bad));
    }
    assert_eq!(gate.judges(&with(&signature)), ALLOWED);
    gate.sound();
}

/// The order of the base point of P-256 (FIPS 186-5).
const ORDER_P256: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

#[test]
fn j8_a_token_never_brings_or_names_its_own_key() {
    let gate = Gate::open();
    let stranger = Key::generate("stranger").unwrap();
    gate.outside()
        .keys
        .insert("stranger".to_owned(), (200, jwks(&[&stranger]).unwrap().to_string()));
    let at = "http://127.0.0.1:9/keys/stranger";
    let certificate = URL_SAFE_NO_PAD.encode(stranger.spki().unwrap());
    for (name, value) in [
        ("jwk", stranger.jwk().unwrap()),
        ("jku", json!(at)),
        ("x5u", json!(at)),
        ("x5c", json!([certificate])),
        ("x5t#S256", json!(certificate)),
    ] {
        // Signed by the published key, the member is only not looked at.
        assert_eq!(gate.judges(&with_header(name, value.clone())), ALLOWED, "{name}");
        for kid in [json!("stranger"), json!("key-1"), Value::Null] {
            let mut header = json!({"alg": "RS256", "typ": "at+jwt"});
            header[name] = value.clone();
            if !kid.is_null() {
                header["kid"] = kid;
            }
            let forged = stranger.jwt(&header, &claims()).unwrap();
            assert_eq!(gate.judges(&forged), INVALID, "{name}: {header}");
        }
    }
    let asked = gate.outside().asked.clone();
    assert!(!asked.iter().any(|line| line.contains("stranger")), "{asked:?}");
}

#[test]
fn j9_no_extension_is_understood_and_so_every_crit_is_refused() {
    let gate = Gate::open();
    assert_eq!(gate.judges(&with_header("b65", json!(false))), ALLOWED);
    let mut listed = key().header();
    listed["exp"] = json!(1);
    for crit in [
        json!(["exp"]),
        json!([]),
        json!(["exp", "exp"]),
        json!(["alg"]),
        json!(["absent"]),
        json!(["b64"]),
        json!("exp"),
        json!({}),
        json!(false),
    ] {
        for header in [key().header(), listed.clone()] {
            let mut header = header;
            header["crit"] = crit.clone();
            let token = key().jwt(&header, &claims()).unwrap();
            assert_eq!(gate.judges(&token), INVALID, "{header}");
        }
    }
    // `null` is a member, too.
    let (header, claims) = texts();
    assert_eq!(
        gate.judges(&raw(&format!("{header},\"crit\":null}}"), &format!("{claims}}}"))),
        INVALID
    );
    assert_eq!(gate.judges(&with_header("b64", json!(false))), INVALID);
    assert_eq!(gate.judges(&token()), ALLOWED);
}

#[test]
fn j10_ambiguous_deep_and_large_tokens_are_refused() {
    let gate = Gate::open();
    let (header, claims) = texts();
    let judge = |header: &str, claims: &str| gate.judges(&raw(header, claims));
    let (plain_header, plain_claims) = (format!("{header}}}"), format!("{claims}}}"));
    assert_eq!(judge(&plain_header, &plain_claims), ALLOWED);
    for twin in [
        format!("\"sub\":\"{SUBJECT}\""),
        "\"s\\u0075b\":\"admin\"".to_owned(),
        "\"tenant_id\":\"x\"".to_owned(),
        "\"o\":{\"a\":1,\"a\":2}".to_owned(),
        "\"o\":[{\"a\":1,\"a\":2}]".to_owned(),
    ] {
        assert_eq!(judge(&plain_header, &format!("{claims},{twin}}}")), INVALID, "{twin}");
    }
    for twin in ["\"alg\":\"RS256\"", "\"kid\":\"key-1\"", "\"\\u0061lg\":\"none\""] {
        assert_eq!(judge(&format!("{header},{twin}}}"), &plain_claims), INVALID, "{twin}");
    }
    // The object itself is the first level of sixteen.
    let nested =
        |depth: usize| format!("{claims},\"o\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(judge(&plain_header, &nested(15)), ALLOWED);
    assert_eq!(judge(&plain_header, &nested(16)), INVALID);
    assert_eq!(judge(&plain_header, &nested(2000)), INVALID);
    let padded = |bytes: usize| {
        let empty = raw(&plain_header, &format!("{claims},\"pad\":\"\"}}")).len();
        // Four characters carry three bytes.
        let pad = (bytes - empty) / 4 * 3;
        raw(&plain_header, &format!("{claims},\"pad\":\"{}\"}}", "p".repeat(pad)))
    };
    let largest = padded(8 * 1024);
    assert!((8 * 1024 - 8..=8 * 1024).contains(&largest.len()), "{}", largest.len());
    assert_eq!(gate.judges(&largest), ALLOWED);
    assert_eq!(gate.judges(&padded(8 * 1024 + 16)), INVALID);
    // More headers than the gateway takes end before any of them is looked at.
    let with_headers = |count: usize| {
        (0..count).fold(get().bearer(&token()), |request, n| request.header(&format!("X-{n}"), "1"))
    };
    gate.allows(&with_headers(80));
    assert_eq!(gate.send(&with_headers(120)).status().unwrap(), 431);
    for junk in ["{}", "[]", "1", "null", "\"x\"", "{", ""] {
        assert_eq!(judge(junk, &plain_claims), INVALID, "header {junk:?}");
        assert_eq!(judge(&plain_header, junk), INVALID, "claims {junk:?}");
    }
    let public = Request::new("GET", super::gate::PUBLIC);
    assert_eq!(verdict(&gate.send(&public)), ALLOWED);
    gate.sound();
}
