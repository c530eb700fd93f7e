//! Signature checks in pure Rust (jwt-compact over the RustCrypto crates): the fallback where the host has no
//! crypto library to offer, the only one for what hosts do not check, and the oracle that they are compared with.
//! Knows nothing of tokens.

use hmac::{Hmac, Mac as _};
use jwt_compact::{
    Algorithm as _, AlgorithmSignature as _,
    alg::{Es256, Rsa, RsaSignature},
};
use p384::ecdsa::signature::Verifier as _;
use sha2::{Sha256, Sha384, Sha512};

use crate::{
    Algorithm, Key,
    algorithm::Family,
    jwks::Public,
    jws::{Unavailable, Verifier},
};

type P256Signature = <Es256 as jwt_compact::Algorithm>::Signature;
type P384Signature = p384::ecdsa::Signature;

/// The portable verifier. Never unavailable.
#[derive(Debug, Clone, Copy, Default)]
pub struct Portable;

impl Verifier for Portable {
    fn verify(
        &self,
        algorithm: Algorithm,
        key: &Key,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<bool, Unavailable> {
        Ok(is_good(algorithm, key.material(), signed, signature).unwrap_or(false))
    }
}

/// `None` for a key of another kind, and for a signature of another form.
fn is_good(algorithm: Algorithm, key: &Public, signed: &[u8], signature: &[u8]) -> Option<bool> {
    let rsa = |rsa: Rsa| {
        let Public::Rsa { key, .. } = key else { return None };
        let signature = RsaSignature::try_from_slice(signature).ok()?;
        Some(rsa.verify_signature(&signature, key, signed))
    };
    let secret = || match key {
        Public::Secret(secret) => Some(secret.as_slice()),
        Public::Rsa { .. } | Public::P256(_) | Public::P384(_) | Public::Ed25519(_) => None,
    };
    match algorithm {
        Algorithm::Rs256 => rsa(Rsa::rs256()),
        Algorithm::Rs384 => rsa(Rsa::rs384()),
        Algorithm::Rs512 => rsa(Rsa::rs512()),
        Algorithm::Ps256 => rsa(Rsa::ps256()),
        Algorithm::Ps384 => rsa(Rsa::ps384()),
        Algorithm::Ps512 => rsa(Rsa::ps512()),
        Algorithm::Es256 => {
            let Public::P256(key) = key else { return None };
            let signature = P256Signature::try_from_slice(signature).ok()?;
            Some(Es256.verify_signature(&signature, key, signed))
        }
        Algorithm::Es384 => {
            let Public::P384(key) = key else { return None };
            let signature = P384Signature::from_slice(signature).ok()?;
            Some(key.verify(signed, &signature).is_ok())
        }
        Algorithm::EdDsa => {
            let Public::Ed25519(key) = key else { return None };
            let signature = signature.try_into().ok()?;
            // Strict: a signature has one form, and none is good under two keys.
            Some(key.verify_strict(signed, &signature).is_ok())
        }
        // The comparison is in constant time.
        Algorithm::Hs256 => {
            let mac = Hmac::<Sha256>::new_from_slice(secret()?).ok()?.chain_update(signed);
            Some(mac.verify_slice(signature).is_ok())
        }
        Algorithm::Hs384 => {
            let mac = Hmac::<Sha384>::new_from_slice(secret()?).ok()?.chain_update(signed);
            Some(mac.verify_slice(signature).is_ok())
        }
        Algorithm::Hs512 => {
            let mac = Hmac::<Sha512>::new_from_slice(secret()?).ok()?.chain_update(signed);
            Some(mac.verify_slice(signature).is_ok())
        }
    }
}

/// Whether this may be a signature of `algorithm` as far as its form tells: for ECDSA two numbers of the curve's
/// size, each from 1 to below its order (acceptance J7). Checked before any verifier is asked, so that all of them
/// see the same signatures.
pub(crate) fn is_well_formed(algorithm: Algorithm, signature: &[u8]) -> bool {
    match algorithm.family() {
        Family::P256 => P256Signature::try_from_slice(signature).is_ok(),
        Family::P384 => P384Signature::from_slice(signature).is_ok(),
        // Their lengths depend on the key, or are the whole form.
        Family::Rsa | Family::Ed25519 | Family::Secret(_) => true,
    }
}
