//! Key sets (RFC 7517): which keys may verify what. Everything that can be wrong with a key is found here, once,
//! at load; verification only compares. Both forms that the verifiers take are prepared here too.
//! Knows nothing of where a set comes from.

mod key;

use crate::{
    Algorithm,
    algorithm::Family,
    jws::MAX_KEY_ID_BYTES,
    strict::{self, List, Object, Value},
};

pub(crate) use key::Public;
pub use key::{Key, Unusable};

/// The longest key set that is read, in bytes.
pub const MAX_SET_BYTES: usize = 64 * 1024;
/// The most keys in a set.
pub const MAX_KEYS: usize = 100;
/// How many keys are tried for one token (acceptance J12).
pub const MAX_TRIED: usize = 5;
/// The longest secret of HS256 and its kin, in bytes: the block of SHA-512 twice. Longer ones add nothing.
pub const MAX_SECRET_BYTES: usize = 256;

const MAX_DEPTH: usize = 16;
/// Members that only private or symmetric keys have (RFC 7518 §6.2.2, §6.3.2, §6.4.1).
const PRIVATE: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The keys of one issuer that may verify: public keys, or secrets, never both.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    skipped: Vec<Skipped>,
    secret: bool,
}

/// A key of the set that is not used, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// Its place in `keys`, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub cause: Unusable,
}

/// The whole set is refused; keep the one before (acceptance J15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSet {
    /// More than [`MAX_SET_BYTES`].
    #[error("the key set is larger than 64 KiB")]
    TooLarge,
    /// Not an object with a list `keys`, or a member stands twice, or nested too deeply.
    #[error("the document is not a key set")]
    NotASet,
    /// More than [`MAX_KEYS`].
    #[error("the key set has more than 100 keys")]
    TooMany,
    /// A private or symmetric key was published: whoever read the set can sign.
    #[error("the key set holds private key material")]
    Private,
    /// A set of secrets holds another kind of key too: its public form would be taken for a secret, or the other way.
    #[error("the set of secrets holds another kind of key")]
    NotSecrets,
}

/// A secret that signs is refused (RFC 7518 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// No algorithm is named that uses a secret, or one is that does not: never both for one issuer.
    #[error("a secret serves HS256, HS384 and HS512 and nothing beside them")]
    Algorithms,
    /// Shorter than the hash of one of the algorithms.
    #[error("the secret is shorter than the hash: HS256 needs 32 bytes, HS384 48, HS512 64")]
    Short,
    /// Longer than [`MAX_SECRET_BYTES`].
    #[error("the secret is longer than 256 bytes")]
    Long,
}

// === impl KeySet ===

impl KeySet {
    /// Reads a set of public keys. Keys that cannot be used are left out and listed in [`Self::skipped`].
    ///
    /// # Errors
    /// [`BadSet`]; one private or symmetric key spoils the set.
    pub fn parse(text: &[u8]) -> Result<Self, BadSet> {
        let set = read(text)?;
        let items = items(&set)?;
        if items.iter().any(|item| PRIVATE.iter().any(|name| item.member(name).is_some())) {
            return Err(BadSet::Private);
        }
        Ok(Self::of(items, false, Key::public))
    }

    /// Reads a set of secrets (`kty: oct`, RFC 7518 §6.4), which somebody holds in a file: never one that was
    /// fetched.
    ///
    /// # Errors
    /// [`BadSet`]; one key of another kind spoils the set.
    pub fn parse_secrets(text: &[u8]) -> Result<Self, BadSet> {
        let set = read(text)?;
        let items = items(&set)?;
        let is_secret = |item: Value<'_>| {
            item.member("kty").and_then(Value::as_str).is_some_and(|kty| kty == "oct")
        };
        if !items.iter().all(is_secret) {
            return Err(BadSet::NotSecrets);
        }
        Ok(Self::of(items, true, Key::secret))
    }

    /// The set of one secret for exactly these algorithms, from configuration.
    ///
    /// # Errors
    /// [`BadSecret`].
    pub fn of_secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<Self, BadSecret> {
        if algorithms.is_empty() {
            return Err(BadSecret::Algorithms);
        }
        for algorithm in algorithms {
            match algorithm.family() {
                Family::Secret(needed) if secret.len() < needed => return Err(BadSecret::Short),
                Family::Secret(_) => {}
                Family::Rsa | Family::P256 | Family::P384 | Family::Ed25519 => {
                    return Err(BadSecret::Algorithms);
                }
            }
        }
        if secret.len() > MAX_SECRET_BYTES {
            return Err(BadSecret::Long);
        }
        Ok(Self { keys: vec![Key::of_secret(secret)], skipped: Vec::new(), secret: true })
    }

    fn of(items: List<'_>, secret: bool, read: fn(Object<'_>) -> Result<Key, Unusable>) -> Self {
        let mut set = Self { secret, ..Self::default() };
        for (index, item) in items.iter().enumerate() {
            let key = match item {
                Value::Object(members) => read(members),
                _ => Err(Unusable::NotAKey),
            };
            match key {
                Ok(key) => set.keys.push(key),
                Err(cause) => set.skipped.push(Skipped { index, cause }),
            }
        }
        set
    }

    /// The usable keys, in the set's order.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The keys that were left out, for the log.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Whether its keys are secrets.
    pub fn is_secret(&self) -> bool {
        self.secret
    }

    /// Whether a usable key has this id.
    pub fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.id() == Some(kid))
    }

    /// The keys to try: all that fit `algorithm`, and of this id if one is given; at most [`MAX_TRIED`]. A secret
    /// without an id answers to every id: whoever was given it may call it something.
    pub fn candidates<'s>(
        &'s self,
        algorithm: Algorithm,
        kid: Option<&'s str>,
    ) -> impl Iterator<Item = &'s Key> {
        let named = move |key: &Key| match (kid, key.id()) {
            (None, _) => true,
            (Some(_), None) => self.secret,
            (Some(kid), Some(id)) => kid == id,
        };
        self.keys.iter().filter(move |key| key.fits(algorithm) && named(key)).take(MAX_TRIED)
    }
}

/// Reads a key set document strictly and within bounds.
fn read(text: &[u8]) -> Result<strict::Document, BadSet> {
    if text.len() > MAX_SET_BYTES {
        return Err(BadSet::TooLarge);
    }
    let set = strict::Document::read(text.to_vec(), MAX_DEPTH).map_err(|_fault| BadSet::NotASet)?;
    if items(&set)?.len() > MAX_KEYS { Err(BadSet::TooMany) } else { Ok(set) }
}

fn items(set: &strict::Document) -> Result<List<'_>, BadSet> {
    match set.root().get("keys") {
        Some(Value::List(items)) => Ok(items),
        _ => Err(BadSet::NotASet),
    }
}

/// Key ids go into a call-out's query and into logs: bounded, printable.
pub(crate) fn is_key_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_KEY_ID_BYTES && !id.chars().any(char::is_control)
}

#[cfg(test)]
mod tests;
