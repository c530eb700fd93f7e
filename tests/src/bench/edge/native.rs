//! The same work done by Envoy's own filters, each as its documentation shows it. Knows nothing of ours.

use serde_json::{Value, json};

/// Far above any load.
const PLENTY: u32 = 100_000_000;

fn filter(name: &str, kind: &str, config: Value) -> Value {
    let kind = format!("type.googleapis.com/envoy.extensions.filters.http.{name}.v3.{kind}");
    let config = with(config, "@type", kind.into());
    json!({"name": format!("envoy.filters.http.{name}"), "typed_config": config})
}

/// `object` with one member more.
fn with(mut object: Value, name: &str, value: Value) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
    object
}

/// Checks tokens against a key set of its own and writes two claims into headers. `cached`: verified tokens are
/// remembered, as many as ours remembers.
pub(super) fn jwt_authn(issuer: &str, audience: &str, jwks: &Value, cached: bool) -> Value {
    let mut provider = json!({
        "issuer": issuer,
        "audiences": [audience],
        "local_jwks": {"inline_string": jwks.to_string()},
        "forward": true,
        "payload_in_metadata": "payload",
    });
    if cached {
        provider = with(provider, "jwt_cache_config", json!({"jwt_cache_size": 4096}));
    }
    let rules = json!([{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}]);
    let config = json!({"providers": {"p": provider}, "rules": rules});
    filter("jwt_authn", "JwtAuthentication", config)
}

/// The value of a claim, for [`header_mutation`].
pub(super) fn claim(name: &str) -> String {
    format!("%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:{name})%")
}

/// Sets these headers of requests and responses, and removes those of responses.
pub(super) fn header_mutation(
    request: &[(&str, String)],
    response: &[(&str, String)],
    gone: &[&str],
) -> Value {
    let set = |(name, value): &(&str, String)| {
        json!({"append": {
            "header": {"key": name, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }})
    };
    let request: Vec<Value> = request.iter().map(set).collect();
    let mut response: Vec<Value> = response.iter().map(set).collect();
    response.extend(gone.iter().map(|name| json!({"remove": name})));
    let mutations = json!({"request_mutations": request, "response_mutations": response});
    filter("header_mutation", "HeaderMutation", json!({"mutations": mutations}))
}

/// Lets members of a group of the token read one collection.
pub(super) fn rbac(path: &str, group: &str) -> Value {
    let permission = json!({"and_rules": {"rules": [
        {"header": {"name": ":method", "string_match": {"exact": "GET"}}},
        {"url_path": {"path": {"prefix": path}}},
    ]}});
    let matcher = json!({
        "filter": "envoy.filters.http.jwt_authn",
        "path": [{"key": "payload"}, {"key": "groups"}],
        "value": {"list_match": {"one_of": {"string_match": {"exact": group}}}},
    });
    let principal = json!({"sourced_metadata": {"metadata_matcher": matcher}});
    let policy = json!({"permissions": [permission], "principals": [principal]});
    filter("rbac", "RBAC", json!({"rules": {"action": "ALLOW", "policies": {"readers": policy}}}))
}

const CORS: &str = "envoy.filters.http.cors";

/// Other origins, as [`cors_policy`] of the route lets them in.
pub(super) fn cors() -> Value {
    filter("cors", "Cors", json!({}))
}

/// What ours lets in.
pub(super) fn cors_policy() -> Value {
    json!({CORS: {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"exact": "https://app.greenlang.ai"}],
        "allow_credentials": true,
        "max_age": "600",
    }})
}

/// One token bucket; `headers`: the answer says what is left of it.
pub(super) fn local_ratelimit(headers: bool) -> Value {
    let always = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
    let mut config = json!({
        "stat_prefix": "native",
        "token_bucket": {
            "max_tokens": PLENTY,
            "tokens_per_fill": PLENTY,
            "fill_interval": "1s",
        },
        "filter_enabled": always,
        "filter_enforced": always,
    });
    if headers {
        config = with(config, "enable_x_ratelimit_headers", "DRAFT_VERSION_03".into());
    }
    filter("local_ratelimit", "LocalRateLimit", config)
}
