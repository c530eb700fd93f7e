//! The name of an API version, as a path, an `Accept` header or a tenant's record says it.
//! Knows nothing of which versions are served and of where a request names one.

use std::{fmt, str::FromStr};

/// Longest name, in bytes.
const MAX_BYTES: usize = 32;

/// A version's name, e.g. `v1` or `v1-beta`: 1 to 32 letters, digits, `-`, `_` and `.`, not dots alone. Unreserved
/// characters (RFC 3986 §2.3), so that it has one spelling in a path, and safe in a header.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiVersion(String);

/// The text is no version's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a version's name")]
pub struct NotAVersion;

impl ApiVersion {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ApiVersion {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let dots = text.bytes().all(|byte| byte == b'.');
        let named = !dots && text.len() <= MAX_BYTES && text.bytes().all(fits);
        named.then(|| Self(text.to_owned())).ok_or(NotAVersion)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_one_spelling() {
        for good in ["v1", "v1-beta", "2026-11-22", "V1", "v1.1", &"v".repeat(32)] {
            assert_eq!(good.parse::<ApiVersion>().unwrap().to_string(), good);
        }
        for bad in ["", ".", "..", "v1/x", "v 1", "v%31", "v1\r", "v1,v2", "ä", &"v".repeat(33)] {
            assert_eq!(bad.parse::<ApiVersion>(), Err(NotAVersion), "{bad:?}");
        }
    }
}
