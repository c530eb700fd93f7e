//! Makes `testdata/vectors.json`: `UPDATE_GOLDEN=1 cargo test -p gatehouse-authn`. What is expected of each token is
//! stated here, where it is made; nothing is taken from a verifier. PSS signatures differ in every run, and so do
//! their tokens.

mod faults;
mod good;

use std::{fs, path::Path};

use super::{Issuer, VALID, Vector, Vectors};
use crate::{Algorithm, Refusal, algorithm::Family, testing as t};

const AUDIENCE: &str = "https://api.vectors.example";
const TENANT: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";
/// 2100-01-01.
const EXPIRY: u64 = 4_102_444_800;

/// Keys of every kind, each under its own id, with its own flaws.
const ALL: &str = "https://all.vectors.example";
/// The same keys, but an allow-list of one algorithm per family.
const FEW: &str = "https://few.vectors.example";
/// Keys without ids, the right ones last.
const NAMELESS: &str = "https://nameless.vectors.example";
/// A secret.
const SECRET: &str = "https://secret.vectors.example";

/// The tokens of one algorithm.
struct Bench {
    algorithm: Algorithm,
    vectors: Vec<Vector>,
}

impl Bench {
    /// The issuer that fits, and the id of its plain key.
    fn issuer(&self) -> &'static str {
        if self.algorithm.is_symmetric() { SECRET } else { ALL }
    }

    fn kid(&self) -> &'static str {
        kid(self.algorithm)
    }

    /// A header with the plain key's id and `more` members (each with a comma in front).
    fn header(&self, more: &str) -> String {
        format!(r#"{{"alg":"{}","kid":"{}"{more}}}"#, self.algorithm, self.kid())
    }

    /// Good claims, told apart by a subject, with `more` members (each with a comma in front).
    fn claims(&self, subject: &str, more: &str) -> String {
        self.claims_of(self.issuer(), subject, more)
    }

    fn claims_of(&self, issuer: &str, subject: &str, more: &str) -> String {
        let algorithm = self.algorithm;
        format!(
            r#"{{"iss":"{issuer}","aud":"{AUDIENCE}","sub":"{subject}/{algorithm}","exp":{EXPIRY},"tenant_id":"{TENANT}"{more}}}"#
        )
    }

    fn sign(&self, header: &str, claims: &str) -> String {
        t::sign(self.algorithm, header, claims)
    }

    fn good(&mut self, name: &str, token: String) {
        self.push(self.issuer(), name, None, token, VALID);
    }

    fn bad(&mut self, fault: &str, name: &str, token: String, refusal: Refusal) {
        self.push(self.issuer(), name, Some(fault), token, refusal.word());
    }

    fn push(
        &mut self,
        issuer: &str,
        name: &str,
        fault: Option<&str>,
        token: String,
        verdict: &str,
    ) {
        let algorithm = self.algorithm.to_string();
        let fault = fault.map(str::to_owned);
        let name = match &fault {
            None => format!("{algorithm}: {name}"),
            Some(fault) => format!("{algorithm}: {fault}: {name}"),
        };
        let (issuer, verdict) = (issuer.to_owned(), verdict.to_owned());
        self.vectors.push(Vector { name, issuer, algorithm, fault, token, verdict });
    }
}

fn kid(algorithm: Algorithm) -> &'static str {
    match algorithm.family() {
        Family::Rsa => "rsa",
        Family::P256 => "p256",
        Family::P384 => "p384",
        Family::Ed25519 => "ed25519",
        Family::Secret(_) => "secret",
    }
}

/// One algorithm of each kind of key, RSA with all its algorithms.
const KINDS: [Algorithm; 4] =
    [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa];

fn issuers() -> Vec<Issuer> {
    let of = |algorithm: Algorithm, more: &str| t::key_for(algorithm, more);
    let mut named = Vec::new();
    for algorithm in KINDS {
        let kid = kid(algorithm);
        named.push(of(algorithm, &format!(r#"{{"kid":"{kid}"}}"#)));
        // Two keys may share an id as long as their types differ.
        named.push(of(algorithm, r#"{"kid":"shared"}"#));
        named.push(of(algorithm, &format!(r#"{{"kid":"{kid} ümlaut","use":"sig"}}"#)));
        named.push(of(algorithm, &format!(r#"{{"kid":"{kid}-enc","use":"enc"}}"#)));
        named.push(of(algorithm, &format!(r#"{{"kid":"{kid}-signs","key_ops":["sign"]}}"#)));
        named.push(of(algorithm, &format!(r#"{{"kid":"{kid}-verifies","key_ops":["verify"]}}"#)));
    }
    for algorithm in Algorithm::ALL.iter().filter(|algorithm| !algorithm.is_symmetric()) {
        named.push(of(*algorithm, &format!(r#"{{"kid":"only-{algorithm}","alg":"{algorithm}"}}"#)));
    }
    named.push(t::rsa3072(r#"{"kid":"rsa-3072"}"#));
    let unnamed = |key: String| {
        let mut key: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&key).unwrap();
        key.remove("kid");
        serde_json::to_string(&key).unwrap()
    };
    let nameless: Vec<_> = [
        vec![unnamed(t::rsa3072("{}"))],
        KINDS[1..].iter().map(|algorithm| t::other_key_for(*algorithm)).collect(),
        KINDS.iter().map(|algorithm| unnamed(of(*algorithm, "{}"))).collect(),
    ]
    .concat();
    let asymmetric = || Algorithm::ALL.iter().filter(|algorithm| !algorithm.is_symmetric());
    let names = |algorithms: &[Algorithm]| algorithms.iter().map(ToString::to_string).collect();
    let jwks = |keys: &[String]| Some(serde_json::from_str(&t::set_text(keys)).unwrap());
    let issuer = |issuer: &str, algorithms: &[Algorithm], keys: &[String]| Issuer {
        issuer: issuer.to_owned(),
        algorithms: names(algorithms),
        jwks: jwks(keys),
        secret: None,
    };
    let all: Vec<_> = asymmetric().copied().collect();
    vec![
        issuer(ALL, &all, &named),
        issuer(FEW, &[Algorithm::Rs512], &named),
        issuer(NAMELESS, &all, &nameless),
        Issuer {
            issuer: SECRET.to_owned(),
            algorithms: names(&[Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512]),
            jwks: None,
            secret: Some(t::encode(t::SECRET)),
        },
    ]
}

fn generate() -> Vectors {
    let mut vectors = Vec::new();
    for algorithm in Algorithm::ALL {
        let mut bench = Bench { algorithm: *algorithm, vectors: Vec::new() };
        good::add(&mut bench);
        faults::add(&mut bench);
        vectors.append(&mut bench.vectors);
    }
    Vectors {
        audience: AUDIENCE.to_owned(),
        tenant: TENANT.to_owned(),
        issuers: issuers(),
        vectors,
    }
}

/// One line for each vector, so that a difference is readable.
fn text(vectors: &Vectors) -> String {
    let Vectors { audience, tenant, issuers, vectors } = vectors;
    let lines = |values: Vec<String>| values.join(",\n    ");
    let issuers = lines(issuers.iter().map(|one| serde_json::to_string(one).unwrap()).collect());
    let vectors = lines(vectors.iter().map(|one| serde_json::to_string(one).unwrap()).collect());
    format!(
        "{{\n  \"audience\": \"{audience}\",\n  \"tenant\": \"{tenant}\",\n  \"issuers\": [\n    {issuers}\n  ],\n  \
         \"vectors\": [\n    {vectors}\n  ]\n}}\n"
    )
}

/// All but the PSS tokens come out the same in every run: then a change of the generator shows.
#[test]
fn the_committed_vectors_are_those_that_are_made_here() {
    let made = generate();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/vectors.json");
    #[expect(clippy::disallowed_methods, reason = "renews a golden file, on demand")]
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text(&made)).unwrap();
        return;
    }
    let committed = Vectors::committed().unwrap();
    assert_eq!(committed.issuers, made.issuers);
    assert_eq!(committed.vectors.len(), made.vectors.len());
    for (committed, made) in committed.vectors.iter().zip(&made.vectors) {
        if committed.algorithm.starts_with("PS") {
            assert_eq!((&committed.name, &committed.verdict), (&made.name, &made.verdict));
        } else {
            assert_eq!(committed, made);
        }
    }
}
