//! A public key in PEM as a key of a set (RFC 7517). Knows RSA alone: of others it says that it does not.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rsa::{
    RsaPublicKey, pkcs1::DecodeRsaPublicKey, pkcs8::DecodePublicKey, traits::PublicKeyParts,
};
use serde_json::{Value, json};

pub(super) fn key_set(pem: &str) -> Option<Value> {
    let body: String =
        pem.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(body).ok()?;
    let key = RsaPublicKey::from_public_key_der(&der)
        .ok()
        .or_else(|| RsaPublicKey::from_pkcs1_der(&der).ok())?;
    let number = |number: &rsa::BigUint| URL_SAFE_NO_PAD.encode(number.to_bytes_be());
    Some(
        json!({"keys": [{"kty": "RSA", "use": "sig", "n": number(key.n()), "e": number(key.e())}]}),
    )
}
