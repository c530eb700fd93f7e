//! Where an issuer's keys come from. Knows no key but those that stand in the document.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use gatehouse_authn::{Algorithm, KeySet};
use gatehouse_contract::{Document, document::Words};
use serde_json::Value;

use super::{
    super::words::Fetched, MAX_TIMEOUT_MS, NO_RECORD, Surroundings, Target, Warnings, sidecar,
};

/// Where an issuer's keys come from.
#[derive(Debug)]
pub(crate) enum KeySource {
    /// The sidecar fetches and keeps them.
    Sidecar,
    /// They stand in the document.
    Inline(Rc<KeySet>),
    /// The filter fetches them itself.
    Direct(Direct),
}

/// How the filter fetches keys itself.
#[derive(Debug)]
pub(crate) struct Direct {
    /// Who has them.
    pub(crate) target: Rc<Target>,
    /// Path and query of the key set.
    pub(crate) path: String,
    /// How long to wait, in milliseconds.
    pub(crate) timeout_ms: u64,
    /// How old a set may become.
    pub(crate) refresh: Duration,
}

impl KeySource {
    /// Whether asking again may bring other keys.
    pub(crate) fn may_change(&self) -> bool {
        match self {
            Self::Sidecar | Self::Direct(_) => true,
            Self::Inline(_) => false,
        }
    }
}

/// 32 random bytes have fewer different ones less often than once in 10^10.
const MIN_DISTINCT_BYTES: usize = 16;

pub(super) fn read_algorithms(doc: &Document<'_>) -> Option<Vec<Algorithm>> {
    let known = format!("one of {}", Algorithm::WORDS.join(", "));
    let algorithms = doc.word_list::<Algorithm>("algorithms", &known);
    let mend = "list the algorithms of its tokens, e.g. [\"RS256\"]";
    doc.refuse_empty("algorithms", algorithms.as_deref(), mend);
    algorithms
}

/// `secret`, or `jwks`: `"sidecar"`, `{"inline": …}` or `{"target": …}`.
pub(super) fn read(
    doc: &Document<'_>,
    path: &str,
    around: Surroundings,
    algorithms: Option<&[Algorithm]>,
    warnings: &mut Warnings,
) -> Option<KeySource> {
    const EXPECTED: &str =
        "\"sidecar\", {\"inline\": {\"keys\": […]}} or {\"target\": …, \"path\": …}";
    let secret = doc.text_opt("secret");
    match (doc.raw("secret"), doc.raw("jwks")) {
        (Some(_), Some(_)) => {
            doc.note("jwks", "beside a secret", "write one of the two");
            return None;
        }
        (Some(_), None) => return read_secret(doc, path, &secret??, algorithms?, warnings),
        (None, _) if algorithms.is_some_and(|all| all.iter().any(|one| one.is_symmetric())) => {
            let mend = "write \"secret\", or remove the algorithms of that kind";
            doc.note("algorithms", "HS256, HS384 and HS512 need a secret", mend);
            return None;
        }
        (None, _) => {}
    }
    let here = |doc: &Document<'_>| doc.object("jwks", read_inline);
    let elsewhere = |doc: &Document<'_>| doc.object("jwks", |doc| read_direct(doc, around));
    let at_length = |doc: &Document<'_>| {
        let inline = |jwks: &Value| jwks.get("inline").is_some_and(|set| !set.is_null());
        doc.either("jwks", inline, here, elsewhere)
    };
    let in_a_word = |doc: &Document<'_>| {
        let Fetched::Sidecar = doc.word_or("jwks", Fetched::Sidecar, EXPECTED)?;
        if !around.record {
            doc.note("jwks", NO_RECORD, "write the keys inline, or name where to fetch them");
        }
        Some(KeySource::Sidecar)
    };
    let source = doc.either("jwks", Value::is_object, at_length, in_a_word)?;
    if let KeySource::Direct(_) = source {
        let text = "every worker keeps these keys by itself, and what leaves the pod is not \
                    guarded; let the sidecar fetch them where there is one";
        warnings.add(format!("{path}.jwks"), text);
    }
    Some(source)
}

/// Whoever has the secret can sign. It is never beside other keys, and as long as the hash at least (RFC 7518 §3.2).
fn read_secret(
    doc: &Document<'_>,
    path: &str,
    text: &str,
    algorithms: &[Algorithm],
    warnings: &mut Warnings,
) -> Option<KeySource> {
    const MEND: &str = "write random bytes as base64url, as many as the hash has: 32, 48 or 64";
    let Ok(secret) = URL_SAFE_NO_PAD.decode(text) else {
        doc.note("secret", "not base64url without padding", MEND);
        return None;
    };
    match KeySet::of_secret(&secret, algorithms) {
        Ok(set) => {
            let distinct: BTreeSet<u8> = secret.iter().copied().collect();
            if distinct.len() < MIN_DISTINCT_BYTES {
                doc.note("secret", "weak: few of its bytes differ", MEND);
                return None;
            }
            let text = "whoever reads this document can sign for this issuer; take public keys \
                        where the issuer has any";
            warnings.add(format!("{path}.secret"), text);
            Some(KeySource::Inline(Rc::new(set)))
        }
        Err(bad) => {
            doc.note("secret", bad.to_string(), MEND);
            None
        }
    }
}

fn read_inline(doc: &Document<'_>) -> Option<KeySource> {
    let set = doc.value("inline", "a key set: {\"keys\": […]}")?;
    match KeySet::parse(set.to_string().as_bytes()) {
        Ok(set) if set.keys().is_empty() && set.skipped().is_empty() => {
            doc.note("inline", "the key set is empty", "write the issuer's public keys");
            None
        }
        Ok(set) => {
            // What the reader of a fetched set leaves out stands here by somebody's hand.
            for skipped in set.skipped() {
                let name = format!("inline.keys[{}]", skipped.index);
                doc.note(&name, skipped.cause.to_string(), "remove or replace this key");
            }
            Some(KeySource::Inline(Rc::new(set)))
        }
        Err(bad) => {
            doc.note("inline", bad.to_string(), "write a key set: {\"keys\": […]}");
            None
        }
    }
}

fn read_direct(doc: &Document<'_>, around: Surroundings) -> Option<KeySource> {
    let target = sidecar::read_target(doc, around.host, None);
    let path = doc.parsed::<Path>("path", "the key set's path, such as \"/.well-known/jwks.json\"");
    let timeout_ms = doc.integer("timeout_ms", Some(1000), 1..=MAX_TIMEOUT_MS);
    let refresh_s = doc.integer("refresh_s", Some(300), 30..=86_400);
    Some(KeySource::Direct(Direct {
        target: Rc::new(target?),
        path: path?.0,
        timeout_ms: timeout_ms?,
        refresh: Duration::from_secs(refresh_s?),
    }))
}

/// Path and query of a call-out.
struct Path(String);

impl std::str::FromStr for Path {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let fits = text.starts_with('/')
            && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        fits.then(|| Self(text.to_owned())).ok_or(())
    }
}
