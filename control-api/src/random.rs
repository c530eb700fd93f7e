//! The one place where this service takes random bytes and makes ids and secrets.

use aws_lc_rs::{
    constant_time,
    digest::{SHA256, digest},
    error::Unspecified,
    rand,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

/// A client secret: 256 random bits, shown once and stored as its hash. Has no `Debug`.
pub struct ClientSecret(String);

/// What a client secret starts with, so that scanners can find leaked ones.
const PREFIX: &str = "gs_";

impl ClientSecret {
    /// A new one.
    pub fn generate() -> Result<Self, Unspecified> {
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret()?))))
    }

    /// For the one answer that shows it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored.
    pub fn hash(&self) -> [u8; 32] {
        sha256(self.0.as_bytes())
    }
}

/// 256 random bits.
pub fn secret() -> Result<[u8; 32], Unspecified> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes)?;
    Ok(bytes)
}

/// Whether `presented` is the secret with this hash; takes the same time for every answer.
pub fn is_secret(presented: &[u8], stored: &[u8; 32]) -> bool {
    constant_time::verify_slices_are_equal(&sha256(presented), stored).is_ok()
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
        *to = *from;
    }
    hash
}

/// A part of a whole, from 0 to 1; the middle where there is no randomness to be had.
pub fn part() -> f64 {
    let mut bytes = [0; 4];
    match rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

/// A new id (UUID v7: ordered by time, so that indexes grow at one end).
pub fn id() -> Uuid {
    Uuid::now_v7()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_recognised_and_its_neighbours_are_not() {
        let secret = ClientSecret::generate().unwrap();
        assert_eq!(secret.expose().len(), PREFIX.len() + 43);
        assert!(is_secret(secret.expose().as_bytes(), &secret.hash()));
        for near in
            [format!("{}x", secret.expose()), secret.expose()[1..].to_owned(), String::new()]
        {
            assert!(!is_secret(near.as_bytes(), &secret.hash()));
        }
        assert_ne!(ClientSecret::generate().unwrap().expose(), secret.expose());
    }
}
