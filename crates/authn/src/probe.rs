//! Known signatures (RFC 7515 appendices A.2 and A.3) to try a host's verifier with before it is trusted.
//! Knows nothing of hosts.

use crate::{
    KeySet,
    jws::{self, Verifier},
};

/// Why the verifier of a host is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// It gives no answer: the host has none.
    #[error("the host has no verifier")]
    Absent,
    /// It refuses a good signature.
    #[error("the host's verifier refuses a known good signature")]
    RefusesGood,
    /// It accepts a bad one. Something is very wrong.
    #[error("the host's verifier accepts a known bad signature")]
    AcceptsBad,
}

/// The public keys of the vectors as a key set document: one for the RSA algorithms, one for ES256.
pub const KEYS: &str = r#"{"keys":[
{"kty":"RSA","kid":"a2","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"},
{"kty":"EC","kid":"a3","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

/// Good tokens (signing input and signature) of the vectors, RS256 first.
pub(crate) const GOOD: &[&str] = &[
    "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
    "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
];

/// Asks `verifier` about known good and known bad signatures of RS256 and ES256.
///
/// Costs four verifications: for configure time, not for requests.
pub fn check(verifier: &dyn Verifier) -> Result<(), Failed> {
    // The constants hold together (tested below); were they broken, no verifier would be trusted.
    let keys = KeySet::parse(KEYS.as_bytes()).map_err(|_broken| Failed::RefusesGood)?;
    for token in GOOD {
        let token = jws::parse(token.as_bytes()).map_err(|_broken| Failed::RefusesGood)?;
        if !ask(verifier, &keys, &token, token.signed())? {
            return Err(Failed::RefusesGood);
        }
        let mut other = token.signed().to_vec();
        other.push(b'A');
        if ask(verifier, &keys, &token, &other)? {
            return Err(Failed::AcceptsBad);
        }
    }
    Ok(())
}

fn ask(
    verifier: &dyn Verifier,
    keys: &KeySet,
    token: &jws::Parsed<'_>,
    signed: &[u8],
) -> Result<bool, Failed> {
    let algorithm = token.header().algorithm;
    let key = keys.candidates(algorithm, None).next().ok_or(Failed::RefusesGood)?;
    verifier
        .verify(algorithm, key, signed, token.signature())
        .map_err(|jws::Unavailable| Failed::Absent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Algorithm, Key, Portable, jws::Unavailable};

    struct Fixed(Result<bool, Unavailable>);

    impl Verifier for Fixed {
        fn verify(&self, _: Algorithm, _: &Key, _: &[u8], _: &[u8]) -> Result<bool, Unavailable> {
            self.0
        }
    }

    #[test]
    fn the_portable_verifier_passes_and_broken_ones_do_not() {
        assert_eq!(check(&Portable), Ok(()));
        assert_eq!(check(&Fixed(Err(Unavailable))), Err(Failed::Absent));
        assert_eq!(check(&Fixed(Ok(false))), Err(Failed::RefusesGood));
        assert_eq!(check(&Fixed(Ok(true))), Err(Failed::AcceptsBad));
    }
}
