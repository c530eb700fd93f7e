//! Tokens of every broken form, really signed where the form allows it, against sets of the test keys.

use super::*;
use crate::testing as t;

const CLAIMS: &str = r#"{"iss":"i"}"#;
const ALL: &[Algorithm] = Algorithm::ALL;

/// Reads and verifies `token` with both test keys.
fn check(token: &str, expected: Result<(), Refusal>) {
    check_with(&t::set(&[t::rsa("{}"), t::ec("{}")]), ALL, token, expected);
}

fn check_with(keys: &KeySet, allowed: &[Algorithm], token: &str, expected: Result<(), Refusal>) {
    let verified = |parsed: Result<Parsed<'_>, Refusal>| {
        parsed.and_then(|token| verify_with(&token, keys, allowed, &Portable).map(drop))
    };
    assert_eq!(verified(parse(token.as_bytes())), expected, "{token}");
    // Whether its header is known or not.
    let mut headers = Headers::default();
    for _ in 0..2 {
        assert_eq!(verified(parse_among(&mut headers, token.as_bytes())), expected, "{token}");
    }
}

/// A header on its own: whether a token with it is read at all.
fn check_header(header: &str, expected: Result<(), Refusal>) {
    let token = format!("{}.{}.", t::encode(header), t::encode(CLAIMS));
    assert_eq!(parse(token.as_bytes()).map(drop), expected, "{header}");
    let mut headers = Headers::default();
    for _ in 0..2 {
        assert_eq!(parse_among(&mut headers, token.as_bytes()).map(drop), expected, "{header}");
    }
}

fn good() -> String {
    t::sign(Algorithm::Es256, r#"{"alg":"ES256"}"#, CLAIMS)
}

fn with_signature(token: &str, signature: &[u8]) -> String {
    let (signed, _) = token.rsplit_once('.').unwrap();
    format!("{signed}.{}", t::encode(signature))
}

#[test]
fn j7_every_algorithm_verifies_and_fails_on_one_changed_bit() {
    for algorithm in ALL {
        let check = |token: &str, expected| {
            check_with(&t::set_for(*algorithm), &[*algorithm], token, expected);
        };
        let token = t::sign(*algorithm, &format!(r#"{{"alg":"{algorithm}"}}"#), CLAIMS);
        check(&token, Ok(()));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let good = URL_SAFE_NO_PAD.decode(signature).unwrap();
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut signature = good.clone();
            signature[at] ^= 1;
            check(&with_signature(&token, &signature), Err(Refusal::SignatureInvalid));
        }
        for bad in [&good[1..], &good[..good.len() - 1], &[&good[..], &[0]].concat(), &[]] {
            check(&with_signature(&token, bad), Err(Refusal::SignatureInvalid));
        }
        let header = t::encode(format!(r#"{{"alg":"{algorithm}"}}"#));
        let other = format!("{header}.{}", t::encode(r#"{"iss":"j"}"#));
        check(&token.replace(signed, &other), Err(Refusal::SignatureInvalid));
    }
}

/// A signature that is good by one algorithm is nothing by another, with the same key.
#[test]
fn j7_an_algorithm_is_not_taken_for_another_of_the_same_key() {
    for by in ALL {
        for named in ALL {
            let header = t::encode(format!(r#"{{"alg":"{named}"}}"#));
            let signed = format!("{header}.{}", t::encode(CLAIMS));
            let signature = t::signature(*by, signed.as_bytes());
            let token = format!("{signed}.{}", t::encode(signature));
            let got = parse(token.as_bytes())
                .and_then(|token| verify_with(&token, &t::set_for(*by), ALL, &Portable).map(drop));
            assert_eq!(got.is_ok(), by == named, "{by} as {named}: {got:?}");
        }
    }
}

/// RFC 8725 §2.1: the public key as a secret, in every form that it is published in.
#[test]
fn j7_a_public_key_is_never_a_secret() {
    for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa] {
        let jwk = t::key_for(algorithm, "{}");
        let keys = t::set(std::slice::from_ref(&jwk));
        let spki = keys.keys()[0].spki_der().to_vec();
        for secret in
            [jwk.as_bytes(), &spki, t::set_text(std::slice::from_ref(&jwk)).as_bytes(), b""]
        {
            for hs in [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512] {
                let signed = t::encode(format!(r#"{{"alg":"{hs}"}}"#)) + "." + &t::encode(CLAIMS);
                let mac = t::encode(t::hmac(hs, secret, signed.as_bytes()));
                let token = format!("{signed}.{mac}");
                check_with(&keys, ALL, &token, Err(Refusal::AlgorithmNotAllowed));
                assert_eq!(verify(&keys, token.as_bytes()), Err(Refusal::AlgorithmNotAllowed));
            }
        }
    }
    let good = good();
    check_with(&t::set_for(Algorithm::Hs256), ALL, &good, Err(Refusal::AlgorithmNotAllowed));
}

#[test]
fn j7_a_message_of_any_bytes_is_verified_by_itself() {
    for algorithm in ALL {
        for payload in [&b"foo"[..], b"", b"\xff\0", b"[1]", CLAIMS.as_bytes()] {
            let header = format!(r#"{{"alg":"{algorithm}","kid":"k"}}"#);
            let signed = format!("{}.{}", t::encode(&header), t::encode(payload));
            let signature = t::encode(t::signature(*algorithm, signed.as_bytes()));
            let parse =
                if algorithm.is_symmetric() { KeySet::parse_secrets } else { KeySet::parse };
            let keys = |more: &str| {
                parse(t::set_text(&[t::key_for(*algorithm, more)]).as_bytes()).unwrap()
            };
            let keys_of = |kid: &str| keys(&format!(r#"{{"kid":"{kid}","alg":"{algorithm}"}}"#));
            let message = format!("{signed}.{signature}");
            let got = verify(&keys_of("k"), message.as_bytes()).unwrap();
            assert_eq!((&got.payload[..], got.header.algorithm), (payload, *algorithm));
            let other = verify(&keys_of("other"), message.as_bytes());
            assert_eq!(other, Err(Refusal::KeyUnknown));
            let more = format!("{signed}A.{signature}");
            assert!(verify(&keys_of("k"), more.as_bytes()).is_err());
        }
    }
}

#[test]
fn j6_only_the_strict_compact_form_is_read() {
    let good = good();
    check(&good, Ok(()));
    let [header, claims, signature]: [&str; 3] =
        good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let parts = |parts: &[&str]| parts.join(".");
    for (token, expected) in [
        (String::new(), Refusal::NotCompact),
        (header.to_owned(), Refusal::NotCompact),
        (parts(&[header, claims]), Refusal::NotCompact),
        (parts(&[header, claims, signature, ""]), Refusal::NotCompact),
        (parts(&[header, claims, signature, "", ""]), Refusal::JweUnsupported),
        (parts(&[header, claims, signature, "", "", ""]), Refusal::NotCompact),
        (parts(&[&format!("{header}="), claims, signature]), Refusal::EncodingInvalid),
        (parts(&[&format!(" {header}"), claims, signature]), Refusal::EncodingInvalid),
        (parts(&[header, claims, &format!("{signature}\n")]), Refusal::EncodingInvalid),
        (parts(&[header, claims, &format!("{}+", &signature[1..])]), Refusal::EncodingInvalid),
        (parts(&[header, claims, &format!("{}/", &signature[1..])]), Refusal::EncodingInvalid),
        (parts(&["", claims, signature]), Refusal::JsonInvalid),
        (parts(&[header, "", signature]), Refusal::JsonInvalid),
        (parts(&[header, claims, ""]), Refusal::SignatureInvalid),
        (format!(r#"{{"payload":"{claims}","signatures":[]}}"#), Refusal::NotCompact),
    ] {
        check(&token, Err(expected));
    }
    // 64 bytes leave 4 unused bits in the last character: each other value of them is another spelling.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = alphabet.find(last).unwrap();
    let twin = &alphabet[at + 1..at + 2];
    let respelt = format!("{}{twin}", &signature[..signature.len() - 1]);
    check(&parts(&[header, claims, &respelt]), Err(Refusal::EncodingInvalid));
}

#[test]
fn j10_size_depth_and_twins_are_refused_before_any_crypto() {
    let padded = |len: usize| {
        let filler = "A".repeat(len - good().len());
        format!("{}{filler}", good())
    };
    check(&padded(MAX_TOKEN_BYTES + 1), Err(Refusal::TooLong));
    assert_ne!(parse(padded(MAX_TOKEN_BYTES).as_bytes()).err(), Some(Refusal::TooLong));
    let nested = |depth: usize| {
        let claims = format!(r#"{{"a":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
        t::sign(Algorithm::Es256, r#"{"alg":"ES256"}"#, &claims)
    };
    check(&nested(MAX_DEPTH), Ok(()));
    check(&nested(MAX_DEPTH + 1), Err(Refusal::TooDeep));
    let twice = t::sign(Algorithm::Es256, r#"{"alg":"ES256"}"#, r#"{"iss":"i","iss":"i"}"#);
    check(&twice, Err(Refusal::MemberTwice));
    check_header(r#"{"alg":"ES256","typ":"JWT"}"#, Ok(()));
    check_header(r#"{"alg":"ES256","alg":"ES256"}"#, Err(Refusal::MemberTwice));
    check_header(r#"["alg"]"#, Err(Refusal::JsonInvalid));
}

#[test]
fn j7_none_and_foreign_algorithms_are_refused_by_name() {
    for none in ["none", "None", "NONE", "nOnE"] {
        check_header(&format!(r#"{{"alg":"{none}"}}"#), Err(Refusal::Unsigned));
    }
    for other in [
        "ES512", "ES256K", "Ed25519", "Ed448", "EDDSA", "eddsa", "hs256", "RSA-OAEP", "rs256",
        "RS256 ", "", "RS1",
    ] {
        check_header(&format!(r#"{{"alg":"{other}"}}"#), Err(Refusal::AlgorithmUnsupported));
    }
    check_header(r#"{"alg":"RS256"}"#, Ok(()));
    check_header(r#"{"alg":null}"#, Err(Refusal::HeaderInvalid));
    check_header(r#"{"alg":["RS256"]}"#, Err(Refusal::HeaderInvalid));
    check_header("{}", Err(Refusal::HeaderInvalid));
}

#[test]
fn j7_an_algorithm_is_taken_from_issuers_that_may_use_it() {
    let keys = t::set(&[t::ec("{}")]);
    check_with(&keys, &[Algorithm::Es256], &good(), Ok(()));
    check_with(&keys, &[Algorithm::Rs256], &good(), Err(Refusal::AlgorithmNotAllowed));
    check_with(&keys, &[], &good(), Err(Refusal::AlgorithmNotAllowed));
}

#[test]
fn j7_ecdsa_signatures_have_one_form() {
    let good = good();
    let signed = good.rsplit_once('.').unwrap().0;
    let raw = t::signature(Algorithm::Es256, signed.as_bytes());
    let order = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (r, s) = raw.split_at(32);
    check(&with_signature(&good, &raw), Ok(()));
    for bad in [
        ecdsa_der(Algorithm::Es256, &raw).unwrap(),
        [&[0; 32], s].concat(),
        [r, &[0; 32]].concat(),
        [r, &order].concat(),
        [&order, s].concat(),
        [r, &[0], s].concat(),
        [&raw[..], &[0]].concat(),
        raw[..63].to_vec(),
    ] {
        check(&with_signature(&good, &bad), Err(Refusal::SignatureInvalid));
    }
    assert!(!portable::is_well_formed(Algorithm::Es256, &[0; 64]));
    assert_eq!(ecdsa_der(Algorithm::Es384, &raw), None);
    assert_eq!(ecdsa_der(Algorithm::EdDsa, &raw), None);
    assert_eq!(ecdsa_der(Algorithm::Es256, &raw[..63]), None);
}

#[test]
fn j7_rsa_signatures_are_as_long_as_the_modulus() {
    let good = t::sign(Algorithm::Rs256, r#"{"alg":"RS256"}"#, CLAIMS);
    let signed = good.rsplit_once('.').unwrap().0;
    let raw = t::signature(Algorithm::Rs256, signed.as_bytes());
    check(&with_signature(&good, &raw), Ok(()));
    for bad in [[&[0], &raw[..]].concat(), [&raw[..], &[0]].concat(), raw[1..].to_vec()] {
        check(&with_signature(&good, &bad), Err(Refusal::SignatureInvalid));
    }
}

#[test]
fn j8_keys_in_the_header_are_never_looked_at() {
    let header = |more: &str| format!(r#"{{"alg":"ES256",{more}}}"#);
    for name in ["jwk", "jku", "x5u", "x5c"] {
        let value =
            if name == "jwk" { t::ec("{}") } else { r#""https://evil.example""#.to_owned() };
        let token = t::sign(Algorithm::Es256, &header(&format!(r#""{name}":{value}"#)), CLAIMS);
        check(&token, Ok(()));
        let others = t::set(&[t::rsa("{}")]);
        check_with(&others, ALL, &token, Err(Refusal::KeyUnknown));
    }
}

#[test]
fn j9_every_extension_is_refused() {
    for more in [
        r#""crit":["exp"]"#,
        r#""crit":["unknown"],"unknown":1"#,
        r#""crit":[]"#,
        r#""crit":["b64","b64"],"b64":true"#,
        r#""crit":["alg"]"#,
        r#""crit":["b64"],"b64":false"#,
        r#""crit":null"#,
        r#""b64":false"#,
    ] {
        let header = format!(r#"{{"alg":"ES256",{more}}}"#);
        check_header(&header, Err(Refusal::ExtensionUnsupported));
    }
    check_header(r#"{"alg":"ES256","unknown":1}"#, Ok(()));
}

#[test]
fn header_members_are_text_within_bounds() {
    let kid = |kid: &str| format!(r#"{{"alg":"ES256","kid":{kid}}}"#);
    check_header(&kid(&format!("\"{}\"", "k".repeat(MAX_KEY_ID_BYTES))), Ok(()));
    check_header(
        &kid(&format!("\"{}\"", "k".repeat(MAX_KEY_ID_BYTES + 1))),
        Err(Refusal::HeaderInvalid),
    );
    for bad in [r#""""#, "1", "null", r#""a\nb""#, r#""a\u0000""#, r#""\u0085""#] {
        check_header(&kid(bad), Err(Refusal::HeaderInvalid));
    }
    check_header(r#"{"alg":"ES256","typ":1}"#, Err(Refusal::HeaderInvalid));
}

#[test]
fn j12_a_kid_chooses_the_key_and_without_one_all_that_fit_are_tried() {
    let token =
        |kid: &str| t::sign(Algorithm::Es256, &format!(r#"{{"alg":"ES256"{kid}}}"#), CLAIMS);
    let named = token(r#","kid":"k""#);
    let nameless = token("");
    let other = ec_of_rfc7515("k");
    let set = |keys: &[String]| t::set(keys);
    let mine = t::ec(r#"{"kid":"k"}"#);
    check_with(&set(std::slice::from_ref(&mine)), ALL, &named, Ok(()));
    check_with(&set(&[t::ec(r#"{"kid":"K"}"#)]), ALL, &named, Err(Refusal::KeyUnknown));
    check_with(&set(&[ec_of_rfc7515("k")]), ALL, &named, Err(Refusal::SignatureInvalid));
    check_with(&set(&[t::rsa(r#"{"kid":"k"}"#)]), ALL, &named, Err(Refusal::KeyMismatch));
    // The same id twice: with another type beside it, and with another key of the same type.
    check_with(&set(&[t::rsa(r#"{"kid":"k"}"#), mine.clone()]), ALL, &named, Ok(()));
    check_with(&set(&[other.clone(), mine.clone()]), ALL, &named, Ok(()));
    check_with(&set(&[]), ALL, &nameless, Err(Refusal::KeyUnknown));
    check_with(&set(&[t::rsa("{}")]), ALL, &nameless, Err(Refusal::KeyUnknown));
    let fifth = [vec![other.clone(); 4], vec![mine.clone()]].concat();
    check_with(&set(&fifth), ALL, &nameless, Ok(()));
    let sixth = [vec![other; 5], vec![mine]].concat();
    check_with(&set(&sixth), ALL, &nameless, Err(Refusal::SignatureInvalid));
}

/// Another P-256 key: that of RFC 7515 A.3.
fn ec_of_rfc7515(kid: &str) -> String {
    format!(
        r#"{{"kty":"EC","kid":"{kid}","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}}"#
    )
}

/// What a host makes of signatures of the wrong form is its own affair: it never sees one.
#[test]
fn j7_no_verifier_is_asked_about_a_signature_of_the_wrong_form() {
    struct Trusting;
    impl Verifier for Trusting {
        fn verify(&self, _: Algorithm, _: &Key, _: &[u8], _: &[u8]) -> Result<bool, Unavailable> {
            Ok(true)
        }
    }
    let keys = t::set(&[t::rsa("{}"), t::ec("{}")]);
    for (algorithm, signature, expected) in [
        ("RS256", vec![7; 256], Ok(())),
        ("RS256", vec![7; 255], Err(Refusal::SignatureInvalid)),
        ("RS256", vec![7; 257], Err(Refusal::SignatureInvalid)),
        ("RS256", vec![], Err(Refusal::SignatureInvalid)),
        ("ES256", vec![7; 64], Ok(())),
        ("ES256", vec![7; 63], Err(Refusal::SignatureInvalid)),
        ("ES256", vec![0; 64], Err(Refusal::SignatureInvalid)),
        ("ES256", vec![0xff; 64], Err(Refusal::SignatureInvalid)),
    ] {
        let header = t::encode(format!(r#"{{"alg":"{algorithm}"}}"#));
        let token = format!("{header}.{}.{}", t::encode(CLAIMS), t::encode(&signature));
        let token = parse(token.as_bytes()).unwrap();
        let got = verify_with(&token, &keys, ALL, &Trusting).map(drop);
        assert_eq!(got, expected, "{algorithm} {}", signature.len());
    }
}

#[test]
fn a_verifier_without_an_answer_is_no_verdict() {
    struct Away;
    impl Verifier for Away {
        fn verify(&self, _: Algorithm, _: &Key, _: &[u8], _: &[u8]) -> Result<bool, Unavailable> {
            Err(Unavailable)
        }
    }
    let good = good();
    let token = parse(good.as_bytes()).unwrap();
    let got = verify_with(&token, &t::set(&[t::ec("{}")]), ALL, &Away).map(drop);
    assert_eq!(got, Err(Refusal::VerifierUnavailable));
    assert!(Refusal::VerifierUnavailable.is_transient());
}

#[test]
fn j21_the_claimed_issuer_and_tenant_are_text_or_nothing() {
    for (value, expected) in [
        (r#""a/""#, Some("a/")),
        ("1", None),
        ("null", None),
        (r#"["a"]"#, None),
        (r#"{"iss":"a","tenant_id":"a"}"#, None),
    ] {
        let read = |name: &str| {
            let claims = format!(r#"{{"a":"b","{name}":{value},"c":"d"}}"#);
            format!("{}.{}.", t::encode(r#"{"alg":"ES256"}"#), t::encode(claims))
        };
        let (issuer, tenant) = (read("iss"), read("tenant_id"));
        let (issuer, tenant) =
            (parse(issuer.as_bytes()).unwrap(), parse(tenant.as_bytes()).unwrap());
        assert_eq!((issuer.claimed_issuer(), issuer.claimed_tenant()), (expected, None));
        assert_eq!((tenant.claimed_issuer(), tenant.claimed_tenant()), (None, expected));
    }
}

#[test]
fn the_payload_of_a_verified_token_is_what_was_signed() {
    let good = good();
    let parsed = parse(good.as_bytes()).unwrap();
    let verified = verify_with(&parsed, &t::set(&[t::ec("{}")]), ALL, &Portable).unwrap();
    assert_eq!(verified.payload(), CLAIMS.as_bytes());
    assert_eq!(verified.header(), parsed.header());
}
