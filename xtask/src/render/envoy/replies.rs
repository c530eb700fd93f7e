//! What Envoy itself answers (no route, no upstream, a head that it cannot read, a time that is over) as problems of
//! the one error contract. What a filter answered keeps its body. Knows statuses and reasons, no filter.

use gatehouse_contract::{Problem, Reason, problem::MEDIA_TYPE};
use serde_json::{Value, json};

/// What each status of Envoy's own means; of any other of its kind, the last two.
const REASONS: &[Reason] = &[
    Reason::HeaderInvalid,
    Reason::TokenInvalid,
    Reason::PermissionDenied,
    Reason::NotFound,
    Reason::RequestTimeout,
    Reason::BodyTooLarge,
    Reason::QuotaExceeded,
    Reason::HeadersTooLarge,
    Reason::UpstreamInvalid,
    Reason::DependencyUnavailable,
    Reason::AnswerTimeout,
];

/// An id of the bytes that the filter lets stand (acceptance X10): what is refused before it may have any. Its length is
/// Envoy's to bound, whose programs of RE2 are too small for 128.
const SOUND_ID: &str = "[A-Za-z0-9._-]+";

/// `local_reply_config` of a connection manager.
pub fn local_replies() -> Value {
    let exact = REASONS.iter().map(|reason| ("EQ", reason.status(), *reason));
    let others = [("GE", 500, Reason::Internal), ("GE", 400, Reason::HeaderInvalid)];
    let problems = exact.chain(others).flat_map(|case| [problem(case, true), problem(case, false)]);
    let mappers: Vec<Value> = std::iter::once(left_alone()).chain(problems).collect();
    json!({ "mappers": mappers })
}

/// The first that fits decides: a call of gRPC has its status in a header, and who says what its body is, means it. At
/// this place Envoy has not yet said so of its own text.
fn left_alone() -> Value {
    let grpc = json!({"header_filter": {"header": {
        "name": "content-type",
        "string_match": {"safe_regex": {"regex": r"application/grpc(\+.*)?"}},
    }}});
    let typed = json!({"extension_filter": {
        "name": "envoy.access_loggers.extension_filters.cel",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
            "expression": "'content-type' in response.headers",
        },
    }});
    json!({"filter": {"or_filter": {"filters": [grpc, typed]}}})
}

/// The problem of a status; with the request's id where that is sound.
fn problem((operation, status, reason): (&str, u16, Reason), named: bool) -> Value {
    let of_status = json!({"status_code_filter": {"comparison": {
        "op": operation,
        "value": {"default_value": status, "runtime_key": "gatehouse.local_reply"},
    }}});
    let of_id = json!({"header_filter": {"header": {
        "name": "x-request-id",
        "string_match": {"safe_regex": {"regex": SOUND_ID}},
    }}});
    let filter = match named {
        true => json!({"and_filter": {"filters": [of_status, of_id]}}),
        false => of_status,
    };
    let mut problem = Problem::new(reason);
    if named {
        problem = problem.request_id("%REQ(X-REQUEST-ID)%");
    }
    let mut body = json!(problem);
    if let Some(members) = body.as_object_mut() {
        members.insert("status".to_owned(), json!("%RESPONSE_CODE%"));
    }
    let header = |name: &str, value: &str| {
        json!({
            "header": {"key": name, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        })
    };
    let headers: Vec<Value> = match status {
        401 | 403 | 429 => vec![header("cache-control", "no-store")],
        _ => Vec::new(),
    };
    json!({
        "filter": filter,
        "headers_to_add": headers,
        "body_format_override": {"json_format": body, "content_type": MEDIA_TYPE},
    })
}
