//! Key sets (RFC 7517): which keys may verify what. Everything that can be wrong with a key is found here, once,
//! at load; verification only compares. Both forms that the verifiers take are prepared here too.
//! Knows nothing of where a set comes from.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jwt_compact::{
    alg::{Es256, RsaPublicKey, VerifyingKey as _},
    jwk::JsonWebKey,
};

use crate::{
    Algorithm, der,
    jws::MAX_KEY_ID_BYTES,
    strict::{self, Object, Value},
};

/// The longest key set that is read, in bytes.
pub const MAX_SET_BYTES: usize = 64 * 1024;
/// The most keys in a set.
pub const MAX_KEYS: usize = 100;
/// How many keys are tried for one token (acceptance J12).
pub const MAX_TRIED: usize = 5;

const MAX_DEPTH: usize = 16;
/// RFC 7518 §3.3 asks for 2048 at least; the upper bound is the portable verifier's, and what a request may cost.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// Members that only private or symmetric keys have (RFC 7518 §6.2.2, §6.3.2, §6.4.1).
const PRIVATE: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

pub(crate) type EcKey = <Es256 as jwt_compact::Algorithm>::VerifyingKey;

/// The keys of one issuer that may verify.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    skipped: Vec<Skipped>,
}

/// A public key and what it may verify.
#[derive(Debug, Clone)]
pub struct Key {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    spki: Vec<u8>,
    public: Public,
}

#[derive(Debug, Clone)]
pub(crate) enum Public {
    Rsa { key: RsaPublicKey, modulus_bytes: usize },
    P256(EcKey),
}

/// A key of the set that is not used, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// Its place in `keys`, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub cause: Unusable,
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
    /// Not a point on the curve.
    #[error("the point is not on the curve")]
    Point,
}

/// The whole set is refused; keep the one before (acceptance J15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSet {
    /// More than [`MAX_SET_BYTES`].
    #[error("the key set is larger than 64 KiB")]
    TooLarge,
    /// Not an object with a list `keys`, or a member stands twice, or nested too deeply.
    #[error("the document is not a key set")]
    NotASet,
    /// More than [`MAX_KEYS`].
    #[error("the key set has more than 100 keys")]
    TooMany,
    /// A private or symmetric key was published: whoever read the set can sign.
    #[error("the key set holds private key material")]
    Private,
}

// === impl KeySet ===

impl KeySet {
    /// Reads a key set. Keys that cannot be used are left out and listed in [`Self::skipped`].
    pub fn parse(text: &[u8]) -> Result<Self, BadSet> {
        if text.len() > MAX_SET_BYTES {
            return Err(BadSet::TooLarge);
        }
        let set = strict::object(text, MAX_DEPTH).map_err(|_fault| BadSet::NotASet)?;
        let Some(Value::List(items)) = set.get("keys") else { return Err(BadSet::NotASet) };
        if items.len() > MAX_KEYS {
            return Err(BadSet::TooMany);
        }
        if items.iter().any(|item| PRIVATE.iter().any(|name| item.member(name).is_some())) {
            return Err(BadSet::Private);
        }
        let mut read = Self::default();
        for (index, item) in items.iter().enumerate() {
            let key = match item {
                Value::Object(members) => Key::read(members),
                _ => Err(Unusable::NotAKey),
            };
            match key {
                Ok(key) => read.keys.push(key),
                Err(cause) => read.skipped.push(Skipped { index, cause }),
            }
        }
        Ok(read)
    }

    /// The usable keys, in the set's order.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The keys that were left out, for the log.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Whether a usable key has this id.
    pub fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.id() == Some(kid))
    }

    /// The keys to try: all that fit `algorithm`, and of this id if one is given; at most [`MAX_TRIED`].
    pub fn candidates<'s>(
        &'s self,
        algorithm: Algorithm,
        kid: Option<&'s str>,
    ) -> impl Iterator<Item = &'s Key> {
        self.keys
            .iter()
            .filter(move |key| key.fits(algorithm) && (kid.is_none() || key.id() == kid))
            .take(MAX_TRIED)
    }
}

// === impl Key ===

impl Key {
    fn read(members: &Object) -> Result<Self, Unusable> {
        let text = |name| match members.get(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or(Unusable::NotAKey),
        };
        let number = |name| {
            let digits = text(name)?.ok_or(Unusable::NotAKey)?;
            URL_SAFE_NO_PAD.decode(digits).map_err(|_undecodable| Unusable::NotAKey)
        };
        if text("use")?.is_some_and(|purpose| purpose != "sig") {
            return Err(Unusable::NotForSignatures);
        }
        let verifies = |operation: &Value| operation.as_str() == Some("verify");
        match members.get("key_ops") {
            None => {}
            Some(Value::List(operations)) if operations.iter().any(verifies) => {}
            Some(Value::List(_)) => return Err(Unusable::NotForSignatures),
            Some(_) => return Err(Unusable::NotAKey),
        }
        let id = text("kid")?;
        if id.is_some_and(|id| !is_key_id(id)) {
            return Err(Unusable::KeyId);
        }
        let algorithm: Option<Algorithm> =
            text("alg")?.map(str::parse).transpose().map_err(|_unknown| Unusable::Unsupported)?;
        let (public, spki) = match text("kty")? {
            Some("RSA") => rsa(&number("n")?, &number("e")?)?,
            Some("EC") if text("crv")? == Some("P-256") => p256(&number("x")?, &number("y")?)?,
            _ => return Err(Unusable::Unsupported),
        };
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

    /// Whether it may verify signatures of `algorithm`: by its type and curve, and by its `alg` where it has one.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        let by_type = match (&self.public, algorithm) {
            (Public::Rsa { .. }, Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512)
            | (Public::P256(_), Algorithm::Es256) => true,
            (Public::Rsa { .. }, Algorithm::Es256)
            | (Public::P256(_), Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512) => false,
        };
        by_type && self.algorithm.is_none_or(|bound| bound == algorithm)
    }

    /// DER SubjectPublicKeyInfo, as Envoy's `verify_signature` takes it.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The length of every signature that this key can have made, in bytes (RFC 7518 §3.3, §3.4).
    pub fn signature_bytes(&self) -> usize {
        match &self.public {
            Public::Rsa { modulus_bytes, .. } => *modulus_bytes,
            Public::P256(_) => 64,
        }
    }

    pub(crate) fn public(&self) -> &Public {
        &self.public
    }
}

/// Key ids go into a call-out's query and into logs: bounded, printable.
pub(crate) fn is_key_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_KEY_ID_BYTES && !id.chars().any(char::is_control)
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
    // RFC 7518 §6.2.1.2: the full size of a coordinate, leading zeros included.
    if x.len() != 32 || y.len() != 32 {
        return Err(Unusable::Point);
    }
    let point = [&[4], x, y].concat();
    let key = EcKey::from_slice(&point).map_err(|_off_curve| Unusable::Point)?;
    let spki = der::p256_spki(&point);
    Ok((Public::P256(key), spki))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests;
