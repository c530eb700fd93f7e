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
