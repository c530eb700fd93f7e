//! Envoy's side: the HTTP filters `jwt_authn` and `ratelimit`, and the descriptors of its rate limit service.
//! Knows no other filter.

use gatehouse_contract::Tier;
use serde_json::{Map, Value, json};

use super::{Draft, versions};
use crate::lint::{is_type, walk};

const JWT_AUTHN: &str = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
const RATE_LIMIT: &str = "envoy.extensions.filters.http.ratelimit.v3.RateLimit";

pub(super) fn read(document: &Value, draft: &mut Draft) {
    walk(document, "$", &mut |value, path| {
        let kind = value.get("@type").and_then(Value::as_str);
        if is_type(kind, JWT_AUTHN) {
            draft.known = true;
            jwt_authn(value, path, draft);
        } else if is_type(kind, RATE_LIMIT) {
            draft.known = true;
            rate_limit(value, path, draft);
        }
        for (at, _) in
            value.get("rate_limits").and_then(Value::as_array).into_iter().flatten().enumerate()
        {
            let cause = "what is counted is the tenant, the route and the caller, not descriptors";
            let mend = "write endpoints into the sidecar's document, and costs into \"limiter\"";
            draft.note(format!("{path}.rate_limits[{at}]"), cause, mend);
        }
        for name in ["prefix", "path"] {
            if let Some(written) = value.get(name).and_then(Value::as_str) {
                versions(written, &mut draft.versions);
            }
        }
    });
    // The service's own file has no `@type`.
    if let (Some(domain), Some(list)) =
        (document.get("domain"), document.get("descriptors").and_then(Value::as_array))
        && domain.is_string()
    {
        draft.known = true;
        for (at, one) in list.iter().enumerate() {
            descriptor(one, &format!("$.descriptors[{at}]"), draft);
        }
        draft.rest(document, "$", &["domain", "descriptors"], &[]);
    }
}

/// `50s` or `0.05s`, in thousandths.
fn milliseconds(value: Option<&Value>) -> Option<u64> {
    let (seconds, fraction) = {
        let text = value?.as_str()?.strip_suffix('s')?;
        text.split_once('.').unwrap_or((text, ""))
    };
    let fraction: String = fraction.chars().chain("000".chars()).take(3).collect();
    seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(fraction.parse().ok()?)
}

fn jwt_authn(config: &Value, path: &str, draft: &mut Draft) {
    let mut forward = Vec::new();
    for (name, entry) in config.get("providers").and_then(Value::as_object).into_iter().flatten() {
        let at = format!("{path}.providers.{name}");
        provider(entry, &at, draft);
        forward.push(entry.get("forward") == Some(&Value::Bool(true)));
    }
    if let Some(first) = forward.first() {
        draft.sources.insert("forward".to_owned(), json!(forward.iter().all(|one| *one)));
        if forward.iter().any(|one| one != first) {
            let cause = "whether the upstream sees the token is said once for all issuers: false";
            draft.note(format!("{path}.providers"), cause, "choose for all of them in \"sources\"");
        }
    }
    for (at, rule) in
        config.get("rules").and_then(Value::as_array).into_iter().flatten().enumerate()
    {
        if let Some(prefix) = rule.pointer("/match/prefix").and_then(Value::as_str) {
            versions(prefix, &mut draft.versions);
        }
        let cause = "which paths need a credential, and which role, is the role matrix's to say";
        draft.note(format!("{path}.rules[{at}]"), cause, "compare with `gatehouse explain`");
    }
    // Preflights never need a credential here; expiry always does.
    draft.rest(config, path, &["@type", "providers", "rules", "bypass_cors_preflight"], &[]);
}

fn provider(value: &Value, path: &str, draft: &mut Draft) {
    let mut issuer = Map::new();
    let mut put = |name: &str, value: Value| drop(issuer.insert(name.to_owned(), value));
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let at = |name: &str| format!("{path}.{name}");
    if let Some(name) = text("/issuer") {
        put("issuer", json!(name));
    }
    if let Some(audiences) = value.get("audiences") {
        put("audiences", audiences.clone());
    }
    if let Some(inline) = text("/local_jwks/inline_string") {
        match serde_json::from_str::<Value>(inline) {
            Ok(set) => {
                put("algorithms", json!(algorithms(&set)));
                put("jwks", json!({ "inline": set }));
            }
            Err(_) => draft.note(at("local_jwks.inline_string"), "is no JSON", "write a key set"),
        }
    } else if value.get("local_jwks").is_some() {
        draft.note(
            at("local_jwks"),
            "keys stand in the document or are fetched",
            "write them inline",
        );
    }
    if let Some(remote) = value.get("remote_jwks") {
        let uri = remote.pointer("/http_uri/uri").and_then(Value::as_str).unwrap_or_default();
        let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
        let (authority, file) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        let mut jwks = json!({"authority": authority, "path": file});
        if let Some(jwks) = jwks.as_object_mut() {
            if let Some(cluster) = remote.pointer("/http_uri/cluster") {
                jwks.insert("target".to_owned(), cluster.clone());
            }
            if let Some(timeout) = milliseconds(remote.pointer("/http_uri/timeout")) {
                jwks.insert("timeout_ms".to_owned(), json!(timeout));
            }
            if let Some(kept) = milliseconds(remote.get("cache_duration")) {
                jwks.insert("refresh_s".to_owned(), json!(kept / 1000));
            }
        }
        put("jwks", jwks);
        draft.rest(remote, &at("remote_jwks"), &["http_uri", "cache_duration"], &[]);
        if let Some(uri) = remote.get("http_uri") {
            draft.rest(uri, &at("remote_jwks.http_uri"), &["uri", "cluster", "timeout"], &[]);
        }
        let cause =
            "Envoy takes whatever algorithm a fetched key fits; here the issuer's are listed";
        draft.note(at("remote_jwks"), cause, "write \"algorithms\" into its entry");
    }
    if let Some(skew) = value.get("clock_skew_seconds") {
        put("leeway_s", skew.clone());
    }
    if let Some(longest) = milliseconds(value.get("max_lifetime")) {
        put("max_lifetime_s", json!(longest / 1000));
    }
    draft.issuers.push(Value::Object(issuer));
    if value.get("from_headers").or(value.get("from_params")).is_none() {
        let cause = "Envoy takes ?access_token= unless a place is written; here the query is off";
        draft.note(at("from_params"), cause, "write \"query\" into \"sources\" if clients use it");
    }
    for (ours, theirs) in [("query", "from_params"), ("cookie", "from_cookies")] {
        let names = value.get(theirs).and_then(Value::as_array).into_iter().flatten();
        for (index, name) in names.enumerate() {
            if index == 0 && draft.sources.get(ours).is_none_or(|before| before == name) {
                draft.sources.insert(ours.to_owned(), name.clone());
            } else {
                let cause = "one name is enough for all issuers: this one is left out";
                draft.note(at(&format!("{theirs}[{index}]")), cause, "let clients use the first");
            }
        }
    }
    for (index, header) in
        value.get("from_headers").and_then(Value::as_array).into_iter().flatten().enumerate()
    {
        let place = at(&format!("from_headers[{index}]"));
        draft.rest(header, &place, &["name", "value_prefix"], &[]);
        let name = header.get("name").and_then(Value::as_str).unwrap_or_default();
        let prefix = header.get("value_prefix").and_then(Value::as_str).unwrap_or_default();
        if !name.eq_ignore_ascii_case("authorization")
            || !prefix.trim().eq_ignore_ascii_case("bearer")
        {
            let cause = format!("tokens are taken from Authorization: Bearer, not from {name}");
            draft.note(place, cause, "let clients use that one");
        }
    }
    const KNOWN: &[&str] = &[
        "issuer",
        "audiences",
        "local_jwks",
        "remote_jwks",
        "clock_skew_seconds",
        "max_lifetime",
        "from_params",
        "from_cookies",
        "from_headers",
        "forward",
        "require_expiration",
    ];
    draft.rest(value, path, KNOWN, &[]);
}

/// What the keys of a set say of themselves; what they do not say is missing.
fn algorithms(set: &Value) -> Vec<&str> {
    let keys = set.get("keys").and_then(Value::as_array).into_iter().flatten();
    let mut names: Vec<&str> = keys.filter_map(|key| key.get("alg")?.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn rate_limit(config: &Value, path: &str, draft: &mut Draft) {
    let closed = config.get("failure_mode_deny") == Some(&Value::Bool(true));
    let mut limiter = json!({"away": if closed { "closed" } else { "open" }});
    let headers = config.get("enable_x_ratelimit_headers").and_then(Value::as_str);
    if headers.is_none_or(|value| value == "OFF")
        && let Some(members) = limiter.as_object_mut()
    {
        members.insert("upstream_headers".to_owned(), json!("override"));
        let cause = "rate headers are always told here";
        draft.note(format!("{path}.enable_x_ratelimit_headers"), cause, "nothing to do");
    }
    draft.limiter = Some(limiter);
    let cluster = config.pointer("/rate_limit_service/grpc_service/envoy_grpc/cluster_name");
    if let Some(cluster) = cluster {
        draft.sidecar.insert("target".to_owned(), cluster.clone());
    }
    let at = |name: &str| format!("{path}.{name}");
    draft.note(
        at("rate_limit_service"),
        "the filter speaks HTTP with Gatehouse's own sidecar",
        "let the cluster lead to it, with HTTP/1.1 or HTTP/2 without TLS",
    );
    if let Some(service) = config.get("rate_limit_service") {
        let known = ["grpc_service", "transport_api_version"];
        draft.rest(service, &at("rate_limit_service"), &known, &[]);
        for (below, known) in
            [("grpc_service", "envoy_grpc"), ("grpc_service.envoy_grpc", "cluster_name")]
        {
            let inner = below.split('.').try_fold(service, |value, name| value.get(name));
            if let Some(inner) = inner {
                draft.rest(inner, &at(&format!("rate_limit_service.{below}")), &[known], &[]);
            }
        }
    }
    if config.get("domain").is_some() {
        draft.note(
            at("domain"),
            "domains are for those who still call by gRPC",
            "write it into the sidecar's \"grpc\"",
        );
    }
    if let Some(timeout) = milliseconds(config.get("timeout")) {
        draft.sidecar.insert("timeout_ms".to_owned(), json!(timeout));
    }
    const KNOWN: &[&str] = &[
        "@type",
        "domain",
        "failure_mode_deny",
        "rate_limit_service",
        "timeout",
        "enable_x_ratelimit_headers",
    ];
    draft.rest(config, path, KNOWN, &[("stage", json!(0)), ("request_type", json!("both"))]);
}

/// One descriptor of the service: a tier's limit where it names a tier.
fn descriptor(value: &Value, path: &str, draft: &mut Draft) {
    let named = value.get("value").and_then(Value::as_str);
    let tier = named.and_then(|name| name.parse::<Tier>().ok());
    let unit = value.pointer("/rate_limit/unit").and_then(Value::as_str);
    let limit = value.pointer("/rate_limit/requests_per_unit").and_then(Value::as_u64);
    match (tier, unit, limit) {
        (Some(tier), Some(unit), Some(limit)) if unit.eq_ignore_ascii_case("minute") => {
            let tiers = draft.limits.entry("tiers").or_insert_with(|| json!({}));
            if let Some(tiers) = tiers.as_object_mut() {
                tiers.insert(tier.to_string(), json!({"per_window": limit}));
            }
            draft.rest(value, path, &["key", "value", "rate_limit"], &[]);
            if let Some(limit) = value.get("rate_limit") {
                let known = ["unit", "requests_per_unit"];
                draft.rest(limit, &format!("{path}.rate_limit"), &known, &[]);
            }
        }
        _ => {
            let cause = "is no tier's limit per minute (\"value\": free, pro or enterprise)";
            draft.note(path, cause, "write it into the sidecar's \"limits\" by hand");
        }
    }
}
