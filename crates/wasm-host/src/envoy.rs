//! Signature checks by Envoy's own library (BoringSSL), through its foreign function `verify_signature`.
//! Knows nothing of tokens. Other hosts answer `NotFound`, or trap: configuration decides, then a probe.

use gatehouse_authn::{Algorithm, Key, Portable, Unavailable, Verifier, jws};

use crate::abi;

/// The verifier of Envoy. Trust it only after [`gatehouse_authn::probe::check`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct EnvoyVerifier;

impl Verifier for EnvoyVerifier {
    fn verify(
        &self,
        algorithm: Algorithm,
        key: &Key,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<bool, Unavailable> {
        let Some(hash) = algorithm.native_hash() else {
            return Portable.verify(algorithm, key, signed, signature);
        };
        // `None` for RSA, whose signatures have no other form.
        let der = jws::ecdsa_der(algorithm, signature);
        let signature = der.as_deref().unwrap_or(signature);
        let arguments = encode(&[hash.as_bytes(), key.spki_der(), signature, signed]);
        let result = abi::foreign_function("verify_signature", &arguments).ok_or(Unavailable)?;
        Ok(result == VALID)
    }
}

/// `VerifySignatureResult { result: true }`. Anything else is a refusal, with a text that is for nobody.
const VALID: &[u8] = &[0x08, 0x01];

/// `VerifySignatureArguments`: the fields 1 to 4, all of them bytes or strings.
fn encode(fields: &[&[u8]]) -> Vec<u8> {
    let size: usize = fields.iter().map(|field| field.len().saturating_add(6)).sum();
    let mut message = Vec::with_capacity(size);
    for (number, field) in (1_u8..).zip(fields) {
        message.push(number << 3 | 2);
        varint(&mut message, field.len());
        message.extend_from_slice(field);
    }
    message
}

fn varint(message: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        message.push(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    message.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_protobuf() {
        assert_eq!(encode(&[b"ab", b"", b"c"]), [0x0a, 2, b'a', b'b', 0x12, 0, 0x1a, 1, b'c']);
        let long = encode(&[&[7; 300]]);
        assert_eq!(long.get(..4), Some([0x0a, 0xac, 0x02, 7].as_slice()));
        assert_eq!(long.len(), 303);
    }
}
