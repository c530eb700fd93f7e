//! Signs tokens for this crate's tests with the keys of `testdata/`.

use std::sync::OnceLock;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jwt_compact::{
    Algorithm as _, AlgorithmSignature as _,
    alg::{Es256, Rsa, RsaPrivateKey},
    jwk::JsonWebKey,
};

use crate::{Algorithm, KeySet};

const RSA: &str = include_str!("../testdata/rsa.private.jwk.json");
const EC: &str = include_str!("../testdata/ec.private.jwk.json");

type EcPrivateKey = <Es256 as jwt_compact::Algorithm>::SigningKey;

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

pub(crate) fn signature(algorithm: Algorithm, signed: &[u8]) -> Vec<u8> {
    static KEYS: OnceLock<(RsaPrivateKey, EcPrivateKey)> = OnceLock::new();
    let (rsa_key, ec_key) = KEYS.get_or_init(|| {
        let rsa: JsonWebKey<'_> = serde_json::from_str(RSA).unwrap();
        let ec: JsonWebKey<'_> = serde_json::from_str(EC).unwrap();
        (RsaPrivateKey::try_from(&rsa).unwrap(), EcPrivateKey::try_from(&ec).unwrap())
    });
    let rsa = |rsa: Rsa| rsa.sign(rsa_key, signed).as_bytes().into_owned();
    match algorithm {
        Algorithm::Rs256 => rsa(Rsa::rs256()),
        Algorithm::Rs384 => rsa(Rsa::rs384()),
        Algorithm::Rs512 => rsa(Rsa::rs512()),
        Algorithm::Es256 => Es256.sign(ec_key, signed).as_bytes().into_owned(),
    }
}
