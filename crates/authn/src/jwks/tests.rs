//! Key sets: one good key beside one that is judged, and sets that are refused whole.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::*;
use crate::testing as t;

/// A set of one good key and `key`: whether `key` is used, the good one in any case.
fn check(key: &str, expected: Result<(), Unusable>) {
    let set = KeySet::parse(t::set_text(&[t::ec(r#"{"kid":"good"}"#), key.to_owned()]).as_bytes())
        .unwrap_or_else(|bad| panic!("{bad}: {key}"));
    assert!(set.has("good"));
    let got = match set.skipped() {
        [] => Ok(()),
        [skipped] => {
            assert_eq!((skipped.index, set.keys().len()), (1, 1));
            Err(skipped.cause)
        }
        more => panic!("{more:?}"),
    };
    assert_eq!(got, expected, "{key}");
}

fn check_set(text: &str, expected: Result<usize, BadSet>) {
    assert_eq!(KeySet::parse(text.as_bytes()).map(|set| set.keys().len()), expected, "{text:.200}");
}

fn rsa_of(modulus: &[u8], exponent: &[u8]) -> String {
    format!(r#"{{"kty":"RSA","n":"{}","e":"{}"}}"#, t::encode(modulus), t::encode(exponent))
}

/// A number of exactly `bits` that ends in `last`.
fn number(bits: usize, last: u8) -> Vec<u8> {
    let mut number = vec![0xff; bits.div_ceil(8)];
    if let Some(first) = number.first_mut() {
        *first >>= (8 - bits % 8) % 8;
    }
    if let Some(end) = number.last_mut() {
        *end = last;
    }
    number
}

#[test]
fn j11_a_key_for_another_purpose_is_skipped() {
    for (more, expected) in [
        ("{}", Ok(())),
        (r#"{"use":"sig"}"#, Ok(())),
        (r#"{"use":"enc"}"#, Err(Unusable::NotForSignatures)),
        (r#"{"use":1}"#, Err(Unusable::NotAKey)),
        (r#"{"key_ops":["verify"]}"#, Ok(())),
        (r#"{"key_ops":["sign","verify"]}"#, Ok(())),
        (r#"{"key_ops":["sign"]}"#, Err(Unusable::NotForSignatures)),
        (r#"{"key_ops":[]}"#, Err(Unusable::NotForSignatures)),
        (r#"{"key_ops":"verify"}"#, Err(Unusable::NotAKey)),
        (r#"{"alg":"RS256"}"#, Ok(())),
        (r#"{"alg":"RS512"}"#, Ok(())),
        (r#"{"alg":"ES256"}"#, Err(Unusable::Unsupported)),
        (r#"{"alg":"PS256"}"#, Ok(())),
        (r#"{"alg":"HS256"}"#, Err(Unusable::Unsupported)),
        (r#"{"alg":"RSA-OAEP"}"#, Err(Unusable::Unsupported)),
        (r#"{"alg":1}"#, Err(Unusable::NotAKey)),
        (r#"{"kid":""}"#, Err(Unusable::KeyId)),
        (r#"{"kid":"a\tb"}"#, Err(Unusable::KeyId)),
        (r#"{"kid":7}"#, Err(Unusable::NotAKey)),
        (r#"{"x5c":["MII"],"x5t":"a","unknown":{"a":[]}}"#, Ok(())),
    ] {
        check(&t::rsa(more), expected);
    }
}

#[test]
fn j11_weak_or_odd_rsa_keys_are_skipped() {
    let f4 = [1, 0, 1];
    check(&rsa_of(&number(2048, 1), &f4), Ok(()));
    check(&rsa_of(&number(4096, 1), &f4), Ok(()));
    check(&rsa_of(&number(3071, 3), &f4), Ok(()));
    check(&rsa_of(&[&[0, 0], &number(2048, 1)[..]].concat(), &f4), Ok(()));
    for modulus in
        [number(2047, 1), number(1024, 1), number(4097, 1), number(2048, 2), vec![], vec![0; 256]]
    {
        check(&rsa_of(&modulus, &f4), Err(Unusable::Modulus));
    }
    check(&rsa_of(&number(2048, 1), &[3]), Ok(()));
    check(&rsa_of(&number(2048, 1), &[1, 0xff, 0xff, 0xff, 0xff]), Ok(()));
    for exponent in [
        &[1][..],
        &[0, 1],
        &[2],
        &[1, 0],
        &[0],
        &[],
        &[3, 0xff, 0xff, 0xff, 0xff],
        &number(2048, 1),
    ] {
        check(&rsa_of(&number(2048, 1), exponent), Err(Unusable::Exponent));
    }
    check(r#"{"kty":"RSA","e":"AQAB"}"#, Err(Unusable::NotAKey));
    check(r#"{"kty":"RSA","n":"A+A=","e":"AQAB"}"#, Err(Unusable::NotAKey));
}

#[test]
fn j11_points_off_the_curve_and_other_curves_are_skipped() {
    let point = |x: &str, y: &str| format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#);
    let x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    let y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
    check(&point(x, y), Ok(()));
    check(&point(y, x), Err(Unusable::Point));
    check(&point(&t::encode([0; 32]), &t::encode([0; 32])), Err(Unusable::Point));
    check(&point(&t::encode([0xff; 32]), y), Err(Unusable::Point));
    check(&point(&t::encode([1; 31]), y), Err(Unusable::Point));
    check(&point(x, &t::encode([1; 31])), Err(Unusable::Point));
    check(&point(x, &t::encode([1; 33])), Err(Unusable::Point));
    check(&point("", ""), Err(Unusable::Point));
    // The same 64 bytes, cut one byte too early.
    let whole = [URL_SAFE_NO_PAD.decode(x).unwrap(), URL_SAFE_NO_PAD.decode(y).unwrap()].concat();
    let (early_x, early_y) = whole.split_at(31);
    check(&point(&t::encode(early_x), &t::encode(early_y)), Err(Unusable::Point));
    check(&t::ec(r#"{"alg":"ES256"}"#), Ok(()));
    check(&t::ec(r#"{"alg":"RS256"}"#), Err(Unusable::Unsupported));
    for crv in ["Ed25519", "P-521", "secp256k1", "p-256", ""] {
        check(&t::ec(&format!(r#"{{"crv":"{crv}"}}"#)), Err(Unusable::Unsupported));
    }
    for other in [r#"{"kty":"OKP","crv":"X25519","x":"AA"}"#, r#"{"kty":"rsa"}"#, "{}"] {
        check(other, Err(Unusable::Unsupported));
    }
    for other in ["1", "null", "[]", r#"{"kty":1}"#] {
        check(other, Err(Unusable::NotAKey));
    }
}

#[test]
fn j11_private_material_spoils_the_whole_set() {
    check_set(&t::set_text(&[t::ec("{}"), t::rsa("{}")]), Ok(2));
    for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        let bad = t::rsa(&format!(r#"{{"{name}":"AA"}}"#));
        check_set(&t::set_text(&[t::ec("{}"), bad]), Err(BadSet::Private));
    }
    check_set(r#"{"keys":[{"kty":"oct","k":"AA"}]}"#, Err(BadSet::Private));
}

#[test]
fn j15_only_a_bounded_set_is_read() {
    for bad in
        ["", "<html>", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":null}"#, r#"{"keys":[],"keys":[]}"#]
    {
        check_set(bad, Err(BadSet::NotASet));
    }
    check_set(r#"{"keys":[]}"#, Ok(0));
    let many = |count| t::set_text(&vec![r#"{"kty":"OKP"}"#.to_owned(); count]);
    check_set(&many(MAX_KEYS), Ok(0));
    check_set(&many(MAX_KEYS + 1), Err(BadSet::TooMany));
    let padded = |len: usize| format!(r#"{{"keys":[]{}}}"#, " ".repeat(len - 11));
    assert_eq!(padded(MAX_SET_BYTES).len(), MAX_SET_BYTES);
    check_set(&padded(MAX_SET_BYTES), Ok(0));
    check_set(&padded(MAX_SET_BYTES + 1), Err(BadSet::TooLarge));
    let nested = format!(r#"{{"keys":[],"a":{}{}}}"#, "[".repeat(40), "]".repeat(40));
    check_set(&nested, Err(BadSet::NotASet));
}

#[test]
fn a_key_serves_the_algorithms_of_its_type_and_of_its_alg() {
    let serves = |key: String| -> Vec<Algorithm> {
        let set = t::set(&[key]);
        Algorithm::ALL
            .iter()
            .copied()
            .filter(|alg| set.candidates(*alg, None).count() == 1)
            .collect()
    };
    use Algorithm::{EdDsa, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
    assert_eq!(serves(t::rsa("{}")), [Rs256, Rs384, Rs512, Ps256, Ps384, Ps512]);
    assert_eq!(serves(t::rsa(r#"{"alg":"PS512"}"#)), [Ps512]);
    assert_eq!(serves(t::ec384("{}")), [Es384]);
    assert_eq!(serves(t::ec384(r#"{"alg":"ES384"}"#)), [Es384]);
    assert_eq!(serves(t::ed25519("{}")), [EdDsa]);
    assert_eq!(serves(t::ed25519(r#"{"alg":"EdDSA"}"#)), [EdDsa]);
    assert_eq!(serves(t::rsa(r#"{"alg":"RS384"}"#)), [Rs384]);
    assert_eq!(serves(t::ec("{}")), [Es256]);
    assert_eq!(serves(t::ec(r#"{"alg":"ES256"}"#)), [Es256]);
}

/// The same SubjectPublicKeyInfo as `openssl pkey -pubout -outform DER` writes for the test keys.
#[test]
fn the_der_form_is_that_of_openssl() {
    let spki = |key: String| {
        let set = t::set(&[key]);
        set.keys().first().unwrap().spki_der().to_vec()
    };
    assert_eq!(spki(t::rsa("{}")), include_bytes!("../../testdata/rsa.spki.der"));
    assert_eq!(spki(t::ec("{}")), include_bytes!("../../testdata/ec.spki.der"));
    assert_eq!(spki(t::ec384("{}")), include_bytes!("../../testdata/ec384.spki.der"));
}

#[test]
fn j11_p384_points_off_the_curve_are_skipped() {
    let point = |x: &str, y: &str| format!(r#"{{"kty":"EC","crv":"P-384","x":"{x}","y":"{y}"}}"#);
    let good: serde_json::Value = serde_json::from_str(&t::ec384("{}")).unwrap();
    let (x, y) = (good["x"].as_str().unwrap(), good["y"].as_str().unwrap());
    check(&point(x, y), Ok(()));
    check(&point(y, x), Err(Unusable::Point));
    check(&point(&t::encode([0; 48]), &t::encode([0; 48])), Err(Unusable::Point));
    check(&point(&t::encode([0xff; 48]), y), Err(Unusable::Point));
    check(&point(&t::encode([1; 47]), y), Err(Unusable::Point));
    check(&t::ec384(r#"{"crv":"P-256"}"#), Err(Unusable::Point));
    check(&t::ec(r#"{"crv":"P-384"}"#), Err(Unusable::Point));
    check(&t::ec384(r#"{"kty":"OKP"}"#), Err(Unusable::Unsupported));
    for alg in ["ES256", "ES512", "EdDSA"] {
        check(&t::ec384(&format!(r#"{{"alg":"{alg}"}}"#)), Err(Unusable::Unsupported));
    }
}

#[test]
fn j11_ed25519_keys_of_small_order_or_another_spelling_are_skipped() {
    let okp = |x: &[u8]| format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, t::encode(x));
    check(&t::ed25519("{}"), Ok(()));
    check(&t::ed25519(r#"{"alg":"EdDSA","use":"sig"}"#), Ok(()));
    let y = |low: u8, middle: u8, high: u8| {
        let mut y = [middle; 32];
        (y[0], y[31]) = (low, high);
        y
    };
    // The eight points of small order, as the tables of RFC 7748's successors list them.
    let order_8: [&str; 2] = [
        "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU",
        "xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA3o",
    ];
    let order_8 =
        order_8.map(|x| <[u8; 32]>::try_from(URL_SAFE_NO_PAD.decode(x).unwrap()).unwrap());
    let small = [y(1, 0, 0), y(0, 0, 0), y(0xec, 0xff, 0x7f), order_8[0], order_8[1]];
    for mut point in small {
        check(&okp(&point), Err(Unusable::Point));
        point[31] ^= 0x80;
        check(&okp(&point), Err(Unusable::Point));
    }
    // At and above 2^255 - 19; below it are points that are none, and some that are.
    for low in 0xed..=0xff {
        check(&okp(&y(low, 0xff, 0x7f)), Err(Unusable::Point));
        check(&okp(&y(low, 0xff, 0xff)), Err(Unusable::Point));
    }
    let fits = |x: &[u8]| {
        let set = KeySet::parse(t::set_text(&[okp(x)]).as_bytes()).unwrap();
        set.keys().len() == 1
    };
    assert!((0xd0..0xec).any(|low| fits(&y(low, 0xff, 0x7f))));
    assert!((0xed..=0xff).any(|low| fits(&y(low, 0, 0x7f))));
    assert!(key::is_canonical(&y(0xec, 0xff, 0x7f)) && !key::is_canonical(&y(0xed, 0xff, 0x7f)));
    assert!((0xed..=0xff).any(|low| fits(&y(low, 0xff, 0x7e))));
    check(&okp(&[7; 31]), Err(Unusable::Point));
    check(&okp(&[7; 33]), Err(Unusable::Point));
    check(r#"{"kty":"OKP","crv":"Ed25519"}"#, Err(Unusable::NotAKey));
    for crv in ["X25519", "Ed448", "X448", "ed25519", "P-256"] {
        check(&t::ed25519(&format!(r#"{{"crv":"{crv}"}}"#)), Err(Unusable::Unsupported));
    }
    check(&t::ed25519(r#"{"alg":"Ed25519"}"#), Err(Unusable::Unsupported));
}

#[test]
fn j7_a_secret_is_as_long_as_the_hash_and_has_nothing_beside_it() {
    use Algorithm::{Es256, Hs256, Hs384, Hs512, Rs256};
    let check = |bytes: usize, algorithms: &[Algorithm], expected| {
        let got = KeySet::of_secret(&vec![7; bytes], algorithms).map(drop);
        assert_eq!(got, expected, "{bytes} {algorithms:?}");
    };
    for (algorithm, bytes) in [(Hs256, 32), (Hs384, 48), (Hs512, 64)] {
        check(bytes, &[algorithm], Ok(()));
        check(bytes - 1, &[algorithm], Err(BadSecret::Short));
        check(bytes, &[algorithm, Rs256], Err(BadSecret::Algorithms));
        check(bytes, &[Es256, algorithm], Err(BadSecret::Algorithms));
    }
    check(63, &[Hs256, Hs512], Err(BadSecret::Short));
    check(64, &[Hs256, Hs384, Hs512], Ok(()));
    check(64, &[], Err(BadSecret::Algorithms));
    check(MAX_SECRET_BYTES, &[Hs256], Ok(()));
    check(MAX_SECRET_BYTES + 1, &[Hs256], Err(BadSecret::Long));
    let set = KeySet::of_secret(&[7; 48], &[Hs256]).unwrap();
    assert!(set.is_secret() && !t::set(&[t::ec("{}")]).is_secret());
    assert_eq!(set.candidates(Hs384, Some("any name")).count(), 1);
    assert_eq!(set.candidates(Hs512, None).count(), 0);
    assert_eq!(set.candidates(Rs256, None).count(), 0);
    let shown = format!("{set:?}");
    assert!(shown.contains("Secret(…)") && !shown.contains('7'), "{shown}");
}

#[test]
fn j7_a_set_of_secrets_holds_nothing_else() {
    let check = |keys: &[String], expected: Result<(usize, &[Unusable]), BadSet>| {
        let got = KeySet::parse_secrets(t::set_text(keys).as_bytes());
        let got = got.map(|set| {
            assert!(set.is_secret());
            let skipped = set.skipped().iter().map(|skipped| skipped.cause);
            (set.keys().len(), skipped.collect::<Vec<_>>())
        });
        assert_eq!(got, expected.map(|(used, skipped)| (used, skipped.to_vec())), "{keys:?}");
    };
    let secret = |bytes: usize, more: &str| {
        let k = t::encode(vec![7; bytes]);
        format!(r#"{{"kty":"oct","k":"{k}"{more}}}"#)
    };
    check(&[secret(32, ""), secret(256, r#","kid":"k","alg":"HS512""#)], Ok((2, &[])));
    check(&[secret(31, ""), secret(257, "")], Ok((0, &[Unusable::Secret; 2])));
    check(&[secret(32, r#","alg":"HS384""#)], Ok((0, &[Unusable::Unsupported])));
    check(&[secret(64, r#","alg":"RS256""#)], Ok((0, &[Unusable::Unsupported])));
    check(&[secret(64, r#","use":"enc""#)], Ok((0, &[Unusable::NotForSignatures])));
    check(&[r#"{"kty":"oct"}"#.to_owned()], Ok((0, &[Unusable::NotAKey])));
    check(&[secret(32, ""), t::ec("{}")], Err(BadSet::NotSecrets));
    check(&["1".to_owned()], Err(BadSet::NotSecrets));
    let named = t::set_text(&[secret(32, r#","kid":"k""#)]);
    let named = KeySet::parse_secrets(named.as_bytes()).unwrap();
    assert_eq!(named.candidates(Algorithm::Hs256, Some("other")).count(), 0);
    assert_eq!(named.candidates(Algorithm::Hs256, Some("k")).count(), 1);
}
