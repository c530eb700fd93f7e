//! A public key in PEM as a key of a set (RFC 7517): RSA, the curves that tokens are checked with here, Ed25519.
//! Structure is the library's to read; whether a point is on its curve the compiler of the document says.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rsa::{
    RsaPublicKey,
    pkcs1::DecodeRsaPublicKey,
    pkcs8::{DecodePublicKey, ObjectIdentifier, der::Decode, spki::SubjectPublicKeyInfoRef},
    traits::PublicKeyParts,
};
use serde_json::{Value, json};

/// RFC 5480, RFC 8410.
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// The key set with this key, for tokens of `algorithm`; else why there is none.
pub(super) fn key_set(pem: &str, algorithm: &str) -> Result<Value, &'static str> {
    let body: String =
        pem.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(body).map_err(|_| "is no key in PEM")?;
    let key = rsa(&der).map_or_else(|| other(&der), Ok)?;
    let fits = match algorithm {
        "ES256" => "P-256",
        "ES384" => "P-384",
        "EdDSA" => "Ed25519",
        _ => "RSA",
    };
    let is = key.get("crv").or(key.get("kty")).and_then(Value::as_str);
    match is == Some(fits) {
        true => Ok(json!({ "keys": [key] })),
        false => Err("is a key of another kind than its algorithm's"),
    }
}

fn rsa(der: &[u8]) -> Option<Value> {
    let key = RsaPublicKey::from_public_key_der(der)
        .ok()
        .or_else(|| RsaPublicKey::from_pkcs1_der(der).ok())?;
    let number = |number: &rsa::BigUint| URL_SAFE_NO_PAD.encode(number.to_bytes_be());
    Some(json!({"kty": "RSA", "use": "sig", "n": number(key.n()), "e": number(key.e())}))
}

fn other(der: &[u8]) -> Result<Value, &'static str> {
    let key = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| "is no public key in PEM")?;
    let bytes = key.subject_public_key.as_bytes().ok_or("is no public key in PEM")?;
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    if key.algorithm.oid == ED25519 {
        return Ok(json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "x": text(bytes)}));
    }
    let curve = (key.algorithm.oid == EC).then(|| key.algorithm.parameters_oid().ok()).flatten();
    let (name, size) = match curve {
        Some(P256) => ("P-256", 32),
        Some(P384) => ("P-384", 48),
        _ => {
            return Err("is a key that no token is checked with here (RSA, P-256, P-384, Ed25519)");
        }
    };
    // SEC 1 §2.3.3: both coordinates, or one of them and a hint.
    let point = bytes.strip_prefix(&[4]).and_then(|point| point.split_at_checked(size));
    match point {
        Some((x, y)) if y.len() == size => {
            Ok(json!({"kty": "EC", "crv": name, "use": "sig", "x": text(x), "y": text(y)}))
        }
        _ => {
            Err("is a compressed point (openssl ec -pubin -conv_form uncompressed writes it whole)")
        }
    }
}
