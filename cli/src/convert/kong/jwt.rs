//! Kong's plugin `jwt` (3.9) and its credentials. Knows no other plugin.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use super::super::{Draft, pem};
use crate::finding::Finding;

const KNOWN: &[&str] = &[
    "claims_to_verify",
    "cookie_names",
    "header_names",
    "key_claim_name",
    "maximum_expiration",
    "run_on_preflight",
    "secret_is_base64",
    "uri_param_names",
];

fn texts<'v>(config: &'v Value, name: &str) -> Vec<&'v str> {
    let items = config.get(name).and_then(Value::as_array);
    items.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What Kong refuses, and what is unsafe whoever runs it.
pub(crate) fn mistakes(config: &Value, path: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, claim) in texts(config, "claims_to_verify").into_iter().enumerate() {
        if !["exp", "nbf"].contains(&claim) {
            found.push(Finding::mistake(
                format!("{path}.claims_to_verify[{at}]"),
                format!("\"{claim}\" does not fit: Kong's jwt knows exp and nbf here, and refuses the plugin"),
                "remove it; which issuers are taken is said by their keys (key_claim_name)",
            ));
        }
    }
    if texts(config, "claims_to_verify").iter().all(|claim| *claim != "exp") {
        found.push(Finding::warning(
            format!("{path}.claims_to_verify"),
            "without exp a token is good for ever",
            "write [\"exp\"]",
        ));
    }
    // Kong's own default is on.
    if config.get("uri_param_names").is_none() || !texts(config, "uri_param_names").is_empty() {
        found.push(Finding::warning(
            format!("{path}.uri_param_names"),
            "tokens in URLs stand in histories and logs; Kong takes \"jwt\" unless told otherwise",
            "write []",
        ));
    }
    if config.get("run_on_preflight") != Some(&Value::Bool(false)) {
        found.push(Finding::warning(
            format!("{path}.run_on_preflight"),
            "browsers send preflights without credentials, so that Kong refuses each of them",
            "write false",
        ));
    }
    found
}

pub(super) fn read(config: &Value, path: &str, draft: &mut Draft) {
    draft.findings.extend(mistakes(config, path));
    let at = |name: &str| format!("{path}.{name}");
    for (ours, theirs) in [("query", "uri_param_names"), ("cookie", "cookie_names")] {
        let names = texts(config, theirs);
        if let Some(name) = names.first() {
            draft.sources.insert(ours.to_owned(), json!(name));
        }
        for (index, name) in names.iter().enumerate().skip(1) {
            let cause = format!("one name is enough: \"{name}\" is left out");
            draft.note(format!("{path}.{theirs}[{index}]"), cause, "let clients use the first");
        }
    }
    for (index, name) in texts(config, "header_names").into_iter().enumerate() {
        if !name.eq_ignore_ascii_case("authorization") {
            let cause = format!("tokens are taken from Authorization, not from {name}");
            draft.note(format!("{path}.header_names[{index}]"), cause, "let clients use that one");
        }
    }
    let claim = config.get("key_claim_name").and_then(Value::as_str).unwrap_or("iss");
    if claim != "iss" {
        let cause = format!("an issuer is found by iss alone, not by {claim}");
        draft.note(at("key_claim_name"), cause, "write each key's issuer into its entry by hand");
    }
    if let Some(seconds) = config.get("maximum_expiration").and_then(Value::as_u64)
        && seconds > 0
    {
        draft.max_lifetime_s = Some(seconds);
        let cause = "is the time from iat to exp here, and iat is required then";
        draft.note(at("maximum_expiration"), cause, "see that the issuer writes iat");
    }
    draft.base64_secrets |= config.get("secret_is_base64") == Some(&Value::Bool(true));
    draft.rest(config, path, KNOWN, &[]);
}

/// One consumer: Kong's word for whoever has credentials. Its tokens' issuer stands in `jwt_secrets`.
pub(super) fn consumer(value: &Value, path: &str, draft: &mut Draft) {
    let known = ["username", "custom_id", "id", "jwt_secrets", "plugins"];
    let credentials = value.get("jwt_secrets").and_then(Value::as_array);
    if credentials.is_some_and(|all| !all.is_empty()) {
        let name = value.get("username").or(value.get("custom_id")).and_then(Value::as_str);
        let cause = format!(
            "a consumer is no tenant: whom \"{}\" may speak for is not said",
            name.unwrap_or_default()
        );
        let mend = "write \"tenants\" and \"max_role\" into its issuer's entry";
        draft.note(path, cause, mend);
    }
    draft.rest(value, path, &known, &[]);
}

/// What a secret in base64 stands for; one that is none stays.
pub(in super::super) fn decode(secret: &mut Value) {
    let text = secret.as_str().and_then(|secret| URL_SAFE_NO_PAD.decode(secret).ok());
    if let Some(bytes) = text.and_then(|text| STANDARD.decode(text).ok()) {
        *secret = json!(URL_SAFE_NO_PAD.encode(bytes));
    }
}

/// One credential: an issuer and what it signs with.
pub(super) fn secret(value: &Value, path: &str, draft: &mut Draft) {
    draft.known = true;
    draft.kong = true;
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let mut issuer = serde_json::Map::new();
    // Kong's own default.
    let algorithm = text("algorithm").unwrap_or("HS256");
    issuer.insert("algorithms".to_owned(), json!([algorithm]));
    match text("key") {
        Some(key) => drop(issuer.insert("issuer".to_owned(), json!(key))),
        None => draft.note(path, "Kong makes up a key where none is written", "write the issuer"),
    }
    match (text("rsa_public_key"), text("secret")) {
        (Some(pem), _) if !algorithm.starts_with("HS") => match pem::key_set(pem, algorithm) {
            Ok(set) => drop(issuer.insert("jwks".to_owned(), json!({ "inline": set }))),
            Err(cause) => {
                let mend =
                    "write the key into \"jwks\" by hand, or let the sidecar fetch the issuer's";
                draft.note(format!("{path}.rsa_public_key"), cause, mend);
            }
        },
        (_, Some(secret)) if algorithm.starts_with("HS") => {
            issuer.insert("secret".to_owned(), json!(URL_SAFE_NO_PAD.encode(secret)));
        }
        _ => {
            let cause = format!("there is no key for {algorithm}; Kong makes up a secret");
            draft.note(path, cause, "write \"jwks\" or \"secret\" into its issuer's entry");
        }
    }
    draft.issuers.push(serde_json::Value::Object(issuer));
    let known = ["key", "algorithm", "rsa_public_key", "secret", "consumer", "id"];
    draft.rest(value, path, &known, &[]);
}
