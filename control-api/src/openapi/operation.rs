//! One operation of the OpenAPI document: its parameters and answers follow from its manner, so that what is written is
//! what stands around it. Knows no schema's inside.

use gatehouse_contract::rbac::{Access, Matrix};
use serde_json::{Map, Value, json};

use crate::routes::endpoint::{Endpoint, Manner};

/// What holds for all.
pub const CONVENTIONS: &str = "\
Every refusal is `application/problem+json` (RFC 9457) with a stable `code` and the request's id, whatever `Accept` says; where \
that takes no form of a success it is 406, and nothing is done. What belongs to another \
tenant is answered like what does not exist.\n\n\
Lists are read page by page: `limit` (1 to 100, 50 unless it is said) and `cursor`; `next` in the answer, and the `Link` \
header (RFC 8288), is the address of the next page, absent on the last.\n\n\
What is read has an `ETag`; `If-None-Match` answers 304. PUT and PATCH of what exists need `If-Match` (428 without, 412 where \
somebody changed it meanwhile); `*` changes it whatever its state.\n\n\
POST takes an `Idempotency-Key`: the same request with the same key, within 24 hours and by the same caller, gets the first \
one's answer (marked `Idempotency-Replayed`) and does nothing again; 409 while the first one runs, 422 for another request. What \
was refused is judged anew.\n\n\
A platform operator who acts for another tenant says why in `X-Gatehouse-Reason`; it is audited.";

/// Groups of operations, by the path.
pub const TAGS: [(&str, &str); 7] = [
    ("factory", "Tenants, their limits, and the platform's keys"),
    ("members", "Users and clients of a tenant, their roles and standing"),
    ("credentials", "API keys, and the issuers of other tokens"),
    ("webhooks", "Where a tenant is told of what happened"),
    ("registry", "Agents and their versions"),
    ("runtime", "Executions"),
    ("identity", "Tokens, sign-in, and documents that need no credential"),
];

/// The operation as the document has it.
pub fn describe(endpoint: &Endpoint, matrix: &Matrix) -> Value {
    let mut operation = json!({
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "tags": [tag(&endpoint.path)],
        "parameters": parameters_of(endpoint),
        "responses": responses(endpoint),
    });
    let Some(members) = operation.as_object_mut() else { return operation };
    if let Some(name) = endpoint.body {
        let media = json!({"schema": schema(name)});
        let mut content = Map::from_iter([("application/json".to_owned(), media.clone())]);
        if endpoint.merges {
            content.insert("application/merge-patch+json".to_owned(), media);
        }
        let body = json!({"required": true, "content": content});
        members.insert("requestBody".to_owned(), body);
    } else if endpoint.path == "/oauth2/token" || endpoint.path == "/oauth2/revoke" {
        let media = json!({"schema": {"type": "object"}});
        let content = json!({"application/x-www-form-urlencoded": media});
        members.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
    }
    let mut routes = matrix.routes().iter();
    let known =
        routes.find(|route| route.method == endpoint.method && route.template == endpoint.path);
    match known.map(|route| &route.access) {
        Some(Access::Held { permission, .. }) => {
            members.insert("x-gatehouse-permission".to_owned(), permission.as_str().into());
        }
        Some(Access::Public) => {
            members.insert("security".to_owned(), json!([]));
        }
        None => {}
    }
    operation
}

/// What several operations take.
pub fn parameters() -> Value {
    let parameter = |name: &str, place: &str, required: bool, says: &str, schema: Value| json!({"name": name, "in": place, "required": required, "description": says, "schema": schema});
    let text = |most: u32| json!({"type": "string", "minLength": 1, "maxLength": most});
    json!({
        "Limit": parameter("limit", "query", false, "How many at most.",
            json!({"type": "integer", "minimum": 1, "maximum": 100, "default": 50})),
        "Cursor": parameter("cursor", "query", false, "From `next` of the page before; made by nobody else.", text(500)),
        "IfMatch": parameter("If-Match", "header", true, "The `ETag` that was read, or `*`.", text(1000)),
        "IfMatchOptional": parameter("If-Match", "header", false, "Only in the state that was read.", text(1000)),
        "IfNoneMatch": parameter("If-None-Match", "header", false, "304 where it is still this.", text(1000)),
        "IdempotencyKey": parameter("Idempotency-Key", "header", false,
            "The same key, the same answer: a repetition does nothing again.",
            json!({"type": "string", "pattern": "^[!#-\\[\\]-~]{1,255}$"})),
        "LastEventId": parameter("Last-Event-ID", "header", false,
            "The `id` of the last event that was read: what comes behind it is told.", text(100)),
        "Prefer": parameter("Prefer", "header", false,
            "`wait=N`: an answer may wait up to N seconds for a change (RFC 7240).", text(500)),
        "Reason": parameter("X-Gatehouse-Reason", "header", false,
            "Why a platform operator acts for another tenant; required of it.",
            json!({"type": "string", "minLength": 1, "maxLength": 500})),
    })
}

/// What several answers carry.
pub fn headers() -> Value {
    let header = |says: &str| json!({"description": says, "schema": {"type": "string"}});
    json!({
        "RequestId": header("The request's id; tell it to support."),
        "ETag": header("The state that was read."),
        "Link": header("The next page, rel=\"next\"."),
        "Location": header("Where what was made can be read."),
        "RetryAfter": header("Seconds after which to look again."),
        "Replayed": header("`true` on an answer that was given before."),
    })
}

fn tag(path: &str) -> &'static str {
    let within = path.strip_prefix("/api/v1/factory/tenants/{tenant}/").unwrap_or_default();
    match within.split('/').next().unwrap_or_default() {
        "users" | "clients" | "roles" => "members",
        "api-keys" | "issuers" => "credentials",
        "webhooks" => "webhooks",
        _ if path.starts_with("/api/v1/factory") => "factory",
        _ if path.starts_with("/api/v1/registry") => "registry",
        _ if path.starts_with("/api/v1/runtime") => "runtime",
        _ => "identity",
    }
}

fn filter(name: &str) -> &'static str {
    match name {
        "at" => "As it was at this time (RFC 3339); now where it is not said.",
        "since" => "Only those of this time or later (RFC 3339).",
        "until" => {
            "Only those before this time (RFC 3339); of usage up to this day, itself included."
        }
        "from" => "From this day (UTC) on, such as 2026-01-31.",
        "within" => "This organization and all below it.",
        "parent" => "Those right below this organization; `none` for those at the top.",
        "wait" => {
            "Waits up to so many seconds (at most 60) for the next change, where it is not settled."
        }
        "follow" => "`true`: as server-sent events, until the execution is settled.",
        "attempt" => "The attempt of this number; the newest where it is not said.",
        "promoted" | "deprecated" => "Only those that are (`true`) or are not (`false`).",
        _ => "Only those with exactly this value.",
    }
}

fn parameters_of(endpoint: &Endpoint) -> Vec<Value> {
    let named = path_names(&endpoint.path).map(|name| {
        let schema = match name {
            "role" => {
                json!({"type": "string", "enum": ["viewer", "operator", "developer", "admin"]})
            }
            _ => json!({"type": "string", "format": "uuid"}),
        };
        json!({"name": name, "in": "path", "required": true, "schema": schema})
    });
    let filters = endpoint.filters.iter().map(|name| {
        json!({"name": name, "in": "query", "required": false,
            "description": filter(name), "schema": {"type": "string", "maxLength": 500}})
    });
    let shared: &[&str] = match endpoint.manner {
        Manner::Public => &[],
        Manner::Document => &["IfNoneMatch"],
        Manner::Read => &["IfNoneMatch", "Reason"],
        Manner::List => &["Limit", "Cursor", "IfNoneMatch", "Reason"],
        Manner::Act => &["IdempotencyKey", "Reason"],
        Manner::Change => &["IfMatch", "Reason"],
        Manner::Tells => &["LastEventId", "Reason"],
        Manner::State | Manner::Stream => &["Reason"],
        Manner::Remove => &["IfMatchOptional", "Reason"],
    };
    let waits = endpoint.filters.contains(&"wait").then_some(&"Prefer");
    let shared = shared
        .iter()
        .chain(waits)
        .map(|name| json!({"$ref": format!("#/components/parameters/{name}")}));
    named.chain(filters).chain(shared).collect()
}

fn path_names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn responses(endpoint: &Endpoint) -> Value {
    let mut responses = Map::new();
    let (status, name) = endpoint.answer;
    let mut success =
        json!({"description": "Done.", "headers": {"X-Request-ID": header("RequestId")}});
    let carried: &[(&str, &str)] = match endpoint.manner {
        Manner::Document | Manner::Read => &[("ETag", "ETag")],
        Manner::List => &[("ETag", "ETag"), ("Link", "Link")],
        Manner::Act if status == 202 => &[
            ("Location", "Location"),
            ("Retry-After", "RetryAfter"),
            ("Idempotency-Replayed", "Replayed"),
        ],
        Manner::Remove if status == 202 => {
            &[("Location", "Location"), ("Retry-After", "RetryAfter")]
        }
        Manner::Act => &[("Location", "Location"), ("Idempotency-Replayed", "Replayed")],
        _ => &[],
    };
    if let Some(members) = success.as_object_mut() {
        if let Some(headers) = members.get_mut("headers").and_then(Value::as_object_mut) {
            for (shown, to) in carried {
                headers.insert((*shown).to_owned(), header(to));
            }
        }
        if let Some(media) = endpoint.media() {
            let content = match (name, endpoint.manner) {
                (Some(name), Manner::List) => json!({"schema": page_of(name)}),
                (Some(name), _) => json!({"schema": schema(name)}),
                (None, _) => json!({}),
            };
            let mut contents = Map::from_iter([(media.to_owned(), content)]);
            contents.extend(endpoint.followed().map(|media| (media.to_owned(), json!({}))));
            members.insert("content".to_owned(), Value::Object(contents));
        }
    }
    responses.insert(status.to_string(), success);
    for status in refusals(endpoint) {
        let refusal = match status {
            400 | 401 if endpoint.path.starts_with("/oauth2/") => of_oauth(),
            _ => json!({"$ref": "#/components/responses/Problem"}),
        };
        responses.insert(status.to_string(), refusal);
    }
    if matches!(endpoint.manner, Manner::Document | Manner::Read | Manner::List) {
        let same = json!({"$ref": "#/components/responses/NotModified"});
        responses.insert("304".to_owned(), same);
    }
    if endpoint.manner == Manner::Tells {
        let over = json!({"description": "Nothing comes behind `Last-Event-ID` any more: an EventSource stops.",
            "headers": {"X-Request-ID": header("RequestId")}});
        responses.insert("204".to_owned(), over);
    }
    Value::Object(responses)
}

/// A refusal in the words of RFC 6749 §5.2, or a problem where the request was none of that protocol.
fn of_oauth() -> Value {
    let text = json!({"type": "string"});
    let error = json!({"type": "object", "required": ["error"],
        "properties": {"error": text, "error_description": text}});
    json!({
        "description": "Refused.",
        "headers": {"X-Request-ID": header("RequestId")},
        "content": {
            "application/json": {"schema": error},
            "application/problem+json": {"schema": schema("Problem")},
        },
    })
}

/// The statuses by which it may be refused, 429 by the gateway before it.
fn refusals(endpoint: &Endpoint) -> Vec<u16> {
    let mut statuses = vec![400, 429, 500, 503, 504];
    statuses.extend(endpoint.media().map(|_| 406));
    match endpoint.manner {
        Manner::Document => {}
        Manner::Public => statuses.extend([401, 403, 404, 408, 413, 415]),
        manner => {
            statuses.extend([401, 403]);
            if endpoint.path.contains('{') || manner != Manner::List {
                statuses.push(404);
            }
            if endpoint.body.is_some() {
                statuses.extend([408, 413, 415, 422]);
            }
            match manner {
                Manner::Act => statuses.extend([408, 409, 413, 422]),
                Manner::Change => statuses.extend([409, 412, 428]),
                Manner::Remove => statuses.extend([409, 412]),
                Manner::State => statuses.push(409),
                Manner::Public
                | Manner::Document
                | Manner::Read
                | Manner::List
                | Manner::Stream
                | Manner::Tells => {}
            }
        }
    }
    statuses
}

fn page_of(name: &str) -> Value {
    json!({
        "type": "object",
        "properties": {
            "items": {"type": "array", "items": schema(name), "maxItems": 100},
            "next": {"type": ["string", "null"], "description": "The next page's address; null on the last."},
        },
        "required": ["items", "next"],
        "additionalProperties": false,
    })
}

fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn header(name: &str) -> Value {
    json!({"$ref": format!("#/components/headers/{name}")})
}
