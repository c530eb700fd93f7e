//! Broken tokens: each wrong in one way, and the rest of it right. Where the form allows it they are really signed.

use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::{ALL, AUDIENCE, Bench, EXPIRY, FEW, SECRET};
use crate::{
    Algorithm, Refusal as R,
    algorithm::Family,
    jws::{MAX_DEPTH, MAX_TOKEN_BYTES, ecdsa_der},
    testing as t,
};

pub(super) fn add(bench: &mut Bench) {
    signatures(bench);
    algorithms(bench);
    let parts = Parts::of(bench, "form");
    forms(bench, &parts);
    if bench.algorithm.native_hash().is_some() {
        encodings(bench, &parts);
        headers(bench);
        keys(bench);
        payloads(bench);
        match bench.algorithm.family() {
            Family::Rsa => paddings(bench),
            _ => numbers(bench),
        }
    }
}

/// A good token in its parts.
struct Parts {
    header: String,
    payload: String,
    raw: Vec<u8>,
    signature: String,
}

impl Parts {
    fn of(bench: &Bench, subject: &str) -> Self {
        let header = t::encode(bench.header(""));
        let payload = t::encode(bench.claims(subject, ""));
        let raw = t::signature(bench.algorithm, format!("{header}.{payload}").as_bytes());
        let signature = t::encode(&raw);
        Self { header, payload, raw, signature }
    }

    fn signed(&self) -> String {
        format!("{}.{}", self.header, self.payload)
    }

    fn with(&self, signature: &[u8]) -> String {
        format!("{}.{}", self.signed(), t::encode(signature))
    }
}

fn signatures(bench: &mut Bench) {
    let parts = Parts::of(bench, "signature");
    for at in [0, parts.raw.len() / 2, parts.raw.len() - 1] {
        let mut flipped = parts.raw.clone();
        flipped[at] ^= 1;
        let name = format!("byte {at}");
        bench.bad("signature changed", &name, parts.with(&flipped), R::SignatureInvalid);
    }
    let other = t::encode(bench.claims("somebody-else", ""));
    let token = format!("{}.{other}.{}", parts.header, parts.signature);
    bench.bad("payload changed", "another subject", token, R::SignatureInvalid);
    let header = t::encode(bench.header(r#","typ":"JWT""#));
    let token = format!("{header}.{}.{}", parts.payload, parts.signature);
    bench.bad("header changed", "another typ", token, R::SignatureInvalid);
    let foreign = t::other_signature(bench.algorithm, parts.signed().as_bytes());
    bench.bad("signed by another key", "named as ours", parts.with(&foreign), R::SignatureInvalid);
    for (name, bad) in [
        ("empty", Vec::new()),
        ("one byte short", parts.raw[..parts.raw.len() - 1].to_vec()),
        ("a byte more behind", [&parts.raw[..], &[0]].concat()),
        ("a zero more in front", [&[0], &parts.raw[..]].concat()),
        ("zeros", vec![0; parts.raw.len()]),
        ("ones", vec![0xff; parts.raw.len()]),
    ] {
        bench.bad("signature of another form", name, parts.with(&bad), R::SignatureInvalid);
    }
}

fn algorithms(bench: &mut Bench) {
    let claims_text = bench.claims("algorithm", "");
    for none in ["none", "None", "nOnE"] {
        let header = t::encode(format!(r#"{{"alg":"{none}","kid":"{}"}}"#, bench.kid()));
        let signature = Parts::of(bench, none).signature;
        for (form, signature) in [("signed", signature), ("bare", String::new())] {
            let token = format!("{header}.{}.{signature}", t::encode(&claims_text));
            bench.bad("alg none", &format!("{none}, {form}"), token, R::Unsigned);
        }
    }
    for other in ["ES512", "RS1", "ES256K"] {
        let header = format!(r#"{{"alg":"{other}","kid":"{}"}}"#, bench.kid());
        let token = t::sign(bench.algorithm, &header, &claims_text);
        bench.bad("alg unsupported", other, token, R::AlgorithmUnsupported);
    }
    // Signed by ours, named as another: of the same key where there is one.
    let sibling = match bench.algorithm {
        Algorithm::Rs256 => Algorithm::Ps256,
        Algorithm::Rs384 => Algorithm::Rs256,
        Algorithm::Rs512 => Algorithm::Rs384,
        Algorithm::Ps256 => Algorithm::Rs256,
        Algorithm::Ps384 => Algorithm::Ps256,
        Algorithm::Ps512 => Algorithm::Ps384,
        Algorithm::Hs256 => Algorithm::Hs512,
        Algorithm::Hs384 => Algorithm::Hs256,
        Algorithm::Hs512 => Algorithm::Hs384,
        Algorithm::Es256 => Algorithm::Es384,
        Algorithm::Es384 => Algorithm::Es256,
        Algorithm::EdDsa => Algorithm::Es256,
    };
    let header = format!(r#"{{"alg":"{sibling}","kid":"{}"}}"#, bench.kid());
    let token = t::sign(bench.algorithm, &header, &claims_text);
    let refusal = match bench.algorithm.family() {
        Family::Rsa | Family::Secret(_) => R::SignatureInvalid,
        // The signature's form is looked at first: 64 bytes can be of P-256.
        Family::P256 | Family::P384 => R::SignatureInvalid,
        Family::Ed25519 => R::KeyMismatch,
    };
    bench.bad("signed by another algorithm", sibling.as_str(), token, refusal);
    if bench.algorithm.is_symmetric() {
        return;
    }
    if bench.algorithm != Algorithm::Rs512 {
        let token = bench.sign(&bench.header(""), &bench.claims_of(FEW, "few", ""));
        let word = R::AlgorithmNotAllowed.word();
        bench.push(FEW, "by another of the same keys", Some("alg not allowed"), token, word);
    }
    // RFC 8725 §2.1: the published key as a secret.
    let key = t::key_for(bench.algorithm, "{}");
    let header = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, bench.kid());
    let signed = format!("{}.{}", t::encode(header), t::encode(&claims_text));
    let mac = t::hmac(Algorithm::Hs256, key.as_bytes(), signed.as_bytes());
    let token = format!("{signed}.{}", t::encode(mac));
    bench.bad("public key as a secret", "its JWK", token, R::AlgorithmNotAllowed);
    let token = bench.sign(&bench.header(""), &bench.claims_of(SECRET, "asymmetric", ""));
    let word = R::AlgorithmNotAllowed.word();
    bench.push(SECRET, "where a secret is expected", Some("alg not allowed"), token, word);
}

fn forms(bench: &mut Bench, parts: &Parts) {
    let Parts { header, payload, signature, .. } = parts;
    for (name, token, refusal) in [
        ("two", format!("{header}.{payload}"), R::NotCompact),
        ("four", format!("{header}.{payload}.{signature}."), R::NotCompact),
        ("five: encrypted", format!("{header}.{payload}.{signature}.."), R::JweUnsupported),
    ] {
        bench.bad("parts", name, token, refusal);
    }
}

fn encodings(bench: &mut Bench, parts: &Parts) {
    let Parts { header, payload, signature, .. } = parts;
    for (name, token) in [
        ("padded header", format!("{header}=.{payload}.{signature}")),
        ("padded payload", format!("{header}.{payload}=.{signature}")),
        ("padded signature", format!("{header}.{payload}.{signature}=")),
        ("plus", format!("{header}.{payload}.{}+", &signature[1..])),
        ("slash", format!("{header}.{payload}.{}/", &signature[1..])),
        ("tilde", format!("{header}.{payload}.~{}", &signature[1..])),
    ] {
        bench.bad("encoding", name, token, R::EncodingInvalid);
    }
    for (name, text) in [("header", ""), ("payload", "[]"), ("payload", "null"), ("payload", "{}x")]
    {
        let (header, payload) = match name {
            "header" => (text.to_owned(), bench.claims("json", "")),
            _ => (bench.header(""), text.to_owned()),
        };
        let token = bench.sign(&header, &payload);
        bench.bad("not one JSON object", &format!("{name} {text:?}"), token, R::JsonInvalid);
    }
}

fn headers(bench: &mut Bench) {
    let claims = bench.claims("header", "");
    for (fault, more, refusal) in [
        ("crit", r#","crit":["exp"]"#, R::ExtensionUnsupported),
        ("crit", r#","crit":[]"#, R::ExtensionUnsupported),
        ("crit", r#","crit":["b64"],"b64":false"#, R::ExtensionUnsupported),
        ("b64", r#","b64":false"#, R::ExtensionUnsupported),
        ("member twice", r#","alg":"none""#, R::MemberTwice),
        ("member twice", r#","k\u0069d":"x""#, R::MemberTwice),
        ("header member", r#","typ":1"#, R::HeaderInvalid),
        ("typ of another kind", r#","typ":"dpop+jwt""#, R::TypeNotAllowed),
        ("typ of another kind", r#","typ":"logout+jwt""#, R::TypeNotAllowed),
    ] {
        let token = bench.sign(&bench.header(more), &claims);
        bench.bad(fault, more, token, refusal);
    }
    for alg in ["null", "1", r#"["RS256"]"#] {
        let header = format!(r#"{{"alg":{alg},"kid":"{}"}}"#, bench.kid());
        let token = bench.sign(&header, &claims);
        bench.bad("header member", &format!("alg {alg}"), token, R::HeaderInvalid);
    }
}

fn keys(bench: &mut Bench) {
    let claims = bench.claims("kid", "");
    let kid = bench.kid();
    let other = if kid == "rsa" { "p256" } else { "rsa" };
    let bound = if bench.algorithm == Algorithm::Rs512 { "only-RS256" } else { "only-RS512" };
    for (name, kid, refusal) in [
        ("nobody's", "nobody".to_owned(), R::KeyUnknown),
        ("in another case", kid.to_uppercase(), R::KeyUnknown),
        ("of a key for encryption", format!("{kid}-enc"), R::KeyUnknown),
        ("of a key that only signs", format!("{kid}-signs"), R::KeyUnknown),
        ("of another type", other.to_owned(), R::KeyMismatch),
        ("of a key for another algorithm", bound.to_owned(), R::KeyMismatch),
    ] {
        let header = format!(r#"{{"alg":"{}","kid":"{kid}"}}"#, bench.algorithm);
        bench.bad("kid", name, bench.sign(&header, &claims), refusal);
    }
}

fn payloads(bench: &mut Bench) {
    let deep = format!(r#","a":{}{}"#, "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    for (fault, more, refusal) in [
        ("member twice", r#","iss":"https://evil.example""#, R::MemberTwice),
        ("member twice", r#","a":{"b":[{"c":1,"c":1}]}"#, R::MemberTwice),
        ("too deep", deep.as_str(), R::TooDeep),
        ("times", r#","nbf":4102444799"#, R::NotYetValid),
        ("times", r#","iat":4102444799"#, R::IssuedInFuture),
        ("times", r#","nbf":"0""#, R::TimeInvalid),
        ("bound to a key", r#","cnf":{"jkt":"a"}"#, R::BindingUnsupported),
    ] {
        let token = bench.sign(&bench.header(""), &bench.claims("claims", more));
        bench.bad(fault, &more.chars().take(24).collect::<String>(), token, refusal);
    }
    let good = bench.claims("claims", "");
    let exp = format!("\"exp\":{EXPIRY}");
    for (fault, from, to, refusal) in [
        ("expired", exp.as_str(), "\"exp\":1700000000", R::Expired),
        ("times", &exp, "\"exp\":\"4102444800\"", R::TimeInvalid),
        ("times", &exp, "\"exp\":-1", R::TimeInvalid),
        ("times", &exp, "\"exp\":1e300", R::TimeInvalid),
        ("never expires", &exp, "\"x\":1", R::ExpiryMissing),
        ("issuer", ALL, "https://all.vectors.example/", R::IssuerUnknown),
        ("issuer", ALL, "https://evil.example", R::IssuerUnknown),
        ("audience", AUDIENCE, "https://API.vectors.example", R::AudienceMismatch),
        ("audience", AUDIENCE, "https://api.vectors.example/", R::AudienceMismatch),
    ] {
        let token = bench.sign(&bench.header(""), &good.replace(from, to));
        bench.bad(fault, to, token, refusal);
    }
    if bench.algorithm == Algorithm::Es256 {
        let filler = format!(r#","a":"{}""#, "a".repeat(MAX_TOKEN_BYTES));
        let token = bench.sign(&bench.header(""), &bench.claims("long", &filler));
        bench.bad("too long", "beyond 8 KiB", token, R::TooLong);
    }
}

/// Signatures of ECDSA that are other spellings, or out of range.
fn numbers(bench: &mut Bench) {
    let parts = Parts::of(bench, "numbers");
    let half = parts.raw.len() / 2;
    let (r, s) = parts.raw.split_at(half);
    let (order, _twin) = t::ecdsa_twin(bench.algorithm, &parts.raw);
    let zero = vec![0; half];
    for (name, bad) in [
        ("DER", ecdsa_der(bench.algorithm, &parts.raw).unwrap()),
        ("r is zero", [&zero, s].concat()),
        ("s is zero", [r, &zero].concat()),
        ("r is the order", [&order, s].concat()),
        ("s is the order", [r, &order].concat()),
        ("r and s swapped", [s, r].concat()),
    ] {
        bench.bad("ECDSA numbers", name, parts.with(&bad), R::SignatureInvalid);
    }
}

/// Signatures of RSA with the right hash and another padding, and numbers beyond the modulus.
fn paddings(bench: &mut Bench) {
    let parts = Parts::of(bench, "padding");
    let (prefix, hash) = digest_info(bench.algorithm, parts.signed().as_bytes());
    let size = parts.raw.len();
    let padded = |info: &[u8], between: u8, kind: u8| {
        let filler = vec![between; size - 3 - info.len()];
        [&[0, kind], &filler[..], &[0], info].concat()
    };
    let info = [&prefix[..], &hash].concat();
    // The parameters of the hash's identifier are NULL; some leave them out.
    let (mut bare, mut short_hash) = (info.clone(), info.clone());
    let null = prefix.len() - 4;
    bare.drain(null..null + 2);
    bare[1] -= 2;
    bare[3] -= 2;
    short_hash.pop();
    let garbage = {
        let mut message = vec![0, 1];
        message.extend([0xff; 8]);
        message.push(0);
        message.extend(&info);
        message.resize(size, 0xa5);
        message
    };
    assert_eq!(t::rsa_raw(&padded(&info, 0xff, 1)), parts.raw, "the right padding");
    for (name, message) in [
        ("of encryption", padded(&info, 0xff, 2)),
        ("of type 0", padded(&info, 0x00, 0)),
        ("of other bytes", padded(&info, 0xfe, 1)),
        ("without NULL", padded(&bare, 0xff, 1)),
        ("of a shorter hash", padded(&short_hash, 0xff, 1)),
        ("of the bare hash", padded(&hash, 0xff, 1)),
        ("short, with garbage behind", garbage),
    ] {
        bench.bad("RSA padding", name, parts.with(&t::rsa_raw(&message)), R::SignatureInvalid);
    }
    let beyond = (0..64).find_map(|attempt| {
        let parts = Parts::of(bench, &format!("beyond-{attempt}"));
        Some(parts.with(&t::rsa_beyond_modulus(&parts.raw)?))
    });
    bench.bad("RSA number", "beyond the modulus", beyond.unwrap(), R::SignatureInvalid);
}

/// The DER in front of a hash (RFC 8017 §9.2), and the hash.
fn digest_info(algorithm: Algorithm, signed: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (kind, hash) = match algorithm {
        Algorithm::Rs384 => (2, Sha384::digest(signed).to_vec()),
        Algorithm::Rs512 => (3, Sha512::digest(signed).to_vec()),
        _ => (1, Sha256::digest(signed).to_vec()),
    };
    let len = u8::try_from(hash.len()).unwrap();
    let oid = [0x06, 9, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, kind];
    let prefix = [&[0x30, 17 + len, 0x30, 13], &oid[..], &[0x05, 0, 0x04, len]].concat();
    (prefix, hash)
}
