//! Kong's part: a removal by the filter does not reach the upstream there, so that every route with the filter needs
//! Lua to take the protected headers away first (design §3.2). Knows no edge document.

use gatehouse_contract::header;
use serde_json::Value;

use super::{Module, manifest::Manifest};
use crate::{
    convert::kong::{jwt, limiting},
    finding::Finding,
};

const TRANSFORMER: &str = "request-transformer";

/// A service or a route, and where it stands.
struct Owner<'v> {
    value: &'v Value,
    path: String,
}

pub(super) fn check(document: &Value, manifest: &mut Manifest) {
    plugins(document, manifest);
    let services = list(document, "$", "services");
    let mut routes: Vec<(Option<&Owner<'_>>, Owner<'_>)> = Vec::new();
    for service in &services {
        routes.extend(
            list(service.value, &service.path, "routes")
                .into_iter()
                .map(|route| (Some(service), route)),
        );
    }
    for route in list(document, "$", "routes") {
        let name = reference(route.value, "service");
        let service =
            services.iter().find(|service| name.is_some() && named(service.value) == name);
        routes.push((service, route));
    }
    let free = list(document, "$", "filter_chains");
    let chained = |owner: &Owner<'_>, kind: &str| {
        let own = list(owner.value, "", "filter_chains");
        let named = |chain: &&Owner<'_>| {
            let name = reference(chain.value, kind);
            name.is_some() && name == named(owner.value)
        };
        own.iter().chain(free.iter().filter(named)).any(|chain| holds_ours(chain.value))
    };
    for (service, route) in &routes {
        if !chained(route, "route") && !service.is_some_and(|service| chained(service, "service")) {
            continue;
        }
        // The nearest one is the only one that runs.
        let nearest = [Some(route.value), service.map(|service| service.value), Some(document)]
            .into_iter()
            .flatten()
            .find_map(|owner| transformer(owner));
        let removed: Vec<String> = nearest
            .and_then(|plugin| plugin.pointer("/config/remove/headers")?.as_array())
            .into_iter()
            .flatten()
            .filter_map(|name| Some(name.as_str()?.to_ascii_lowercase()))
            .collect();
        let missing: Vec<&str> = header::IDENTITY
            .iter()
            .copied()
            .filter(|name| !removed.iter().any(|one| one == name))
            .collect();
        if !missing.is_empty() {
            manifest.findings.push(Finding::mistake(
                format!("{}.plugins", route.path),
                format!("clients can send {} to the upstream", missing.join(", ")),
                "add them to config.remove.headers of its request-transformer",
            ));
        }
    }
}

/// What Kong itself would refuse of its own plugins, and what is unsafe in them.
fn plugins(document: &Value, manifest: &mut Manifest) {
    super::manifest::walk(document, "$", &mut |value, path| {
        let crd = value.get("kind").and_then(Value::as_str) == Some("KongPlugin");
        let name = value.get(if crd { "plugin" } else { "name" }).and_then(Value::as_str);
        let Some(config) = value.get("config") else { return };
        let mistakes = match name {
            Some("jwt") => jwt::mistakes(config, &format!("{path}.config")),
            Some("rate-limiting") => limiting::mistakes(config, &format!("{path}.config")),
            _ => return,
        };
        manifest.known = true;
        manifest.findings.extend(mistakes);
    });
}

fn list<'v>(owner: &'v Value, path: &str, name: &str) -> Vec<Owner<'v>> {
    let items = owner.get(name).and_then(Value::as_array).into_iter().flatten();
    items
        .enumerate()
        .map(|(at, value)| Owner { value, path: format!("{path}.{name}[{at}]") })
        .collect()
}

fn named(owner: &Value) -> Option<&str> {
    owner.get("name")?.as_str()
}

/// Another entity, by its name or as `{"name": …}`.
fn reference<'v>(value: &'v Value, kind: &str) -> Option<&'v str> {
    let other = value.get(kind)?;
    other.as_str().or_else(|| other.get("name")?.as_str())
}

fn enabled(value: &Value) -> bool {
    value.get("enabled") != Some(&Value::Bool(false))
}

fn holds_ours(chain: &Value) -> bool {
    let ours = |filter: &Value| {
        enabled(filter)
            && filter.get("name").and_then(Value::as_str).and_then(Module::named).is_some()
    };
    let filters = chain.get("filters").and_then(Value::as_array);
    enabled(chain) && filters.into_iter().flatten().any(ours)
}

fn transformer(owner: &Value) -> Option<&Value> {
    let plugins = owner.get("plugins")?.as_array()?;
    plugins.iter().find(|plugin| named(plugin) == Some(TRANSFORMER) && enabled(plugin))
}
