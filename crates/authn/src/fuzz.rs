//! What must hold for any bytes at all, as plain functions for the fuzz targets (`fuzz/`, feature `fuzzing`).
//! They panic where an invariant breaks, and say whether the input was accepted. Knows nothing of how inputs are made.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    Algorithm, Claims, KeySet, Portable, Refusal, Rules,
    api_key::{self, ApiKey},
    bearer,
    claims::{self, MAX_NAME_BYTES},
    context, cookie,
    jws::{self, Header, Headers, MAX_DEPTH, MAX_KEY_ID_BYTES, MAX_TOKEN_BYTES},
    probe, query,
    strict::Document,
};

/// A token is refused or has this one spelling; an unverified one verifies with no key that did not sign it.
pub fn token(data: &[u8]) -> bool {
    let mut headers = Headers::default();
    let parsed = jws::parse(data);
    for _ in 0..2 {
        let among = jws::parse_among(&mut headers, data);
        let header = |parsed: &Result<jws::Parsed<'_>, crate::Refusal>| {
            parsed.as_ref().map(|parsed| parsed.header().clone()).map_err(Clone::clone)
        };
        assert_eq!(header(&among), header(&parsed), "a known header changed the answer");
    }
    let Ok(parsed) = parsed else { return false };
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
    let Ok(members) = Document::read(data.to_vec(), MAX_DEPTH) else { return false };
    let loose: serde_json::Value = serde_json::from_slice(data).unwrap_or_default();
    assert!(loose.is_object(), "stricter readers accept no more");
    let Ok(header) = Header::read(members.root()) else { return false };
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
    let Ok(members) = Document::read(data.to_vec(), MAX_DEPTH) else { return false };
    let rules = Rules {
        audiences: vec!["https://api.example".to_owned()],
        ..Rules::new("https://auth.example")
    };
    let header = Header { algorithm: Algorithm::Rs256, key_id: None, typ: None };
    let now = Duration::from_secs(1_700_000_000);
    let Ok(claims) = claims::weigh(&header, members.root(), &rules, now) else { return false };
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

/// A message of any bytes verifies with the key that signed it and with no other; [`token`] accepts no more forms.
pub fn message(data: &[u8]) -> bool {
    assert!(jws::verify(&KeySet::default(), data).is_err(), "verified without a key");
    let Ok(keys) = KeySet::parse(probe::KEYS.as_bytes()) else { return false };
    let Ok(message) = jws::verify(&keys, data) else { return false };
    assert!(data.is_ascii());
    let payload = data.split(|byte| *byte == b'.').nth(1).unwrap_or_default();
    assert_eq!(URL_SAFE_NO_PAD.encode(&message.payload).as_bytes(), payload);
    // Nobody signs with these keys but their owner: only the published messages verify.
    assert!(probe::GOOD.iter().any(|good| good.as_bytes() == data), "a forgery");
    true
}

/// No context is taken but one that was signed.
pub fn context(data: &[u8]) -> bool {
    let Ok(key) = URL_SAFE_NO_PAD.encode([7; 32]).parse::<context::Key>() else { return false };
    let now = Duration::from_secs(1_700_000_000);
    let Ok(facts) = context::Reader::new("upstream", &key, None).read(data, now) else {
        return false;
    };
    // The one that is among the seeds.
    let again = context::Signer::new("upstream", key).sign(&facts, now);
    assert_eq!(again.as_bytes(), data, "a forgery");
    true
}

/// A key has one spelling, and its checksum holds.
pub fn api_key(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(key) = ApiKey::parse(text) else { return false };
    assert!(text.len() <= api_key::MAX_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(text.contains(&key.id().as_uuid().simple().to_string()));
    true
}

/// A cookie that is found is gone once it is taken out, and nothing else is.
pub fn cookie(data: &[u8]) -> bool {
    const NAME: &str = "token";
    let found = cookie::find([data], NAME);
    let left = cookie::without(data, NAME);
    let rest = left.as_deref().unwrap_or_default();
    assert_eq!(cookie::find([rest], NAME), Ok(None));
    let others = |header: &[u8]| -> Vec<Vec<u8>> {
        let pieces = header.split(|byte| *byte == b';');
        let other = |piece: &&[u8]| cookie::find([*piece], NAME) == Ok(None);
        let trimmed = pieces.filter(other).map(|piece| piece.trim_ascii().to_vec());
        trimmed.filter(|piece| !piece.is_empty()).collect()
    };
    assert_eq!(others(data), others(rest));
    match found {
        Ok(None) => assert!(left.is_none() || rest == data),
        Ok(Some(value)) => assert!(rest.len() + value.len() < data.len()),
        Err(refusal) => assert_eq!(refusal, Refusal::CredentialTwice),
    }
    matches!(found, Ok(Some(_)))
}

/// A parameter that is found is gone once it is taken out, and every other byte is where it was.
pub fn query(data: &[u8]) -> bool {
    const NAME: &str = "access_token";
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let found = query::find(text, NAME);
    let left = query::without(text, NAME);
    assert_eq!(query::find(left.as_deref().unwrap_or_default(), NAME), Ok(None));
    let other = |piece: &&str| query::find(piece, NAME) == Ok(None);
    let others: Vec<&str> = text.split('&').filter(other).collect();
    assert_eq!(left, (!others.is_empty()).then(|| others.join("&")));
    matches!(found, Ok(Some(_)))
}
