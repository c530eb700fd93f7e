//! The few DER forms that a host's verifier wants: SubjectPublicKeyInfo (RFC 5280 §4.1, RFC 3279 §2.3, RFC 5480)
//! and ECDSA-Sig-Value. Writes only; nothing from outside is ever read as DER.

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// AlgorithmIdentifier rsaEncryption with NULL parameters.
const RSA_ENCRYPTION: &[u8] =
    &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// AlgorithmIdentifier id-ecPublicKey with the curve secp256r1.
const EC_P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];

/// The same with the curve secp384r1.
const EC_P384: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
    0x00, 0x22,
];

/// The SubjectPublicKeyInfo of an RSA key; numbers are big-endian.
pub(crate) fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let key = element(SEQUENCE, &[integer(modulus), integer(exponent)].concat());
    spki(RSA_ENCRYPTION, &key)
}

/// The SubjectPublicKeyInfo of a point on P-256 in its uncompressed form (SEC 1 §2.3.3).
pub(crate) fn p256_spki(point: &[u8]) -> Vec<u8> {
    spki(EC_P256, point)
}

/// The same on P-384.
pub(crate) fn p384_spki(point: &[u8]) -> Vec<u8> {
    spki(EC_P384, point)
}

/// ECDSA-Sig-Value of the two halves of a JWS signature (RFC 7518 §3.4).
pub(crate) fn ecdsa_signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[integer(r), integer(s)].concat())
}

fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let key = element(BIT_STRING, &[&[0], key].concat());
    element(SEQUENCE, &[algorithm, &key].concat())
}

fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let digits = number.get(zeros..).unwrap_or_default();
    // A leading bit of 1 would make it negative; zero itself is one byte.
    if digits.first().is_none_or(|first| *first >= 0x80) {
        element(INTEGER, &[&[0], digits].concat())
    } else {
        element(INTEGER, digits)
    }
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut out = Vec::with_capacity(len.saturating_add(6));
    out.push(tag);
    match u8::try_from(len) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = len.to_be_bytes();
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let digits = bytes.get(zeros..).unwrap_or_default();
            // At most eight digits.
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or(8));
            out.extend_from_slice(digits);
        }
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(number: &[u8], expected: &[u8]) {
        assert_eq!(integer(number), expected, "{number:?}");
    }

    #[test]
    fn integers_are_minimal_and_never_negative() {
        check(&[], &[2, 1, 0]);
        check(&[0, 0], &[2, 1, 0]);
        check(&[0, 1], &[2, 1, 1]);
        check(&[0x7f], &[2, 1, 0x7f]);
        check(&[0x80], &[2, 2, 0, 0x80]);
    }

    #[test]
    fn a_signature_is_its_two_halves_in_order() {
        assert_eq!(ecdsa_signature(&[0, 1], &[0x80]), [0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]);
    }

    #[test]
    fn lengths_use_the_short_form_where_it_fits() {
        assert_eq!(element(4, &[7; 127]).get(..2), Some([4, 127].as_slice()));
        assert_eq!(element(4, &[7; 128]).get(..3), Some([4, 0x81, 128].as_slice()));
        assert_eq!(element(4, &[7; 256]).get(..4), Some([4, 0x82, 1, 0].as_slice()));
    }
}
