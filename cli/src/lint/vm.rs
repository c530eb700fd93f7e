//! What a manifest lets the module's VM have: the keys that its document names, and the calls between it and its host.
//! Knows no order of modules.

use serde_json::Value;

use super::Module;
use crate::finding::Finding;

/// What hosts call of every module, as `xtask/src/wasm.rs` leaves it in. A host that may not call passes on what it
/// should have asked about.
const CALLBACKS: &[&str] = &[
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_request_trailers",
    "proxy_on_delete",
];
/// And of those that judge more than bodies.
const EDGE_CALLBACKS: &[&str] =
    &["proxy_on_tick", "proxy_on_response_headers", "proxy_on_http_call_response"];
/// And of those that wrap answers.
const ENVELOPE_CALLBACKS: &[&str] = &["proxy_on_response_body", "proxy_on_response_trailers"];
/// What modules call.
const CALLS: &[&str] = &[
    "proxy_add_header_map_value",
    "proxy_call_foreign_function",
    "proxy_continue_stream",
    "proxy_define_metric",
    "proxy_get_buffer_bytes",
    "proxy_get_current_time_nanoseconds",
    "proxy_get_header_map_pairs",
    "proxy_get_property",
    "proxy_get_shared_data",
    "proxy_http_call",
    "proxy_increment_metric",
    "proxy_log",
    "proxy_remove_header_map_value",
    "proxy_replace_header_map_value",
    "proxy_send_local_response",
    "proxy_set_buffer_bytes",
    "proxy_set_effective_context",
    "proxy_set_property",
    "proxy_set_shared_data",
    "proxy_set_tick_period_milliseconds",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_write",
    "proc_exit",
    "random_get",
];

/// `PluginConfig` of Envoy's Wasm filter.
pub(super) fn envoy(
    config: &Value,
    path: &str,
    module: Module,
    document: &Value,
    findings: &mut Vec<Finding>,
) {
    let given = config.pointer("/vm_config/environment_variables");
    let at = format!("{path}.vm_config.environment_variables");
    for name in variables(module, document) {
        let named = given.and_then(|given| given.get("host_env_keys")?.as_array());
        if given.and_then(|given| given.get("key_values")?.get(name)).is_some() {
            findings.push(inline(format!("{at}.key_values.{name}"), "host_env_keys"));
        } else if !named.is_some_and(|names| names.iter().any(|one| one == name)) {
            let mend = format!("write \"host_env_keys\": [\"{name}\"]");
            findings.push(missing(format!("{at}.host_env_keys"), name, &mend));
        }
    }
    let allowed = config.pointer("/capability_restriction_config/allowed_capabilities");
    // None at all is no restriction.
    let Some(allowed) = allowed.and_then(Value::as_object).filter(|all| !all.is_empty()) else {
        return;
    };
    let (edge, wraps) = match module {
        Module::Suite | Module::Transform => (EDGE_CALLBACKS, ENVELOPE_CALLBACKS),
        Module::Auth | Module::Version | Module::Ratelimit => (EDGE_CALLBACKS, &[][..]),
        Module::Validate => (&[][..], &[][..]),
    };
    let without = |names: &[&'static str]| -> Vec<&'static str> {
        names.iter().copied().filter(|name| !allowed.contains_key(*name)).collect()
    };
    let at = format!("{path}.capability_restriction_config.allowed_capabilities");
    let unasked = [CALLBACKS, edge, wraps].map(without).concat();
    if !unasked.is_empty() {
        let cause = format!(
            "Envoy does not call {}, and what they judge passes unjudged",
            unasked.join(", ")
        );
        findings.push(Finding::mistake(at.as_str(), cause, "add them, or leave out the list"));
    }
    let uncalled = without(CALLS);
    if !uncalled.is_empty() {
        let cause = format!("without {} the module fails", uncalled.join(", "));
        findings.push(Finding::mistake(at, cause, "add them, or leave out the list"));
    }
}

/// What Istio says of a module.
pub(super) fn istio(
    spec: &Value,
    path: &str,
    module: Module,
    document: &Value,
    findings: &mut Vec<Finding>,
) {
    let given = spec.pointer("/vmConfig/env").and_then(Value::as_array);
    for name in variables(module, document) {
        let of = |entry: &Value| entry.get("name").and_then(Value::as_str) == Some(name);
        let at = format!("{path}.vmConfig.env");
        match given.and_then(|all| all.iter().enumerate().find(|(_, entry)| of(entry))) {
            None => {
                let mend = format!("add {{name: {name}, valueFrom: HOST}}");
                findings.push(missing(at, name, &mend));
            }
            Some((index, entry)) if entry.get("valueFrom") != Some(&Value::from("HOST")) => {
                findings.push(inline(format!("{at}[{index}]"), "valueFrom: HOST"));
            }
            Some(_) => {}
        }
    }
    let url = spec.get("url").and_then(Value::as_str).unwrap_or_default();
    let pinned = url.starts_with("file:")
        || url.contains("@sha256:")
        || spec.get("sha256").and_then(Value::as_str).is_some_and(|digest| !digest.is_empty());
    if !pinned {
        let cause = "nothing pins the module: what is behind the address decides who may pass";
        let mend = "write the digest of the image that you have checked";
        findings.push(Finding::warning(format!("{path}.sha256"), cause, mend));
    }
}

/// Environment variables that the document takes keys from.
fn variables(module: Module, document: &Value) -> Vec<&str> {
    if !matches!(module, Module::Suite | Module::Auth) {
        return Vec::new();
    }
    let sign = document.pointer("/context/sign").and_then(Value::as_array);
    let entries = sign.into_iter().flatten();
    let names = entries.flat_map(|entry| [entry.get("key_env"), entry.get("previous_key_env")]);
    names.filter_map(|name| name?.as_str()).collect()
}

fn missing(path: String, name: &str, mend: &str) -> Finding {
    let cause = format!("the VM does not get {name}, which the document takes a key from");
    Finding::mistake(path, cause, mend)
}

fn inline(path: String, instead: &str) -> Finding {
    let cause = "a key stands in the manifest, where whoever may read that can sign";
    let mend = format!("write {instead}, and let a Secret fill the proxy's environment");
    Finding::mistake(path, cause, &mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The quoted names of a list of `xtask/src/wasm.rs`, which decides what is left in a module.
    fn list(name: &str) -> Vec<&'static str> {
        let source = include_str!("../../../xtask/src/wasm.rs");
        let (_, list) = source.split_once(&format!("\nconst {name}: ")).unwrap();
        let (list, _) = list.split_once("];").unwrap();
        let code = list.lines().filter(|line| !line.trim_start().starts_with("//"));
        let mut names: Vec<&str> =
            code.flat_map(|line| line.split('"').skip(1).step_by(2)).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_a_module_may_is_what_is_left_in_it() {
        let plain = |name: &&'static str| name.split_once('.').map_or(*name, |(_, name)| name);
        let mut calls: Vec<&str> =
            list("IMPORTS").iter().chain(&list("ENVOYS")).map(plain).collect();
        calls.sort_unstable();
        let mut ours = CALLS.to_vec();
        ours.sort_unstable();
        assert_eq!(ours, calls);

        let asked = |list: Vec<&'static str>| -> Vec<&str> {
            list.into_iter()
                .filter(|name| name.starts_with("proxy_on_") && *name != MEMORY)
                .collect()
        };
        let sorted = |lists: &[&[&'static str]]| {
            let mut all = lists.concat();
            all.sort_unstable();
            all
        };
        assert_eq!(sorted(&[CALLBACKS]), asked(list("BODY_EXPORTS")));
        assert_eq!(sorted(&[CALLBACKS, EDGE_CALLBACKS]), asked(list("EXPORTS")));
        assert_eq!(sorted(&[ENVELOPE_CALLBACKS]), asked(list("ENVELOPE_EXPORTS")));
    }

    /// A host's way to hand something over, not a call about a request.
    const MEMORY: &str = "proxy_on_memory_allocate";
}
