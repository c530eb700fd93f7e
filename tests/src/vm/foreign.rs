//! Envoy's foreign function `verify_signature`, with the same cryptography family (AWS-LC stems from BoringSSL).
//! Protobuf by hand: `{hash_function=1, public_key=2 (DER SPKI), signature=3, text=4, public_key_pem=5}` in,
//! `{result=1, error=2}` out.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

/// The arguments are no message of this kind: the host answers `BadArgument`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadArgument;

#[derive(Default)]
struct Ask<'a> {
    hash: &'a [u8],
    key: &'a [u8],
    signature: &'a [u8],
    text: &'a [u8],
    pem: &'a [u8],
}

/// The reply's bytes.
pub(crate) fn verify_signature(arguments: &[u8]) -> Result<Vec<u8>, BadArgument> {
    let ask = parse(arguments)?;
    if !ask.pem.is_empty() && !ask.key.is_empty() {
        return Err(BadArgument);
    }
    if !ask.pem.is_empty() {
        return Ok(failure("this host takes DER keys only"));
    }
    let Some(algorithms) = algorithms(&ask.hash.to_ascii_lowercase()) else {
        return Ok(failure("the hash function is not supported."));
    };
    let valid = algorithms.iter().any(|algorithm| {
        UnparsedPublicKey::new(*algorithm, ask.key).verify(ask.text, ask.signature).is_ok()
    });
    Ok(if valid { vec![0x08, 0x01] } else { failure("Failed to verify digest. Error code: 0") })
}

fn algorithms(hash: &[u8]) -> Option<[&'static dyn VerificationAlgorithm; 3]> {
    match hash {
        b"sha256" => Some([
            &signature::RSA_PKCS1_2048_8192_SHA256,
            &signature::ECDSA_P256_SHA256_ASN1,
            &signature::ECDSA_P384_SHA256_ASN1,
        ]),
        b"sha384" => Some([
            &signature::RSA_PKCS1_2048_8192_SHA384,
            &signature::ECDSA_P256_SHA384_ASN1,
            &signature::ECDSA_P384_SHA384_ASN1,
        ]),
        b"sha512" => Some([
            &signature::RSA_PKCS1_2048_8192_SHA512,
            &signature::ECDSA_P521_SHA512_ASN1,
            &signature::ECDSA_P521_SHA512_ASN1,
        ]),
        _ => None,
    }
}

fn failure(message: &str) -> Vec<u8> {
    let mut out = vec![0x12, u8::try_from(message.len()).unwrap_or(0)];
    out.extend_from_slice(message.as_bytes());
    out
}

fn parse(mut rest: &[u8]) -> Result<Ask<'_>, BadArgument> {
    let mut ask = Ask::default();
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let size = usize::try_from(varint(&mut rest)?).map_err(|_| BadArgument)?;
        let (field, tail) = rest.split_at_checked(size).ok_or(BadArgument)?;
        rest = tail;
        match tag {
            0x0a => ask.hash = field,
            0x12 => ask.key = field,
            0x1a => ask.signature = field,
            0x22 => ask.text = field,
            0x2a => ask.pem = field,
            _ => return Err(BadArgument),
        }
    }
    Ok(ask)
}

fn varint(rest: &mut &[u8]) -> Result<u64, BadArgument> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (byte, tail) = rest.split_first().ok_or(BadArgument)?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(BadArgument)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Key;

    fn ask(hash: &str, key: &[u8], signature: &[u8], text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for (tag, field) in [(0x0a, hash.as_bytes()), (0x12, key), (0x1a, signature), (0x22, text)]
        {
            out.push(tag);
            if field.len() >= 128 {
                out.push((field.len() & 0x7f) as u8 | 0x80);
                out.push((field.len() >> 7) as u8);
            } else {
                out.push(field.len() as u8);
            }
            out.extend_from_slice(field);
        }
        out
    }

    #[test]
    fn answers_as_envoy_does() {
        let key = Key::generate("k").unwrap();
        let signature = key.sign(b"text").unwrap();
        let spki = key.spki().unwrap();
        let check = |hash: &str, key: &[u8], signature: &[u8], text: &[u8]| {
            verify_signature(&ask(hash, key, signature, text)).unwrap()
        };
        assert_eq!(check("sha256", &spki, &signature, b"text"), [8, 1]);
        assert_eq!(check("SHA256", &spki, &signature, b"text"), [8, 1]);
        for broken in [
            check("sha256", &spki, &signature, b"texu"),
            check("sha512", &spki, &signature, b"text"),
            check("sha-256", &spki, &signature, b"text"),
            check("sha256", b"no key", &signature, b"text"),
        ] {
            assert_eq!(broken.first(), Some(&0x12), "{broken:?}");
        }
        assert_eq!(verify_signature(&[0x0a]), Err(BadArgument));
    }
}
