//! One fetch of a key set, bounded in time, bytes and keys, by its address or by discovery.
//! Knows no schedule and judges no key, but refuses a set that shows a secret.

use std::{collections::BTreeSet, time::Duration};

use gatehouse_outbound::{Answer, Bounds, Client, Error as OutboundError, Guard};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// From the first packet to the last byte, of each document.
const BOUNDS: Bounds = Bounds { deadline: Duration::from_millis(1500), body_bytes: 64 * 1024 };
const KEYS: usize = 100;
/// What only the owner of a key may see (RFC 7518 §6): a set with one of these was published by mistake.
const SECRET_MEMBERS: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
/// Appended to an issuer (OpenID Connect Discovery 1.0 §4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

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

/// What came, and for how long the issuer calls it fresh.
pub struct Fetched {
    pub keys: KeySet,
    pub fresh: Option<Duration>,
}

/// No key set could be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the issuer cannot be asked")]
    Outbound(#[source] OutboundError),
    #[error("the issuer answered {0}")]
    Status(u16),
    #[error("not UTF-8")]
    Text,
    #[error("not a key set (RFC 7517 §5)")]
    Form(#[source] serde_json::Error),
    #[error("{0} keys, more than {KEYS}")]
    TooMany(usize),
    #[error("a set without keys")]
    Empty,
    #[error("the set shows the private member {0:?} of a key: it must be replaced")]
    Private(String),
    #[error("not a discovery document")]
    Discovery(#[source] serde_json::Error),
    #[error("the discovery document is of the issuer {0:?}")]
    OtherIssuer(String),
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

impl KeySet {
    fn parse(body: Vec<u8>) -> Result<Self, Error> {
        let text = String::from_utf8(body).map_err(|_| Error::Text)?;
        let set: Set = serde_json::from_str(&text).map_err(Error::Form)?;
        if set.keys.len() > KEYS {
            return Err(Error::TooMany(set.keys.len()));
        }
        if set.keys.is_empty() {
            return Err(Error::Empty);
        }
        let members = set.keys.iter().flat_map(Map::keys);
        if let Some(secret) = members.into_iter().find(|name| SECRET_MEMBERS.contains(&&***name)) {
            return Err(Error::Private(secret.clone()));
        }
        // 53 bits: what every JSON reader keeps.
        let digest = Sha256::digest(text.as_bytes());
        let generation =
            digest.iter().take(7).fold(0, |all, byte| all << 8 | u64::from(*byte)) >> 3;
        let kid = |key: &Map<String, Value>| Some(key.get("kid")?.as_str()?.to_owned());
        let kids = set.keys.iter().filter_map(kid).collect();
        Ok(Self { text, generation, kids, keys: set.keys.len() })
    }

    /// Whether a key of this name is in the set.
    pub fn has(&self, kid: &str) -> bool {
        self.kids.contains(kid)
    }

    pub fn len(&self) -> usize {
        self.keys
    }
}

/// Where an issuer's discovery document is.
pub fn discovery_url(issuer: &str) -> String {
    format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'))
}

/// Fetches the set at `url`.
pub async fn key_set(client: &Client, guard: &Guard, url: &str) -> Result<Fetched, Error> {
    let answer = ok(client.get(guard, url, BOUNDS).await)?;
    let fresh = answer.max_age();
    Ok(Fetched { keys: KeySet::parse(answer.body)?, fresh })
}

/// Asks where an issuer's set is. The guard judges that address when it is fetched.
pub async fn discover(client: &Client, guard: &Guard, issuer: &str) -> Result<String, Error> {
    let answer = ok(client.get(guard, &discovery_url(issuer), BOUNDS).await)?;
    let found: Metadata = serde_json::from_slice(&answer.body).map_err(Error::Discovery)?;
    // Byte for byte (§4.3): or any issuer could speak for another.
    if found.issuer == issuer { Ok(found.jwks_uri) } else { Err(Error::OtherIssuer(found.issuer)) }
}

fn ok(answer: Result<Answer, OutboundError>) -> Result<Answer, Error> {
    let answer = answer.map_err(Error::Outbound)?;
    if answer.status == 200 { Ok(answer) } else { Err(Error::Status(answer.status)) }
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
    fn j15_a_set_is_taken_as_it_stands_within_bounds() {
        check(r#"{"keys":[{"kid":"a","kty":"RSA"},{"kty":"RSA"}],"x":1}"#, Ok(&["a"]));
        check(r#"{"keys":[{"kid":1}]}"#, Ok(&[]));
        check(r#"{"keys":[]}"#, Err("a set without keys"));
        for bad in ["", "<html>", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[1]}"#] {
            check(bad, Err("not a key set (RFC 7517 §5)"));
        }
        let of = |n| format!(r#"{{"keys":[{}]}}"#, vec!["{}"; n].join(","));
        check(&of(100), Ok(&[]));
        check(&of(101), Err("101 keys, more than 100"));
    }

    #[test]
    fn j11_a_set_that_shows_a_private_member_is_refused_whole() {
        for name in SECRET_MEMBERS {
            let text = format!(r#"{{"keys":[{{"kid":"a"}},{{"kid":"b","{name}":"x"}}]}}"#);
            let shown =
                format!("the set shows the private member {name:?} of a key: it must be replaced");
            check(&text, Err(&shown));
        }
        check(r#"{"keys":[{"kid":"a","n":"x","e":"y","x":"x","y":"y"}]}"#, Ok(&["a"]));
    }

    #[test]
    fn the_generation_follows_the_content() {
        let generation = |text: &str| KeySet::parse(text.into()).unwrap().generation;
        let (one, two) = (generation(r#"{"keys":[{}]}"#), generation(r#"{"keys":[{},{}]}"#));
        assert_ne!(one, two);
        assert_eq!(one, generation(r#"{"keys":[{}]}"#));
        assert!(one < 1 << 53 && two < 1 << 53);
    }

    #[test]
    fn j39_the_discovery_document_is_below_the_issuer() {
        assert_eq!(
            discovery_url("https://idp/t/"),
            "https://idp/t/.well-known/openid-configuration"
        );
        assert_eq!(discovery_url("https://idp"), "https://idp/.well-known/openid-configuration");
    }
}
