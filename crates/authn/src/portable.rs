//! Signature checks in pure Rust (jwt-compact over the RustCrypto crates): the fallback where the host has no
//! crypto library to offer, and the oracle that the host's is compared with.
//! Knows nothing of tokens.

use jwt_compact::{
    Algorithm as _, AlgorithmSignature as _,
    alg::{Es256, Rsa, RsaSignature},
};

use crate::{
    Algorithm, Key,
    jwks::Public,
    jws::{Unavailable, Verifier},
};

type EcSignature = <Es256 as jwt_compact::Algorithm>::Signature;

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
        let rsa = match algorithm {
            Algorithm::Rs256 => Rsa::rs256(),
            Algorithm::Rs384 => Rsa::rs384(),
            Algorithm::Rs512 => Rsa::rs512(),
            Algorithm::Es256 => {
                let Public::P256(key) = key.public() else { return Ok(false) };
                let Ok(signature) = EcSignature::try_from_slice(signature) else {
                    return Ok(false);
                };
                return Ok(Es256.verify_signature(&signature, key, signed));
            }
        };
        let Public::Rsa { key, .. } = key.public() else { return Ok(false) };
        let Ok(signature) = RsaSignature::try_from_slice(signature) else { return Ok(false) };
        Ok(rsa.verify_signature(&signature, key, signed))
    }
}

/// Whether this is two numbers of 32 bytes, each from 1 to below the order of P-256 (acceptance J7). Checked before
/// any verifier is asked, so that all of them see the same signatures.
pub(crate) fn is_ecdsa_signature(signature: &[u8]) -> bool {
    EcSignature::try_from_slice(signature).is_ok()
}
