//! Seals private keys at rest: AES-256-GCM under a key from a file, bound to what is sealed.
//! Knows nothing of what the bytes are.

use std::path::Path;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    error::Unspecified,
};
use gatehouse_service::peppers;

/// The first byte of everything sealed by this format: `VERSION nonce(12) ciphertext tag(16)`.
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;

/// Seals and opens under one key.
pub struct Sealer(RandomizedNonceKey);

/// Why a key file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum BadKeyFile {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] std::io::Error),
    /// It is not 64 hex digits.
    #[error("does not hold 64 hex digits")]
    Form,
}

/// What was sealed cannot be opened: another key, another name, or changed bytes.
#[derive(Debug, thiserror::Error)]
#[error("the sealed key cannot be opened with this key file")]
pub struct CannotOpen;

impl Sealer {
    /// Takes the key from a file of 64 hex digits.
    pub fn from_file(path: &Path) -> Result<Self, BadKeyFile> {
        let text = std::fs::read_to_string(path).map_err(BadKeyFile::Unreadable)?;
        let bytes = peppers::hex(text.trim()).ok_or(BadKeyFile::Form)?;
        RandomizedNonceKey::new(&AES_256_GCM, &bytes).map(Self).map_err(|_| BadKeyFile::Form)
    }

    /// Seals `plain` under a fresh nonce; it opens under the same `name` only.
    pub fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let mut body = plain.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut body)?;
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(nonce.as_ref());
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// Opens what [`Self::seal`] made.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, CannotOpen> {
        let Some((&VERSION, rest)) = sealed.split_first() else { return Err(CannotOpen) };
        let (nonce, body) = rest.split_at_checked(NONCE_BYTES).ok_or(CannotOpen)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| CannotOpen)?;
        let mut body = body.to_vec();
        let plain = self
            .0
            .open_in_place(nonce, Aad::from(name.as_bytes()), &mut body)
            .map_err(|_| CannotOpen)?;
        Ok(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(digit: char) -> Sealer {
        let file = std::env::temp_dir().join(format!("gatehouse-key-{}", uuid::Uuid::new_v4()));
        std::fs::write(&file, format!("{}\n", digit.to_string().repeat(64))).unwrap();
        let sealer = Sealer::from_file(&file).unwrap();
        std::fs::remove_file(file).unwrap();
        sealer
    }

    #[test]
    fn what_is_sealed_opens_under_its_key_and_name_alone() {
        let (ours, other) = (sealer('a'), sealer('b'));
        let sealed = ours.seal("kid-1", b"private").unwrap();
        assert!(!sealed.windows(7).any(|part| part == b"private"));
        assert_eq!(ours.open("kid-1", &sealed).unwrap(), b"private");
        assert!(ours.open("kid-2", &sealed).is_err(), "another name");
        assert!(other.open("kid-1", &sealed).is_err(), "another key");
        for at in [0, 1, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(ours.open("kid-1", &changed).is_err(), "byte {at} changed");
        }
        assert!(ours.open("kid-1", &[]).is_err());
        assert_ne!(ours.seal("kid-1", b"private").unwrap(), sealed, "a fresh nonce");
    }
}
