//! Names of agent images: `name@sha256:<64 lower-case hex digits>`, never a path, a tag or a host.
//! A tenant's images lie under its own prefix of the layout store; the prefix comes from the verified tenant,
//! never from the name. Knows nothing of files.

use std::{fmt, str::FromStr};

use gatehouse_contract::TenantId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// Longest image name, as a DNS label (RFC 1123 §2.1).
pub const MAX_NAME_BYTES: usize = 63;

/// Why a text is not an image reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not `name@sha256:…`.
    #[error("an image is named as name@sha256:<64 lower-case hex digits>")]
    Form,
    /// Not a DNS label: this is also what keeps `/`, `.` and `..` out.
    #[error(
        "an image name has 1 to 63 characters of a-z, 0-9 and '-', and neither starts nor ends with '-'"
    )]
    Name,
    /// Not `sha256:` and 64 lower-case hex digits.
    #[error("a digest is sha256: and 64 lower-case hex digits")]
    Digest,
}

/// A SHA-256 digest in the form of the OCI image specification: `sha256:<64 lower-case hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// The name of an image within its tenant's prefix: one DNS label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName(String);

/// An image that a version names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageRef {
    /// The name within the tenant's prefix.
    pub name: ImageName,
    /// The digest of the image's manifest.
    pub digest: Digest,
}

// === impl Digest ===

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest that was computed elsewhere, for example while a layer was read.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 64 hex digits without the algorithm.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Where a layout keeps the blob, relative to the layout: `blobs`, `sha256`, the hex digits.
    pub fn blob_parts(&self) -> [String; 3] {
        ["blobs".to_owned(), "sha256".to_owned(), self.hex()]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let hex = text.strip_prefix("sha256:").ok_or(Invalid::Digest)?;
        if hex.len() != 64 || !hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Invalid::Digest);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| Invalid::Digest)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| Invalid::Digest)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

// === impl ImageName ===

impl ImageName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where a layout store keeps this image of `tenant`, relative to the store: the tenant, the name.
    pub fn layout_parts(&self, tenant: TenantId) -> [String; 2] {
        [tenant.to_string(), self.0.clone()]
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ImageName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let inner = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let bytes = text.as_bytes();
        let fits = (1..=MAX_NAME_BYTES).contains(&bytes.len())
            && bytes.iter().copied().all(inner)
            && bytes.first() != Some(&b'-')
            && bytes.last() != Some(&b'-');
        if fits { Ok(Self(text.to_owned())) } else { Err(Invalid::Name) }
    }
}

// === impl ImageRef ===

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.digest)
    }
}

impl Serialize for ImageRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for ImageRef {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (name, digest) = text.split_once('@').ok_or(Invalid::Form)?;
        Ok(Self { name: name.parse()?, digest: digest.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn check(text: &str, expected: Result<(), Invalid>) {
        let parsed = text.parse::<ImageRef>();
        assert_eq!(parsed.as_ref().map(|_| ()).map_err(|e| *e), expected, "{text:?}");
        if let Ok(image) = parsed {
            assert_eq!(image.to_string(), text);
        }
    }

    #[test]
    fn takes_a_name_and_a_digest_and_nothing_that_is_a_path() {
        let with = |name: &str| format!("{name}@sha256:{HEX}");
        check(&with("fuel-emissions"), Ok(()));
        check(&with("a"), Ok(()));
        check(&with(&"a".repeat(63)), Ok(()));
        for name in [
            "",
            "-a",
            "a-",
            ".",
            "..",
            "../a",
            "a/b",
            "/a",
            "a.b",
            "A",
            "a_b",
            "a b",
            "a\0",
            "ä",
            "a\n",
            "localhost:5000",
        ] {
            check(&with(name), Err(Invalid::Name));
        }
        check(&with(&"a".repeat(64)), Err(Invalid::Name));
        check("fuel-emissions", Err(Invalid::Form));
        check("fuel-emissions:latest", Err(Invalid::Form));
        for digest in [
            format!("sha256:{}", HEX.to_uppercase()),
            format!("sha256:{HEX}0"),
            format!("sha512:{HEX}"),
            format!("sha256:{HEX}@sha256:{HEX}"),
            "sha256:".to_owned(),
            format!("sha256:../{}", "a".repeat(61)),
        ] {
            check(&format!("a@{digest}"), Err(Invalid::Digest));
        }
    }

    #[test]
    fn the_place_in_the_store_is_the_tenants_own() {
        let tenant: TenantId = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap();
        let name: ImageName = "fuel".parse().unwrap();
        assert_eq!(name.layout_parts(tenant), ["0191d6b0-7c3e-7aaa-8bbb-0123456789ab", "fuel"]);
        let digest = Digest::of(b"test");
        assert_eq!(digest.to_string(), format!("sha256:{HEX}"));
        assert_eq!(digest.blob_parts(), ["blobs", "sha256", HEX]);
    }
}
