//! Seals the platform's own secrets at rest under the keys from the file: private keys, client secrets, verifiers.
//! What is a tenant's own is sealed under its data key, in the store.
//! Knows nothing of what the bytes are.

use std::path::Path;

use aws_lc_rs::error::Unspecified;
use gatehouse_store::{
    MasterKeys,
    master_keys::{BadKeyFile, CannotOpen as Why},
};

/// Seals under the first key of the file and opens under each.
#[derive(Clone)]
pub struct Sealer(MasterKeys);

/// What was sealed cannot be opened: another key, another name, or changed bytes.
#[derive(Debug, thiserror::Error)]
#[error("the sealed key cannot be opened with this key file")]
pub struct CannotOpen(#[from] Why);

impl Sealer {
    /// Takes the keys from a file of 64 hex digits per line.
    pub fn from_file(path: &Path) -> Result<Self, BadKeyFile> {
        MasterKeys::from_file(path).map(Self)
    }

    /// The keys themselves, for the store.
    pub fn keys(&self) -> MasterKeys {
        self.0.clone()
    }

    /// Seals `plain` under a fresh nonce; it opens under the same `name` only.
    pub fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, Unspecified> {
        self.0.seal(name, plain)
    }

    /// Opens what [`Self::seal`] made.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, CannotOpen> {
        Ok(self.0.open(name, sealed)?)
    }
}
