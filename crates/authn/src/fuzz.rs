//! What must hold for any bytes at all, as plain functions: the tests below run them over mutated inputs for a
//! bounded time; a fuzzer (with the feature `fuzzing`) may run the same functions for longer.
//! They panic where an invariant breaks, and say whether the input was accepted.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    Algorithm, Claims, KeySet, Portable, Rules, bearer,
    claims::{self, MAX_NAME_BYTES},
    jws::{self, Header, MAX_DEPTH, MAX_KEY_ID_BYTES, MAX_TOKEN_BYTES},
    strict,
};

/// A token is refused or has this one spelling; an unverified one verifies with no key that did not sign it.
pub fn token(data: &[u8]) -> bool {
    let Ok(parsed) = jws::parse(data) else { return false };
    assert!(data.len() <= MAX_TOKEN_BYTES);
    assert!(data.starts_with(parsed.signed()));
    let signature = data.get(parsed.signed().len()..).unwrap_or_default();
    let again = format!(".{}", URL_SAFE_NO_PAD.encode(parsed.signature()));
    assert_eq!(signature, again.as_bytes(), "two spellings of one signature");
    let verified = jws::verify_with(&parsed, &KeySet::default(), Algorithm::ALL, &Portable);
    assert!(verified.is_err(), "verified without a key");
    true
}

/// A header that is taken stands in `serde_json`'s eyes too, asks for no extension and is bounded.
pub fn header(data: &[u8]) -> bool {
    let Ok(members) = strict::object(data, MAX_DEPTH) else { return false };
    let loose: serde_json::Value = serde_json::from_slice(data).unwrap_or_default();
    assert!(loose.is_object(), "stricter readers accept no more");
    let Ok(header) = Header::read(&members) else { return false };
    assert_eq!(loose.get("alg").and_then(|alg| alg.as_str()), Some(header.algorithm.as_str()));
    assert!(loose.get("crit").is_none());
    assert!(header.key_id.is_none_or(|id| id.len() <= MAX_KEY_ID_BYTES));
    true
}

/// Every key of a set that is read can be put to use.
pub fn key_set(data: &[u8]) -> bool {
    let Ok(set) = KeySet::parse(data) else { return false };
    assert!(set.keys().len() <= crate::jwks::MAX_KEYS);
    for key in set.keys() {
        assert!(Algorithm::ALL.iter().any(|algorithm| key.fits(*algorithm)));
        for algorithm in Algorithm::ALL.iter().filter(|algorithm| key.fits(**algorithm)) {
            let native = algorithm.native_hash().is_some();
            assert!(!native || key.spki_der().len() > key.signature_bytes(*algorithm).unwrap_or(0));
        }
    }
    true
}

/// Claims that pass are those of the rules, in time, and fit into headers.
pub fn claims(data: &[u8]) -> bool {
    let Ok(members) = strict::object(data, MAX_DEPTH) else { return false };
    let rules = Rules {
        audiences: vec!["https://api.example".to_owned()],
        ..Rules::new("https://auth.example")
    };
    let header = Header { algorithm: Algorithm::Rs256, key_id: None, typ: None };
    let now = Duration::from_secs(1_700_000_000);
    let Ok(claims) = claims::weigh(&header, &members, &rules, now) else { return false };
    let Claims { issuer, subject, expires_at, token_id, .. } = claims;
    assert_eq!(issuer, rules.issuer);
    assert!(expires_at + rules.leeway > now);
    for name in token_id.iter().chain([&subject]) {
        assert!((1..=MAX_NAME_BYTES).contains(&name.len()));
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    true
}

/// A credential is one run of token characters.
pub fn authorization(data: &[u8]) -> bool {
    let Ok(Some(token)) = bearer::token(data) else { return false };
    assert!(!token.is_empty() && data.ends_with(token));
    assert!(token.iter().all(u8::is_ascii_graphic));
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing as t;

    const HEADER: &str = r#"{"alg":"ES256","kid":"k","typ":"at+jwt"}"#;
    const CLAIMS: &str = r#"{"iss":"https://auth.example","aud":["x","https://api.example"],"sub":"s","exp":1700000100.5,"nbf":0,"iat":1,"jti":"j","tenant_id":"0191d6b0-7c3e-7aaa-8bbb-0123456789ab","a":{"b":[1,-2,"\u00e4"]}}"#;

    /// SplitMix64: the same mutations in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(bound.max(1)).unwrap()).unwrap()
        }
    }

    /// Changes `seed` in up to four places, with bytes that mean something to one of the grammars.
    fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
        const WORDS: &[&[u8]] = &[
            b".",
            b"..",
            b"=",
            b"\"",
            b"{",
            b"}",
            b"[[[[[[[[[[[[[[[[[",
            b",",
            b":",
            b"null",
            b"1e400",
            b"-1",
            b"\\u0000",
            b"\\ud800",
            b"\xff",
            b"\0",
            b"none",
            b"9007199254740993",
            b" ",
            b"\"alg\":\"ES256\",",
            b"\"crit\":[],",
            b"\"exp\":1,",
        ];
        let mut bytes = seed.to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len() + 1);
            match random.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, u8::try_from(random.below(256)).unwrap()),
                2 => {
                    let word = WORDS[random.below(WORDS.len())];
                    bytes.splice(at..at, word.iter().copied());
                }
                3 => {
                    let to = at + random.below(bytes.len() - at + 1);
                    let part: Vec<u8> = bytes.drain(at..to).collect();
                    if random.below(2) == 0 {
                        bytes.splice(0..0, part);
                    }
                }
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << random.below(8);
                    }
                }
            }
        }
        bytes
    }

    /// Runs `entry` over mutations of a good `seed`. Some must be accepted and some refused, else they test nothing.
    fn check(entry: fn(&[u8]) -> bool, seed: &str, rounds: usize) {
        let mut random = Random(20_240_601);
        assert!(entry(seed.as_bytes()));
        let mutated = (0..rounds).map(|_| mutate(seed.as_bytes(), &mut random));
        let accepted = mutated.filter(|bytes| entry(bytes)).count();
        assert!((rounds / 100..rounds).contains(&accepted), "{accepted} of {rounds} accepted");
    }

    #[test]
    fn any_bytes_as_a_token() {
        let good = t::sign(Algorithm::Es256, HEADER, CLAIMS);
        check(token, &good, 20_000);
    }

    #[test]
    fn any_bytes_as_a_header() {
        check(header, HEADER, 20_000);
    }

    #[test]
    fn any_bytes_as_claims() {
        check(claims, CLAIMS, 20_000);
    }

    #[test]
    fn any_bytes_as_a_key_set() {
        check(key_set, &t::set_text(&[t::ec("{}"), t::rsa("{}")]), 4_000);
    }

    #[test]
    fn j30_any_bytes_as_an_authorization() {
        check(authorization, "Bearer abc.def.ghi", 20_000);
    }
}
