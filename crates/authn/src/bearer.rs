//! Takes the token out of an `Authorization` header's value (RFC 6750 §2.1).
//! Knows nothing of tokens but their characters.

use crate::{Refusal, octets};

/// The token of a `Bearer` credential; `None` for another scheme, which is no credential of ours.
///
/// One token and nothing else: a list, a second word, a tab or a byte outside the token alphabet is
/// [`Refusal::BearerMalformed`] (acceptance J5).
pub fn token(value: &[u8]) -> Result<Option<&[u8]>, Refusal> {
    let scheme_len = value.iter().take_while(|byte| is_scheme_byte(**byte)).count();
    let Some((scheme, rest)) = value.split_at_checked(scheme_len) else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case(b"Bearer") {
        return Ok(None);
    }
    let token = match rest.iter().position(|byte| *byte != b' ') {
        Some(spaces) if spaces > 0 => rest.get(spaces..).unwrap_or_default(),
        _ => return Err(Refusal::BearerMalformed),
    };
    // b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
    let body = octets::leading(token, usual, is_token_byte);
    let padding = token.get(body..).unwrap_or_default();
    if body == 0 || padding.iter().any(|byte| *byte != b'=') {
        return Err(Refusal::BearerMalformed);
    }
    Ok(Some(token))
}

// tchar of RFC 9110 §5.6.2.
const fn is_scheme_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
}

/// Of eight ASCII bytes those that base64url and a JWT's dots consist of, and `/`: all but the rare ones above.
const fn usual(word: u64) -> u64 {
    octets::letters(word) | octets::within(word, b'-', b'9') | octets::within(word, b'_', b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expected: Result<Option<&str>, Refusal>) {
        let got = token(value.as_bytes());
        assert_eq!(got, expected.map(|token| token.map(str::as_bytes)), "{value:?}");
    }

    #[test]
    fn j5_takes_one_token_of_the_scheme_in_any_case() {
        for good in ["Bearer a.b-c_~+/=", "bearer a.b-c_~+/=", "BEARER   a.b-c_~+/="] {
            check(good, Ok(Some("a.b-c_~+/=")));
        }
        for other in ["", "Basic YTpi", "Bearer-Token a", "Digest x", " Bearer a", "Negotiate"] {
            check(other, Ok(None));
        }
        for bad in [
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Bearer  a b",
            "Bearer a,Basic b",
            "Bearer\ta",
            "Bearer/a.b.c",
            "Bearer a\t",
            "Bearer a ",
            "Bearer =",
            "Bearer a=b",
            "Bearer a\u{0}",
            "Bearer ä",
            "Bearer \"a\"",
        ] {
            check(bad, Err(Refusal::BearerMalformed));
        }
    }
}
