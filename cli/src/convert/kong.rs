//! Kong's side: finds plugins and consumers in a declarative configuration or in resources of its controller.
//! Knows no plugin's members.

use serde_json::Value;

use super::{Draft, versions};

pub(crate) mod jwt;
pub(crate) mod limiting;

pub(super) fn read(document: &Value, draft: &mut Draft) {
    owner(document, "$", draft);
    let crd = document.get("kind").and_then(Value::as_str);
    if crd == Some("KongPlugin") || crd == Some("KongClusterPlugin") {
        plugin(document, "plugin", "$", draft);
        let known = ["apiVersion", "kind", "metadata", "plugin", "config"];
        draft.rest(document, "$", &known, &[]);
    }
}

/// Whatever may hold plugins: the document, a service, a route, a consumer.
fn owner(holder: &Value, path: &str, draft: &mut Draft) {
    for (value, path) in list(holder, path, "plugins") {
        plugin(value, "name", &path, draft);
    }
    for (value, path) in list(holder, path, "consumers") {
        jwt::consumer(value, &path, draft);
        owner(value, &path, draft);
    }
    for (value, path) in list(holder, path, "jwt_secrets") {
        jwt::secret(value, &path, draft);
    }
    for name in ["services", "routes"] {
        for (value, path) in list(holder, path, name) {
            let paths = value.get("paths").and_then(Value::as_array).into_iter().flatten();
            for path in paths.filter_map(Value::as_str) {
                versions(path, &mut draft.versions);
            }
            owner(value, &path, draft);
        }
    }
}

fn plugin(value: &Value, named: &str, path: &str, draft: &mut Draft) {
    let Some(name) = value.get(named).and_then(Value::as_str) else { return };
    if value.get("enabled") == Some(&Value::Bool(false)) {
        return;
    }
    let empty = Value::Object(serde_json::Map::new());
    let config = value.get("config").unwrap_or(&empty);
    let at = format!("{path}.config");
    match name {
        "jwt" => jwt::read(config, &at, draft),
        "rate-limiting" => limiting::read(config, &at, draft),
        other => {
            let mend = "leave it in Kong beside the filter, or see whether the edge document does its work";
            draft.note(path, format!("the plugin {other} is not converted"), mend);
            return;
        }
    }
    draft.known = true;
    draft.kong = true;
    if named == "name" {
        let known =
            ["name", "config", "enabled", "id", "consumer", "consumer_group", "route", "service"];
        draft.rest(value, path, &known, &[]);
    }
    for of in ["consumer", "consumer_group", "route", "service"] {
        if value.get(of).is_some_and(|of| !of.is_null()) {
            let cause = format!("is for one {of} alone; the edge document is for all that passes");
            draft.note(format!("{path}.{of}"), cause, "give that part a document of its own");
        }
    }
}

fn list<'v>(owner: &'v Value, path: &str, name: &str) -> Vec<(&'v Value, String)> {
    let items = owner.get(name).and_then(Value::as_array).into_iter().flatten();
    items.enumerate().map(|(at, value)| (value, format!("{path}.{name}[{at}]"))).collect()
}
