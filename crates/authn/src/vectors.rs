//! Test vectors: tokens, good and broken in every way that we know, each with the verdict that every verifier must
//! come to. They are committed as `testdata/vectors.json` and stay the same for the unit tests, the real Envoy and
//! whoever compares another implementation with ours.
//! Knows nothing of hosts.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{
    Algorithm, KeySet, Refusal, Rules, claims,
    jws::{self, Verifier},
};

#[cfg(test)]
mod generate;

/// The committed file.
pub const TEXT: &str = include_str!("../testdata/vectors.json");
/// The word of a good token.
pub const VALID: &str = "valid";

/// All of them, and the issuers that they come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vectors {
    /// What stands in `aud`.
    pub audience: String,
    /// What stands in `tenant_id`.
    pub tenant: String,
    /// Who signs: an issuer is an allow-list and a key set.
    pub issuers: Vec<Issuer>,
    /// The tokens. Good ones are good from 2023-11-14 to 2100-01-01.
    pub vectors: Vec<Vector>,
}

/// An issuer as it would be configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// `iss`.
    pub issuer: String,
    /// Its allow-list.
    pub algorithms: Vec<String>,
    /// Its public keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<serde_json::Value>,
    /// Its secret as base64url, in place of keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// One token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    /// Unique.
    pub name: String,
    /// Whose rules and keys apply, by [`Issuer::issuer`]. A broken token may claim another.
    pub issuer: String,
    /// The algorithm whose handling it tests.
    pub algorithm: String,
    /// The kind of fault; absent for good tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The token.
    pub token: String,
    /// [`VALID`], or the refusal's word ([`Refusal::word`]).
    pub verdict: String,
}

/// Why the vectors cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the vectors' file is broken")]
pub struct Broken;

impl Vectors {
    /// Reads the committed file.
    ///
    /// # Errors
    /// [`Broken`], never as committed.
    pub fn committed() -> Result<Self, Broken> {
        serde_json::from_str(TEXT).map_err(|_broken| Broken)
    }

    /// What this crate makes of a vector at `now`, with this verifier: the issuer's allow-list and keys, then its
    /// rules.
    ///
    /// # Errors
    /// [`Broken`] where the vector names no issuer, or the issuer's keys cannot be read.
    pub fn verdict(
        &self,
        vector: &Vector,
        verifier: &dyn Verifier,
        now: Duration,
    ) -> Result<&'static str, Broken> {
        let named = |issuer: &&Issuer| issuer.issuer == vector.issuer;
        let issuer = self.issuers.iter().find(named).ok_or(Broken)?;
        let allowed = issuer.algorithms()?;
        let keys = issuer.keys(&allowed)?;
        let rules =
            Rules { audiences: vec![self.audience.clone()], ..Rules::new(issuer.issuer.clone()) };
        let judged = || {
            let token = jws::parse(vector.token.as_bytes())?;
            // Keys are chosen by the claimed issuer, before anything is verified.
            if token.claimed_issuer() != Some(issuer.issuer.as_str()) {
                return Err(Refusal::IssuerUnknown);
            }
            let token = jws::verify_with(&token, &keys, &allowed, verifier)?;
            claims::judge(&token, &rules, now)
        };
        Ok(judged().map_or_else(Refusal::word, |_claims| VALID))
    }
}

impl Issuer {
    fn algorithms(&self) -> Result<Vec<Algorithm>, Broken> {
        self.algorithms.iter().map(|name| name.parse().map_err(|_unknown| Broken)).collect()
    }

    fn keys(&self, allowed: &[Algorithm]) -> Result<KeySet, Broken> {
        if let Some(secret) = &self.secret {
            let secret = URL_SAFE_NO_PAD.decode(secret).map_err(|_broken| Broken)?;
            return KeySet::of_secret(&secret, allowed).map_err(|_weak| Broken);
        }
        let keys = self.jwks.as_ref().ok_or(Broken)?.to_string();
        KeySet::parse(keys.as_bytes()).map_err(|_bad| Broken)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::Portable;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    #[test]
    fn every_vector_gets_its_verdict_from_the_portable_verifier() {
        let vectors = Vectors::committed().unwrap();
        for vector in &vectors.vectors {
            let got = vectors.verdict(vector, &Portable, NOW);
            assert_eq!(got, Ok(vector.verdict.as_str()), "{}: {}", vector.name, vector.token);
        }
    }

    #[test]
    fn there_are_enough_vectors_of_every_kind() {
        let vectors = Vectors::committed().unwrap().vectors;
        let tokens: BTreeSet<_> = vectors.iter().map(|vector| &vector.token).collect();
        let names: BTreeSet<_> = vectors.iter().map(|vector| &vector.name).collect();
        assert_eq!((tokens.len(), names.len()), (vectors.len(), vectors.len()));
        let mut counts: BTreeMap<&str, (usize, BTreeSet<&str>)> = BTreeMap::new();
        for vector in &vectors {
            assert_eq!(vector.fault.is_none(), vector.verdict == VALID, "{}", vector.name);
            let known = Refusal::ALL.iter().any(|refusal| refusal.word() == vector.verdict);
            assert!(known || vector.verdict == VALID, "{}", vector.verdict);
            let (good, faults) = counts.entry(&vector.algorithm).or_default();
            *good += usize::from(vector.fault.is_none());
            faults.extend(vector.fault.as_deref());
        }
        for algorithm in Algorithm::ALL {
            let (good, faults) = counts.get(algorithm.as_str()).unwrap();
            let native = algorithm.native_hash().is_some();
            assert!(*good >= if native { 24 } else { 4 }, "{algorithm}: {good}");
            assert!(faults.len() >= if native { 20 } else { 8 }, "{algorithm}: {faults:?}");
        }
        let native = |vector: &&Vector| {
            vector
                .algorithm
                .parse()
                .is_ok_and(|algorithm: Algorithm| algorithm.native_hash().is_some())
        };
        let native: Vec<_> = vectors.iter().filter(native).collect();
        let bad = native.iter().filter(|vector| vector.fault.is_some()).count();
        assert!(bad >= 120 && native.len() - bad >= 120, "{bad} of {}", native.len());
    }
}
