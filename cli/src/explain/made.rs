//! The made-up credentials of `gatehouse explain`, which fit a document's rules and prove nothing.
//! Knows no policy.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use gatehouse_authn::{api_key, probe};
use gatehouse_contract::Role;
use serde_json::{Map, Value, json};

use super::{CALLER, SOME_TENANT};

/// Stands for any key of signed contexts.
pub(super) const CONTEXT_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

const ALGORITHM: &str = "RS256";
/// Of the right length for the keys of [`with_known_keys`]; nobody looks further.
const SIGNATURE: &[u8] = &[7; 256];

/// The document with keys and an algorithm for which tokens can be made here: who signs is not the question.
pub(super) fn with_known_keys(text: &str) -> String {
    let Ok(mut document) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
    let keys: Value = serde_json::from_str(probe::KEYS).unwrap_or_default();
    let issuers = document.get_mut("issuers").and_then(Value::as_array_mut);
    for issuer in issuers.into_iter().flatten().filter_map(Value::as_object_mut) {
        issuer.remove("secret");
        issuer.insert("jwks".to_owned(), json!({ "inline": keys }));
        issuer.insert("algorithms".to_owned(), json!([ALGORITHM]));
    }
    document.to_string()
}

/// A token of the issuer named, or of the first, that fits the document's rules for it.
pub(super) fn token(
    document: &str,
    issuer: Option<&str>,
    roles: &[Role],
    now: Duration,
) -> Option<String> {
    let document: Value = serde_json::from_str(document).ok()?;
    let issuers = document.get("issuers")?.as_array()?;
    let name = |entry: &&Value| entry.get("issuer").and_then(Value::as_str) == issuer;
    let entry = if issuer.is_some() { issuers.iter().find(name) } else { issuers.first() }?;
    let first = |member: &str| entry.get(member).and_then(|list| list.get(0)).cloned();
    let place = |member: &str, default: &str| {
        entry.get(member).and_then(Value::as_str).unwrap_or(default).to_owned()
    };
    let mut claims = Map::new();
    let mut claim = |pointer: &str, value: Value| put(&mut claims, pointer, value);
    claim("/iss", entry.get("issuer")?.clone())?;
    claim("/aud", first("audiences").unwrap_or(Value::Null))?;
    claim("/iat", json!(now.as_secs()))?;
    claim("/exp", json!(now.as_secs().saturating_add(1)))?;
    claim(&place("subject_claim", "/sub"), json!(CALLER))?;
    let tenant = first("tenants").unwrap_or_else(|| json!(SOME_TENANT));
    claim(&place("tenant_claim", "/tenant_id"), tenant)?;
    if let Some(scopes) = entry.get("required_scopes") {
        claim(&place("scope_claim", "/scope"), scopes.clone())?;
    }
    if let Some(from) = entry.get("roles").and_then(Value::as_object) {
        let groups: Vec<&String> = from
            .get("map")?
            .as_object()?
            .iter()
            .filter(|(_, role)| roles.iter().any(|held| role.as_str() == Some(held.as_str())))
            .map(|(group, _)| group)
            .collect();
        claim(from.get("claim")?.as_str()?, json!(groups))?;
    }
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({ "alg": ALGORITHM, "typ": "at+jwt" }));
    let claims = part(Value::Object(claims));
    Some(format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(SIGNATURE)))
}

/// Sets what the pointer (RFC 6901) names.
fn put(claims: &mut Map<String, Value>, pointer: &str, value: Value) -> Option<()> {
    let steps: Vec<String> =
        pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    let (last, outer) = steps.split_last()?;
    let mut at = claims;
    for step in outer {
        at = at.entry(step.clone()).or_insert_with(|| json!({})).as_object_mut()?;
    }
    at.insert(last.clone(), value);
    Some(())
}

/// A key of the right form.
pub(super) fn api_key() -> Option<String> {
    let (environment, id) = ("explain".parse().ok()?, SOME_TENANT.parse().ok()?);
    Some(api_key::compose(&environment, id, [7; 32]))
}
