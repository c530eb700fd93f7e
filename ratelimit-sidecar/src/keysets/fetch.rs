//! One fetch of a key set, bounded in time, bytes and keys.
//! Knows no schedule and judges no key.

use std::{collections::BTreeSet, time::Duration};

use reqwest::{StatusCode, Url};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::app::{Unread, bounded_body};

/// From the first packet to the last byte.
const DEADLINE: Duration = Duration::from_millis(1500);
const BODY_BYTES: usize = 64 * 1024;
const KEYS: usize = 100;

/// A key set as it was fetched.
#[derive(Debug, PartialEq, Eq)]
pub struct KeySet {
    /// The document.
    pub text: String,
    /// From the document's content: the same in every sidecar and after a restart. Fits a JSON number.
    pub generation: u64,
    kids: BTreeSet<String>,
    keys: usize,
}

/// No key set could be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no answer within {} ms", DEADLINE.as_millis())]
    Late,
    #[error("the issuer cannot be asked")]
    Unreachable(#[source] reqwest::Error),
    #[error("the issuer answered {0}")]
    Status(StatusCode),
    #[error("the answer cannot be read")]
    Unread(#[source] Unread),
    #[error("not UTF-8")]
    Text,
    #[error("not a key set (RFC 7517 §5)")]
    Form(#[source] serde_json::Error),
    #[error("{0} keys, more than {KEYS}")]
    TooMany(usize),
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    kid: Option<String>,
}

impl KeySet {
    fn parse(body: Vec<u8>) -> Result<Self, Error> {
        let text = String::from_utf8(body).map_err(|_| Error::Text)?;
        let set: Set = serde_json::from_str(&text).map_err(Error::Form)?;
        if set.keys.len() > KEYS {
            return Err(Error::TooMany(set.keys.len()));
        }
        // 53 bits: what every JSON reader keeps.
        let digest = Sha256::digest(text.as_bytes());
        let generation =
            digest.iter().take(7).fold(0, |all, byte| all << 8 | u64::from(*byte)) >> 3;
        let keys = set.keys.len();
        let kids = set.keys.into_iter().filter_map(|key| key.kid).collect();
        Ok(Self { text, generation, kids, keys })
    }

    /// Whether a key of this name is in the set.
    pub fn has(&self, kid: &str) -> bool {
        self.kids.contains(kid)
    }

    pub fn len(&self) -> usize {
        self.keys
    }
}

/// Fetches the set at `url`. Follows no redirect.
pub async fn fetch(client: &reqwest::Client, url: &Url) -> Result<KeySet, Error> {
    let fetching = async {
        let response = client.get(url.clone()).send().await.map_err(Error::Unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(Error::Status(response.status()));
        }
        KeySet::parse(bounded_body(response, BODY_BYTES).await.map_err(Error::Unread)?)
    };
    tokio::time::timeout(DEADLINE, fetching).await.unwrap_or(Err(Error::Late))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&[&str], &str>) {
        let got = KeySet::parse(text.as_bytes().to_vec());
        let got = got.map(|set| set.kids.into_iter().collect::<Vec<_>>());
        let got = got.map_err(|error| error.to_string());
        let expected = expected.map(|kids| kids.iter().map(ToString::to_string).collect());
        assert_eq!(got, expected.map_err(ToString::to_string), "{text:.80}");
    }

    #[test]
    fn a_set_is_taken_as_it_stands_within_bounds() {
        check(r#"{"keys":[{"kid":"a","kty":"RSA"},{"kty":"RSA"}],"x":1}"#, Ok(&["a"]));
        check(r#"{"keys":[]}"#, Ok(&[]));
        for bad in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[1]}"#, r#"{"keys":[{"kid":1}]}"#]
        {
            check(bad, Err("not a key set (RFC 7517 §5)"));
        }
        let of = |n| format!(r#"{{"keys":[{}]}}"#, vec!["{}"; n].join(","));
        check(&of(100), Ok(&[]));
        check(&of(101), Err("101 keys, more than 100"));
    }

    #[test]
    fn the_generation_follows_the_content() {
        let generation = |text: &str| KeySet::parse(text.into()).unwrap().generation;
        let (one, two) = (generation(r#"{"keys":[]}"#), generation(r#"{"keys":[{}]}"#));
        assert_ne!(one, two);
        assert_eq!(one, generation(r#"{"keys":[]}"#));
        assert!(one < 1 << 53 && two < 1 << 53);
    }
}
