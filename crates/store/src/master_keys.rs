//! The keys from a file, and what they seal: AES-256-GCM, bound to the name of what is sealed. Several may stand in the
//! file: the first seals, all open, so that one takes over from another without a stop.
//! Knows nothing of what the bytes are.

use std::{fmt, path::Path, sync::Arc};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    digest::{SHA256, digest},
    error::Unspecified,
    rand,
};

/// Everything sealed under a key of the file: `2 id(8) nonce(12) ciphertext tag(16)`.
const BY_ID: u8 = 2;
/// The format before there were several keys: `1 nonce(12) ciphertext tag(16)`.
const UNNAMED: u8 = 1;
pub(crate) const NONCE_BYTES: usize = 12;
const ID_BYTES: usize = 8;

/// Names a key without telling anything of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; ID_BYTES]);

/// The keys of the file. A clone is the same keys.
#[derive(Clone)]
pub struct MasterKeys(Arc<Vec<(KeyId, RandomizedNonceKey)>>);

/// Why a file is not taken. Nothing of its text is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    /// There is none in it.
    #[error("holds no key")]
    None,
    /// A line is something else.
    #[error("line {0} is not 64 hex digits")]
    Form(usize),
    /// The same key twice.
    #[error("line {0} is a key that stands there already")]
    Twice(usize),
}

/// Why a key file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum BadKeyFile {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] std::io::Error),
    /// It holds something else.
    #[error(transparent)]
    Keys(#[from] BadKeys),
}

/// What was sealed is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotOpen {
    /// By its name, the key is not in the file.
    #[error("it was sealed under key {0}, which the key file does not hold")]
    OtherKey(KeyId),
    /// Another name, changed bytes, or, of what was sealed before keys had names, another key.
    #[error("it was sealed under another key or for something else, or was changed")]
    Changed,
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

impl MasterKeys {
    /// Reads a key file ([`Self::parse`]).
    pub fn from_file(path: &Path) -> Result<Self, BadKeyFile> {
        let text = std::fs::read_to_string(path).map_err(BadKeyFile::Unreadable)?;
        Ok(Self::parse(&text)?)
    }

    /// Reads the text of a key file: a key of 64 hex digits per line, the one that seals first; empty lines and lines that
    /// begin with `#` are passed over.
    pub fn parse(text: &str) -> Result<Self, BadKeys> {
        let mut keys: Vec<(KeyId, RandomizedNonceKey)> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes = hex(line).ok_or(BadKeys::Form(number))?;
            let key =
                RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| BadKeys::Form(number))?;
            let id = id_of(&bytes);
            if keys.iter().any(|(known, _)| *known == id) {
                return Err(BadKeys::Twice(number));
            }
            keys.push((id, key));
        }
        if keys.is_empty() { Err(BadKeys::None) } else { Ok(Self(Arc::new(keys))) }
    }

    /// The keys' names, the one that seals first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.0.iter().map(|(id, _)| *id)
    }

    /// Seals `plain` under the first key and a fresh nonce; it opens under the same `name` only.
    pub fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let (id, key) = self.0.first().ok_or(Unspecified)?;
        let mut sealed = vec![BY_ID];
        sealed.extend_from_slice(&id.0);
        seal(key, name, plain, &mut sealed)?;
        Ok(sealed)
    }

    /// Opens what any of the keys sealed.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, CannotOpen> {
        match sealed.split_first() {
            Some((&UNNAMED, rest)) => {
                let opened = self.0.iter().find_map(|(_, key)| open(key, name, rest));
                opened.ok_or(CannotOpen::Changed)
            }
            Some((&BY_ID, rest)) => {
                let (id, rest) = rest.split_first_chunk().ok_or(CannotOpen::Changed)?;
                let id = KeyId(*id);
                let key = self.0.iter().find(|(known, _)| *known == id);
                let (_, key) = key.ok_or(CannotOpen::OtherKey(id))?;
                open(key, name, rest).ok_or(CannotOpen::Changed)
            }
            _ => Err(CannotOpen::Changed),
        }
    }

    /// With what everything begins that the first key seals.
    pub(crate) fn mark(&self) -> Vec<u8> {
        let id = self.0.first().map(|(id, _)| id.0).unwrap_or_default();
        [[BY_ID].as_slice(), &id].concat()
    }

    /// Whether it is sealed under the key that seals now.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        sealed.starts_with(&self.mark())
    }
}

/// Appends `nonce ciphertext tag`.
pub(crate) fn seal(
    key: &RandomizedNonceKey,
    name: &str,
    plain: &[u8],
    sealed: &mut Vec<u8>,
) -> Result<(), Unspecified> {
    let mut body = plain.to_vec();
    let nonce = key.seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut body)?;
    sealed.extend_from_slice(nonce.as_ref());
    sealed.append(&mut body);
    Ok(())
}

pub(crate) fn open(key: &RandomizedNonceKey, name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, body) = sealed.split_at_checked(NONCE_BYTES)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut body = body.to_vec();
    let plain = key.open_in_place(nonce, Aad::from(name.as_bytes()), &mut body).ok()?;
    Some(plain.to_vec())
}

/// 32 random bytes of the operating system's.
pub(crate) fn random() -> Result<[u8; 32], Unspecified> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes)?;
    Ok(bytes)
}

fn id_of(key: &[u8; 32]) -> KeyId {
    let hash = digest(&SHA256, &[b"gatehouse key id\0".as_slice(), key].concat());
    let mut id = [0; ID_BYTES];
    id.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    KeyId(id)
}

fn hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(digits: &str) -> MasterKeys {
        let lines: Vec<String> = digits.chars().map(|d| d.to_string().repeat(64)).collect();
        MasterKeys::parse(&lines.join("\n")).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_under_its_key_and_name_alone() {
        let (ours, other) = (keys("a"), keys("b"));
        let sealed = ours.seal("kid-1", b"private").unwrap();
        assert!(!sealed.windows(7).any(|part| part == b"private"));
        assert_eq!(ours.open("kid-1", &sealed).unwrap(), b"private");
        assert_eq!(ours.open("kid-2", &sealed), Err(CannotOpen::Changed), "another name");
        let id = ours.ids().next().unwrap();
        assert_eq!(other.open("kid-1", &sealed), Err(CannotOpen::OtherKey(id)));
        for at in [0, 1, 9, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(ours.open("kid-1", &changed).is_err(), "byte {at} changed");
        }
        assert!(ours.open("kid-1", &[]).is_err());
        assert!(ours.open("kid-1", &sealed[..20]).is_err());
        assert_ne!(ours.seal("kid-1", b"private").unwrap(), sealed, "a fresh nonce");
    }

    #[test]
    fn a_new_key_seals_and_the_one_before_opens_until_it_goes() {
        let (before, during, after) = (keys("a"), keys("ba"), keys("b"));
        let old = before.seal("n", b"x").unwrap();
        assert!(before.is_current(&old) && !during.is_current(&old));
        assert_eq!(during.open("n", &old).unwrap(), b"x");
        let new = during.seal("n", b"x").unwrap();
        assert!(during.is_current(&new) && after.is_current(&new));
        assert_eq!(after.open("n", &new).unwrap(), b"x");
        assert!(matches!(after.open("n", &old), Err(CannotOpen::OtherKey(_))));
        assert!(matches!(before.open("n", &new), Err(CannotOpen::OtherKey(_))));
        // From before keys had names.
        let mut unnamed = vec![UNNAMED];
        seal(&before.0[0].1, "n", b"x", &mut unnamed).unwrap();
        assert_eq!(during.open("n", &unnamed).unwrap(), b"x");
        assert!(!before.is_current(&unnamed));
        assert_eq!(after.open("n", &unnamed), Err(CannotOpen::Changed));
    }

    #[test]
    fn a_file_that_holds_no_keys_is_refused_without_its_text() {
        let good = "a".repeat(64);
        for (text, bad) in [
            ("", BadKeys::None),
            ("# nothing\n\n", BadKeys::None),
            ("secret", BadKeys::Form(1)),
            (&format!("{good}\n{}", &good[1..]), BadKeys::Form(2)),
            (&format!("{good}\n\n{good}"), BadKeys::Twice(3)),
            (&format!("+{}", &good[1..]), BadKeys::Form(1)),
        ] {
            assert_eq!(MasterKeys::parse(text).unwrap_err(), bad, "{text}");
        }
        let keys = MasterKeys::parse(&format!("# since May\n{good}\r\n")).unwrap();
        assert!(!format!("{keys:?}").contains(&good));
    }
}
