//! The host's functions that we use, in types that the policy knows. What a host refuses is a value here, as far as
//! the SDK lets it be one. Knows no policy.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, UNIX_EPOCH},
};

use gatehouse_edge::{Call, Edit, Reply};
use proxy_wasm::{
    hostcalls,
    types::{BufferType, GrpcStatusCode, LogLevel, MapType, Status},
};

/// The sidecar's largest answer is a key set of 64 KiB in JSON in JSON.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Since the Unix epoch.
pub(crate) fn now() -> Duration {
    let now = hostcalls::get_current_time().ok();
    // Without a clock every token is expired, not everlasting.
    now.and_then(|now| now.duration_since(UNIX_EPOCH).ok()).unwrap_or(Duration::MAX)
}

/// 128 bits that no other VM has. `RandomState` is keyed by the host's `random_get`.
pub(crate) fn seed() -> [u64; 2] {
    [0_u8, 1].map(|which| {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u8(which);
        hasher.finish()
    })
}

pub(crate) fn log(level: LogLevel, message: &str) {
    ignore(hostcalls::log(level, message));
}

pub(crate) fn configuration() -> Option<Vec<u8>> {
    hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX).ok().flatten()
}

pub(crate) fn foreign_function(name: &str, arguments: &[u8]) -> Option<Vec<u8>> {
    hostcalls::call_foreign_function(name, Some(arguments)).ok().map(Option::unwrap_or_default)
}

/// The `:status` of a response.
pub(crate) fn response_status() -> Option<u16> {
    let value = hostcalls::get_map_value_bytes(MapType::HttpResponseHeaders, ":status").ok()??;
    std::str::from_utf8(&value).ok()?.parse().ok()
}

/// Applies `edits`; `false` if the host refused one, so that the message must not go on.
pub(crate) fn apply(map: MapType, edits: &[Edit]) -> bool {
    edits.iter().all(|edit| {
        let done = match edit {
            Edit::Set(name, value) => {
                hostcalls::set_map_value_bytes(map, name, Some(value.as_bytes()))
            }
            Edit::Remove(name) => hostcalls::remove_map_value(map, name),
            Edit::UpstreamUri(target) => {
                hostcalls::set_property(vec!["ngx", "upstream_uri"], Some(target.as_bytes()))
            }
        };
        done.is_ok()
    })
}

/// Sends a call-out. `None` if the host refused it.
pub(crate) fn call(call: &Call) -> Option<u32> {
    let mut headers = vec![
        (":method", call.method),
        (":path", &call.path),
        (":authority", &call.to.authority),
        (":scheme", "http"),
    ];
    let body = (!call.body.is_empty()).then_some(call.body.as_slice());
    if body.is_some() {
        headers.push(("content-type", "application/json"));
    }
    let timeout = Duration::from_millis(call.timeout_ms);
    hostcalls::dispatch_http_call(&call.to.name, headers, body, Vec::new(), timeout).ok()
}

/// The body of the answer to a call-out; `None` if it is too large to be the sidecar's.
pub(crate) fn answer_body(size: usize) -> Option<Vec<u8>> {
    match size {
        0 => Some(Vec::new()),
        1..=MAX_ANSWER_BYTES => {
            hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, size).ok().flatten()
        }
        _ => None,
    }
}

pub(crate) fn resume() {
    ignore(hostcalls::resume_http_request());
}

/// Sends an answer of our own.
pub(crate) fn reply(reply: &Reply) {
    let sent = match &reply.grpc {
        Some(status) => hostcalls::send_grpc_response(
            grpc_code(status.code),
            Some(status.message),
            reply.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect(),
        ),
        None => hostcalls::send_http_response(
            u32::from(reply.status),
            reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect(),
            (!reply.body.is_empty()).then_some(reply.body.as_slice()),
        ),
    };
    ignore(sent);
}

/// Where nothing is known of the request: it stays closed.
pub(crate) fn reply_closed() {
    ignore(hostcalls::send_http_response(503, vec![("retry-after", "1")], None));
}

/// For Envoy's access log: `%FILTER_STATE(wasm.gatehouse_reason:PLAIN)%`. Other hosts refuse the name.
pub(crate) fn note_reason(code: &str) {
    ignore(hostcalls::set_property(vec!["gatehouse_reason"], Some(code.as_bytes())));
}

/// A log line that is not taken, a stream that is gone: there is nobody to tell and nothing left to do.
fn ignore(_outcome: Result<(), Status>) {}

fn grpc_code(code: u8) -> GrpcStatusCode {
    match code {
        3 => GrpcStatusCode::InvalidArgument,
        7 => GrpcStatusCode::PermissionDenied,
        8 => GrpcStatusCode::ResourceExhausted,
        12 => GrpcStatusCode::Unimplemented,
        14 => GrpcStatusCode::Unavailable,
        16 => GrpcStatusCode::Unauthenticated,
        _ => GrpcStatusCode::Internal,
    }
}
