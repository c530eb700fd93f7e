//! SHA-256 of what it is of, by name. Knows nothing of what is hashed.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// 32 bytes; as text in base64url without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of nothing.
    pub const ZERO: Self = Self([0; 32]);

    /// Takes the bytes as they are.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash of `bytes` as a `what`: one kind's can never be another's.
    pub(crate) fn of(what: &str, bytes: &[u8]) -> Self {
        let hash = Sha256::new().chain_update(what).chain_update([0]).chain_update(bytes);
        Self(hash.finalize().into())
    }
}

/// Commits to `details` without telling them: `salt` is as long as the hash, random, and erased with them. Both sides
/// serialise a map, whose members stand in their order.
pub fn commit(salt: &Digest, details: &Value) -> Digest {
    let text = details.to_string();
    Digest::of("gatehouse audit details v1", &[salt.0.as_slice(), text.as_bytes()].concat())
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(&text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| D::Error::custom("not 32 bytes in base64url"))
    }
}
