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
use rsa::{
    BigUint,
    traits::{PrivateKeyParts as _, PublicKeyParts as _},
};
use sha2::{Sha256, Sha384, Sha512};

use crate::{Algorithm, KeySet, algorithm::Family};

const RSA: &str = include_str!("../testdata/rsa.private.jwk.json");
const RSA3072: &str = include_str!("../testdata/rsa3072.private.jwk.json");
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

/// The other RSA test key, published with `more` members.
pub(crate) fn rsa3072(more: &str) -> String {
    public_jwk(RSA3072, more)
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

/// The key of [`other_signature`] as it would be published, without an id.
pub(crate) fn other_key_for(algorithm: Algorithm) -> String {
    let others = Keys::others();
    let ec = |crv: &str, point: &[u8]| {
        let (x, y) = point[1..].split_at(point.len() / 2);
        format!(r#"{{"kty":"EC","crv":"{crv}","x":"{}","y":"{}"}}"#, encode(x), encode(y))
    };
    match algorithm.family() {
        Family::Rsa => rsa3072("{}"),
        Family::P256 => ec("P-256", others.p256.verifying_key().to_encoded_point(false).as_bytes()),
        Family::P384 => ec("P-384", others.p384.verifying_key().to_encoded_point(false).as_bytes()),
        Family::Ed25519 => {
            let x = encode(others.ed25519.verifying_key());
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#)
        }
        Family::Secret(_) => format!(r#"{{"kty":"oct","k":"{}"}}"#, encode([7; 64])),
    }
}

/// The signature of `signed` by another key of the same kind.
pub(crate) fn other_signature(algorithm: Algorithm, signed: &[u8]) -> Vec<u8> {
    match algorithm.family() {
        Family::Secret(_) => hmac(algorithm, &[7; 64], signed),
        _ => Keys::others().sign(algorithm, signed),
    }
}

struct Keys {
    rsa: RsaPrivateKey,
    p256: P256Key,
    p384: P384Key,
    ed25519: Ed25519Key,
}

/// The signature of `signed` by the test key for `algorithm`.
pub(crate) fn signature(algorithm: Algorithm, signed: &[u8]) -> Vec<u8> {
    match algorithm.family() {
        Family::Secret(_) => hmac(algorithm, SECRET, signed),
        _ => Keys::ours().sign(algorithm, signed),
    }
}

impl Keys {
    fn ours() -> &'static Self {
        static KEYS: OnceLock<Keys> = OnceLock::new();
        KEYS.get_or_init(|| Self {
            rsa: RsaPrivateKey::try_from(&jwk(RSA)).unwrap(),
            p256: P256Key::try_from(&jwk(EC)).unwrap(),
            p384: P384Key::from_slice(&private_number(EC384)).unwrap(),
            ed25519: Ed25519Key::from_slice(&private_number(ED25519)).unwrap(),
        })
    }

    fn others() -> &'static Self {
        static KEYS: OnceLock<Keys> = OnceLock::new();
        KEYS.get_or_init(|| Self {
            rsa: RsaPrivateKey::try_from(&jwk(RSA3072)).unwrap(),
            p256: P256Key::from_slice(&[7; 32]).unwrap(),
            p384: P384Key::from_slice(&[7; 48]).unwrap(),
            ed25519: Ed25519Key::from_slice(&[7; 32]).unwrap(),
        })
    }

    fn sign(&self, algorithm: Algorithm, signed: &[u8]) -> Vec<u8> {
        let rsa = |rsa: Rsa| rsa.sign(&self.rsa, signed).as_bytes().into_owned();
        match algorithm {
            Algorithm::Rs256 => rsa(Rsa::rs256()),
            Algorithm::Rs384 => rsa(Rsa::rs384()),
            Algorithm::Rs512 => rsa(Rsa::rs512()),
            Algorithm::Ps256 => rsa(Rsa::ps256()),
            Algorithm::Ps384 => rsa(Rsa::ps384()),
            Algorithm::Ps512 => rsa(Rsa::ps512()),
            Algorithm::Es256 => Es256.sign(&self.p256, signed).as_bytes().into_owned(),
            Algorithm::Es384 => {
                let signature: p384::ecdsa::Signature = self.p384.sign(signed);
                signature.to_bytes().to_vec()
            }
            Algorithm::EdDsa => Ed25519.sign(&self.ed25519, signed).as_bytes().into_owned(),
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => unreachable!(),
        }
    }
}

fn jwk(text: &str) -> JsonWebKey<'_> {
    serde_json::from_str(text).unwrap()
}

/// The RSA test key's private operation on `message`, a number below the modulus: a signature with any padding.
pub(crate) fn rsa_raw(message: &[u8]) -> Vec<u8> {
    let key = &Keys::ours().rsa;
    let signature = BigUint::from_bytes_be(message).modpow(key.d(), key.n());
    padded(&signature, key.size())
}

/// An RSA signature with the modulus added once; `None` where that is too long by then.
pub(crate) fn rsa_beyond_modulus(signature: &[u8]) -> Option<Vec<u8>> {
    let key = &Keys::ours().rsa;
    let beyond = BigUint::from_bytes_be(signature) + key.n();
    (beyond.to_bytes_be().len() == key.size()).then(|| padded(&beyond, key.size()))
}

/// The order of the curve of `algorithm`, and for `s` its other value under which a signature is as good.
pub(crate) fn ecdsa_twin(algorithm: Algorithm, signature: &[u8]) -> (Vec<u8>, Vec<u8>) {
    const P256: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    const P384: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973";
    let order = if algorithm == Algorithm::Es256 { P256 } else { P384 };
    let order = BigUint::parse_bytes(order.as_bytes(), 16).unwrap();
    let (r, s) = signature.split_at(signature.len() / 2);
    let twin = &order - BigUint::from_bytes_be(s);
    (padded(&order, r.len()), [r, &padded(&twin, s.len())].concat())
}

fn padded(number: &BigUint, bytes: usize) -> Vec<u8> {
    let digits = number.to_bytes_be();
    [vec![0; bytes - digits.len()], digits].concat()
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
