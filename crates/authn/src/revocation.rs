//! The mark by which a deny list names a token: short, of one length, and useless to whoever reads the list.
//! Knows neither lists nor who denies.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

/// 128 bits are enough: nobody gains by two tokens of one mark, and both would be denied.
const MARK_BYTES: usize = 16;

/// The mark of the token with this `iss` and `jti`: 22 characters of base64url.
pub fn mark(issuer: &str, token_id: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(issuer);
    // An issuer that is configured holds printable characters only, so that this separates.
    hash.update([0]);
    hash.update(token_id);
    let digest = hash.finalize();
    URL_SAFE_NO_PAD.encode(digest.get(..MARK_BYTES).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_both_issuer_and_id() {
        assert_eq!(mark("https://a", "1"), mark("https://a", "1"));
        assert_eq!(mark("https://a", "1").len(), 22);
        for other in
            [("https://a", "2"), ("https://b", "1"), ("https://a1", ""), ("", "https://a1")]
        {
            assert_ne!(mark("https://a", "1"), mark(other.0, other.1), "{other:?}");
        }
    }
}
