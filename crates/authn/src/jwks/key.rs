//! One key: what it is, what it may verify, and whether it is fit for anything at all.
//! Knows nothing of sets.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jwt_compact::{
    alg::{Ed25519, Es256, RsaPublicKey, VerifyingKey as _},
    jwk::JsonWebKey,
};

use super::{MAX_SECRET_BYTES, is_key_id};
use crate::{
    Algorithm,
    algorithm::Family,
    der,
    strict::{Object, Value},
};

/// RFC 7518 §3.3 asks for 2048 at least; the upper bound is the portable verifier's, and what a request may cost.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// RFC 7518 §3.2: the hash of HS256, the smallest of them.
const MIN_SECRET_BYTES: usize = 32;

type P256Key = <Es256 as jwt_compact::Algorithm>::VerifyingKey;
type P384Key = p384::ecdsa::VerifyingKey;
type Ed25519Key = <Ed25519 as jwt_compact::Algorithm>::VerifyingKey;

/// A key and what it may verify.
#[derive(Debug, Clone)]
pub struct Key {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    spki: Vec<u8>,
    public: Public,
}

#[derive(Clone)]
pub(crate) enum Public {
    Rsa {
        key: RsaPublicKey,
        modulus_bytes: usize,
    },
    P256(P256Key),
    P384(P384Key),
    Ed25519(Ed25519Key),
    /// Not public at all; it stands only in sets that somebody holds by themselves.
    Secret(Vec<u8>),
}

/// Why one key of a set is not used (acceptance J11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not an object, or a member of the wrong type.
    #[error("the key is not a JSON Web Key")]
    NotAKey,
    /// `use` or `key_ops` say that it does not verify signatures.
    #[error("the key is not for signatures")]
    NotForSignatures,
    /// `kty`, `crv` or `alg` is none of ours, or they contradict each other.
    #[error("the key's type, curve or algorithm is not supported")]
    Unsupported,
    /// `kid` is empty, too long or has control characters.
    #[error("the key's id is not valid")]
    KeyId,
    /// An RSA modulus below 2048 or above 4096 bits, or even.
    #[error("the RSA modulus is not valid")]
    Modulus,
    /// An RSA exponent that is 1, even, or larger than 33 bits.
    #[error("the RSA exponent is not valid")]
    Exponent,
    /// Not a point on the curve, or one of the few of small order, under which anything verifies.
    #[error("the point is not on the curve or of small order")]
    Point,
    /// A secret of less than 32 or more than 256 bytes, or shorter than the hash of its `alg`.
    #[error("the secret is too short or too long")]
    Secret,
}

// === impl Key ===

impl Key {
    /// Reads a public key.
    pub(super) fn public(members: Object<'_>) -> Result<Self, Unusable> {
        Self::read(members, |members| {
            let number = |name| number(members, name);
            match (text(members, "kty")?, text(members, "crv")?) {
                (Some("RSA"), _) => rsa(&number("n")?, &number("e")?),
                (Some("EC"), Some("P-256")) => p256(&number("x")?, &number("y")?),
                (Some("EC"), Some("P-384")) => p384(&number("x")?, &number("y")?),
                (Some("OKP"), Some("Ed25519")) => ed25519(&number("x")?),
                _ => Err(Unusable::Unsupported),
            }
        })
    }

    /// Reads a secret.
    pub(super) fn secret(members: Object<'_>) -> Result<Self, Unusable> {
        Self::read(members, |members| {
            let secret = number(members, "k")?;
            let fits = (MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&secret.len());
            if fits { Ok((Public::Secret(secret), Vec::new())) } else { Err(Unusable::Secret) }
        })
    }

    /// `secret` as a key without a name.
    pub(super) fn of_secret(secret: &[u8]) -> Self {
        let public = Public::Secret(secret.to_vec());
        Self { id: None, algorithm: None, spki: Vec::new(), public }
    }

    fn read(
        members: Object<'_>,
        material: impl FnOnce(Object<'_>) -> Result<(Public, Vec<u8>), Unusable>,
    ) -> Result<Self, Unusable> {
        if text(members, "use")?.is_some_and(|purpose| purpose != "sig") {
            return Err(Unusable::NotForSignatures);
        }
        let verifies = |operation: Value<'_>| operation.as_str() == Some("verify");
        match members.get("key_ops") {
            None => {}
            Some(Value::List(operations)) if operations.iter().any(verifies) => {}
            Some(Value::List(_)) => return Err(Unusable::NotForSignatures),
            Some(_) => return Err(Unusable::NotAKey),
        }
        let id = text(members, "kid")?;
        if id.is_some_and(|id| !is_key_id(id)) {
            return Err(Unusable::KeyId);
        }
        let algorithm = text(members, "alg")?.map(str::parse).transpose();
        let algorithm: Option<Algorithm> = algorithm.map_err(|_unknown| Unusable::Unsupported)?;
        let (public, spki) = material(members)?;
        let key = Self { id: id.map(str::to_owned), algorithm: None, spki, public };
        match algorithm {
            Some(algorithm) if !key.fits(algorithm) => Err(Unusable::Unsupported),
            _ => Ok(Self { algorithm, ..key }),
        }
    }

    /// Its `kid`.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether it may verify signatures of `algorithm`: by its type and curve, by its `alg` where it has one, and by
    /// its length where it is a secret.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.signature_bytes(algorithm).is_some()
            && self.algorithm.is_none_or(|bound| bound == algorithm)
    }

    /// DER SubjectPublicKeyInfo, as Envoy's `verify_signature` takes it; empty for keys that no host verifies with
    /// ([`Algorithm::native_hash`]).
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The length of every signature of `algorithm` that this key can have made, in bytes (RFC 7518 §3.2 to §3.5,
    /// RFC 8032 §5.1.6); `None` where it does not fit.
    pub fn signature_bytes(&self, algorithm: Algorithm) -> Option<usize> {
        match (&self.public, algorithm.family()) {
            (Public::Rsa { modulus_bytes, .. }, Family::Rsa) => Some(*modulus_bytes),
            (Public::P256(_), Family::P256) | (Public::Ed25519(_), Family::Ed25519) => Some(64),
            (Public::P384(_), Family::P384) => Some(96),
            (Public::Secret(secret), Family::Secret(hash)) if secret.len() >= hash => Some(hash),
            _ => None,
        }
    }

    pub(crate) fn material(&self) -> &Public {
        &self.public
    }
}

// === impl Public ===

/// A secret is never shown.
impl std::fmt::Debug for Public {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rsa { .. } => "Rsa(…)",
            Self::P256(_) => "P256(…)",
            Self::P384(_) => "P384(…)",
            Self::Ed25519(_) => "Ed25519(…)",
            Self::Secret(_) => "Secret(…)",
        })
    }
}

fn text<'m>(members: Object<'m>, name: &str) -> Result<Option<&'m str>, Unusable> {
    match members.get(name) {
        None => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or(Unusable::NotAKey),
    }
}

fn number(members: Object<'_>, name: &str) -> Result<Vec<u8>, Unusable> {
    let digits = text(members, name)?.ok_or(Unusable::NotAKey)?;
    URL_SAFE_NO_PAD.decode(digits).map_err(|_undecodable| Unusable::NotAKey)
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<(Public, Vec<u8>), Unusable> {
    let modulus = without_zeros(modulus);
    let exponent = without_zeros(exponent);
    let top_bits = modulus.first().map_or(0, |first| 8 - first.leading_zeros() as usize);
    let bits = modulus.len().saturating_sub(1).saturating_mul(8).saturating_add(top_bits);
    if !RSA_BITS.contains(&bits) || modulus.last().is_none_or(|last| last & 1 == 0) {
        return Err(Unusable::Modulus);
    }
    // This refuses exponents that are 0, 1, even or larger than 33 bits.
    let key = RsaPublicKey::try_from(&JsonWebKey::Rsa {
        modulus: modulus.into(),
        public_exponent: exponent.into(),
        private_parts: None,
    })
    .map_err(|_refused| Unusable::Exponent)?;
    let spki = der::rsa_spki(modulus, exponent);
    Ok((Public::Rsa { key, modulus_bytes: modulus.len() }, spki))
}

fn p256(x: &[u8], y: &[u8]) -> Result<(Public, Vec<u8>), Unusable> {
    let point = uncompressed(x, y, 32)?;
    let key = P256Key::from_slice(&point).map_err(|_off_curve| Unusable::Point)?;
    let spki = der::p256_spki(&point);
    Ok((Public::P256(key), spki))
}

fn p384(x: &[u8], y: &[u8]) -> Result<(Public, Vec<u8>), Unusable> {
    let point = uncompressed(x, y, 48)?;
    let key = P384Key::from_sec1_bytes(&point).map_err(|_off_curve| Unusable::Point)?;
    let spki = der::p384_spki(&point);
    Ok((Public::P384(key), spki))
}

/// SEC 1 §2.3.3. RFC 7518 §6.2.1.2: the full size of a coordinate, leading zeros included; that of `y` is what is left
/// of the point's, which its reader holds.
fn uncompressed(x: &[u8], y: &[u8], coordinate_bytes: usize) -> Result<Vec<u8>, Unusable> {
    if x.len() != coordinate_bytes {
        return Err(Unusable::Point);
    }
    Ok([&[4], x, y].concat())
}

fn ed25519(x: &[u8]) -> Result<(Public, Vec<u8>), Unusable> {
    let bytes: &[u8; 32] = x.try_into().map_err(|_length| Unusable::Point)?;
    let key = Ed25519Key::from_bytes(bytes).map_err(|_off_curve| Unusable::Point)?;
    // Under a key of small order one signature is good for many messages.
    if key.is_weak() || !is_canonical(bytes) {
        return Err(Unusable::Point);
    }
    Ok((Public::Ed25519(key), Vec::new()))
}

/// Whether the y-coordinate (little-endian, without the sign bit) is below 2^255 − 19, so that a point has one
/// spelling (RFC 8032 §5.1.3).
pub(super) fn is_canonical(y: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = y;
    *low < 0xed || high & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff)
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}
