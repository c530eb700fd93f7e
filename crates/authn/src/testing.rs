//! Signs tokens for this crate's tests with the keys of `testdata/`.

use std::sync::OnceLock;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use jwt_compact::{
    Algorithm as _, AlgorithmSignature as _,
    alg::{Ed25519, Es256, Rsa, RsaPrivateKey, SigningKey as _},
    jwk::JsonWebKey,
};
use p384::ecdsa::signature::Signer as _;
use sha2::{Sha256, Sha384, Sha512};

use crate::{Algorithm, KeySet, algorithm::Family};

const RSA: &str = include_str!("../testdata/rsa.private.jwk.json");
const EC: &str = include_str!("../testdata/ec.private.jwk.json");
const EC384: &str = include_str!("../testdata/ec384.private.jwk.json");
const ED25519: &str = include_str!("../testdata/ed25519.private.jwk.json");
/// The secret of HS256 and its kin.
pub(crate) const SECRET: &[u8] = &[0x5a; 64];

type P256Key = <Es256 as jwt_compact::Algorithm>::SigningKey;
type P384Key = p384::ecdsa::SigningKey;
type Ed25519Key = <Ed25519 as jwt_compact::Algorithm>::SigningKey;

/// A test key as it would be published, with `more` members on top.
pub(crate) fn public_jwk(private: &str, more: &str) -> String {
    let mut jwk: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(private).unwrap();
    for secret in ["d", "p", "q"] {
        jwk.remove(secret);
    }
    let more: serde_json::Map<_, _> = serde_json::from_str(more).unwrap();
    jwk.extend(more);
    serde_json::to_string(&jwk).unwrap()
}

/// The RSA test key, published with `more` members.
pub(crate) fn rsa(more: &str) -> String {
    public_jwk(RSA, more)
}

/// The P-256 test key, published with `more` members.
pub(crate) fn ec(more: &str) -> String {
    public_jwk(EC, more)
}

/// The P-384 test key, published with `more` members.
pub(crate) fn ec384(more: &str) -> String {
    public_jwk(EC384, more)
}

/// The Ed25519 test key, published with `more` members.
pub(crate) fn ed25519(more: &str) -> String {
    public_jwk(ED25519, more)
}

/// The published test key that checks signatures of `algorithm`, or the secret.
pub(crate) fn key_for(algorithm: Algorithm, more: &str) -> String {
    match algorithm.family() {
        Family::Rsa => rsa(more),
        Family::P256 => ec(more),
        Family::P384 => ec384(more),
        Family::Ed25519 => ed25519(more),
        Family::Secret(_) => {
            let secret = format!(r#"{{"kty":"oct","k":"{}"}}"#, encode(SECRET));
            // Only members of private keys are taken away, and a secret is none by name.
            public_jwk(&secret, more)
        }
    }
}

/// The set of that key alone.
pub(crate) fn set_for(algorithm: Algorithm) -> KeySet {
    let text = set_text(&[key_for(algorithm, "{}")]);
    let parse = if algorithm.is_symmetric() { KeySet::parse_secrets } else { KeySet::parse };
    parse(text.as_bytes()).unwrap()
}

/// A key set document of these keys.
pub(crate) fn set_text(keys: &[String]) -> String {
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

/// A key set of these keys, all of them usable.
pub(crate) fn set(keys: &[String]) -> KeySet {
    let set = KeySet::parse(set_text(keys).as_bytes()).unwrap();
    assert_eq!(set.skipped(), []);
    set
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token of exactly these texts, signed with the test key for `algorithm`.
pub(crate) fn sign(algorithm: Algorithm, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = signature(algorithm, signed.as_bytes());
    format!("{signed}.{}", encode(signature))
}

struct Keys {
    rsa: RsaPrivateKey,
    p256: P256Key,
    p384: P384Key,
    ed25519: Ed25519Key,
}

/// The signature of `signed` by the test key for `algorithm`.
pub(crate) fn signature(algorithm: Algorithm, signed: &[u8]) -> Vec<u8> {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        let jwk = |text| serde_json::from_str::<JsonWebKey<'_>>(text).unwrap();
        Keys {
            rsa: RsaPrivateKey::try_from(&jwk(RSA)).unwrap(),
            p256: P256Key::try_from(&jwk(EC)).unwrap(),
            p384: P384Key::from_slice(&private_number(EC384)).unwrap(),
            ed25519: Ed25519Key::from_slice(&private_number(ED25519)).unwrap(),
        }
    });
    let rsa = |rsa: Rsa| rsa.sign(&keys.rsa, signed).as_bytes().into_owned();
    match algorithm {
        Algorithm::Rs256 => rsa(Rsa::rs256()),
        Algorithm::Rs384 => rsa(Rsa::rs384()),
        Algorithm::Rs512 => rsa(Rsa::rs512()),
        Algorithm::Ps256 => rsa(Rsa::ps256()),
        Algorithm::Ps384 => rsa(Rsa::ps384()),
        Algorithm::Ps512 => rsa(Rsa::ps512()),
        Algorithm::Es256 => Es256.sign(&keys.p256, signed).as_bytes().into_owned(),
        Algorithm::Es384 => {
            let signature: p384::ecdsa::Signature = keys.p384.sign(signed);
            signature.to_bytes().to_vec()
        }
        Algorithm::EdDsa => Ed25519.sign(&keys.ed25519, signed).as_bytes().into_owned(),
        Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => hmac(algorithm, SECRET, signed),
    }
}

/// The HMAC of `signed` under any secret.
pub(crate) fn hmac(algorithm: Algorithm, secret: &[u8], signed: &[u8]) -> Vec<u8> {
    match algorithm {
        Algorithm::Hs384 => {
            let mac = Hmac::<Sha384>::new_from_slice(secret).unwrap();
            mac.chain_update(signed).finalize().into_bytes().to_vec()
        }
        Algorithm::Hs512 => {
            let mac = Hmac::<Sha512>::new_from_slice(secret).unwrap();
            mac.chain_update(signed).finalize().into_bytes().to_vec()
        }
        _ => {
            let mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
            mac.chain_update(signed).finalize().into_bytes().to_vec()
        }
    }
}

/// The member `d`.
fn private_number(jwk: &str) -> Vec<u8> {
    let jwk: serde_json::Value = serde_json::from_str(jwk).unwrap();
    URL_SAFE_NO_PAD.decode(jwk["d"].as_str().unwrap()).unwrap()
}
