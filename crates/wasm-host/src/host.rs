//! The host's functions in the words of the policy. Knows no policy.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use gatehouse_contract::{Reason, header};
use gatehouse_edge::{Answer, Call, Edit, Host, Reply, Shared};

use proxy_wasm::{hostcalls, types::Action};

use crate::abi::{self, Buffer, HeaderMap, LocalResponse, Map};

/// The largest answer to a stream is a key set of 64 KiB in JSON in JSON.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// The largest answer to the root context is a whole deny list.
pub(crate) const MAX_ROOT_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// No status of gRPC: the host makes none of its own.
pub(crate) const NO_GRPC_STATUS: i32 = -1;

/// Since the Unix epoch.
pub(crate) fn now() -> Duration {
    // Without a clock every token is expired, not everlasting.
    abi::now_ns().map_or(Duration::MAX, Duration::from_nanos)
}

/// By a clock that never runs back. Without one every lease has ended.
pub(crate) fn monotonic() -> Duration {
    abi::monotonic_ns().map_or(Duration::MAX, Duration::from_nanos)
}

/// 128 bits that no other VM has. `RandomState` is keyed by the host's `random_get`.
pub(crate) fn seed() -> [u64; 2] {
    [0_u8, 1].map(|which| {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u8(which);
        hasher.finish()
    })
}

pub(crate) fn configuration() -> Option<Vec<u8>> {
    abi::buffer(Buffer::Configuration, usize::MAX)
}

/// The client's `address:port`. One look-up in the host, for those requests alone that need it.
pub(crate) fn client() -> Option<String> {
    String::from_utf8(abi::property("source\0address")?).ok()
}

/// Who the peer of this very connection proved to be: the URI of a certificate that the host has verified. A certificate
/// that is shown and not verified (Envoy's `ACCEPT_UNTRUSTED`) proves nothing, and what a header says neither.
pub(crate) fn peer() -> Option<String> {
    // First what most peers do not have: a look-up that finds nothing costs a third of one that does.
    let uri = abi::property("connection\0uri_san_peer_certificate")?;
    let holds = |property: &str| abi::property(property).as_deref() == Some(TRUE);
    if !holds("connection\0mtls") || !holds("connection\0peer_certificate_valid") {
        return None;
    }
    String::from_utf8(uri).ok()
}

/// How Envoy writes that something holds.
const TRUE: &[u8] = &[1];

/// An environment variable of the VM, as the host was configured to show it.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Applies `edits`; `false` if the host refused one, so that the message must not go on.
pub(crate) fn apply(map: Map, edits: &[Edit]) -> bool {
    edits.iter().all(|edit| match edit {
        Edit::Set(name, value) => abi::set_header(map, name, value.as_bytes()),
        Edit::Add(name, value) => abi::add_header(map, name, value.as_bytes()),
        Edit::Remove(name) => abi::remove_header(map, name),
        Edit::UpstreamUri(target) => abi::set_property("ngx\0upstream_uri", target.as_bytes()),
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
    if !call.body.is_empty() {
        headers.push(("content-type", "application/json"));
    }
    if let Some(id) = &call.request_id {
        headers.push((header::REQUEST_ID, id));
    }
    let body = (!call.body.is_empty()).then_some(call.body.as_slice());
    let timeout = Duration::from_millis(call.timeout_ms);
    // By the SDK, which keeps whose call-out it was: hosts answer to the root context.
    hostcalls::dispatch_http_call(&call.to.name, headers, body, Vec::new(), timeout).ok()
}

/// Data that all VMs of a process share.
#[derive(Debug)]
pub(crate) struct SharedData;

impl Shared for SharedData {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        abi::shared_data(key)
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> bool {
        abi::set_shared_data(key, value, cas)
    }
}

/// A header's name and value.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// The answer to a call-out, as the host has it within the callback.
#[derive(Debug)]
pub(crate) struct Received {
    headers: Option<HeaderMap>,
    body: Option<Vec<u8>>,
}

impl Received {
    /// Reads it for a stream.
    pub(crate) fn read(headers: usize, body_size: usize) -> Self {
        Self::within(headers, body_size, MAX_ANSWER_BYTES)
    }

    /// Reads it; a body of more than `most` bytes is not the sidecar's.
    pub(crate) fn within(headers: usize, body_size: usize, most: usize) -> Self {
        // No headers: nobody answered, and asking for them is an error in some hosts.
        let headers = if headers == 0 { None } else { HeaderMap::read(Map::Answer) };
        let body = match body_size {
            0 => Some(Vec::new()),
            size if size <= most => abi::buffer(Buffer::AnswerBody, size),
            _ => None,
        };
        Self { headers, body }
    }

    /// Headers and body; no headers where nobody answered, or with more than may be read.
    pub(crate) fn parts(&self) -> (Vec<Pair<'_>>, &[u8]) {
        match (self.headers.as_ref().and_then(HeaderMap::pairs), &self.body) {
            (Some(headers), Some(body)) => (headers, body),
            _ => (Vec::new(), &[]),
        }
    }

    /// What it means to a stream.
    pub(crate) fn answer(&self) -> Answer<'_> {
        let (headers, body) = self.parts();
        Answer::read(&headers, body)
    }
}

/// Sends an answer of our own. A stream that is gone needs none.
pub(crate) fn reply(reply: &Reply) {
    let headers: Vec<(&str, &str)> =
        reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (status, body, grpc_status) = match &reply.grpc {
        // Envoy makes the status 200, and a header of the body.
        Some(grpc) => (200, grpc.message.as_bytes(), i32::from(grpc.code)),
        None => (u32::from(reply.status), reply.body.as_slice(), NO_GRPC_STATUS),
    };
    let details = reply.reason.map_or("preflight", Reason::code);
    let response = LocalResponse { status, headers: &headers, body, details, grpc_status };
    let _sent = abi::local_response(&response);
}

/// Where nothing is known of the request: it stays closed.
pub(crate) fn close() -> Action {
    let _sent = abi::local_response(&LocalResponse {
        status: 503,
        headers: &[("retry-after", "1")],
        body: &[],
        details: "closed",
        grpc_status: NO_GRPC_STATUS,
    });
    Action::Pause
}

/// Whom a module before this one handed over.
pub(crate) fn caller() -> Option<Vec<u8>> {
    abi::property("gatehouse_identity")
}

/// The caller, for single modules behind this one: the filter state `wasm.gatehouse_identity`.
pub(crate) fn hand_over(caller: &str) -> bool {
    abi::set_property("gatehouse_identity", caller.as_bytes())
}

/// For the access log: `%FILTER_STATE(wasm.gatehouse_log:PLAIN)%` in Envoy, `kong.ctx.shared.gatehouse_log` in Kong. A
/// request goes on without it.
pub(crate) fn note_access(host: Host, line: &str) {
    let property = match host {
        Host::Envoy => "gatehouse_log",
        Host::Kong => "kong\0ctx\0shared\0gatehouse_log",
    };
    let _noted = abi::set_property(property, line.as_bytes());
}

/// For Envoy's access log: why the request would have been refused without shadow mode.
pub(crate) fn note_shadowed(code: &str) {
    let _noted = abi::set_property("gatehouse_shadowed", code.as_bytes());
}

/// For Envoy's access log: `%FILTER_STATE(wasm.gatehouse_reason:PLAIN)%`. Other hosts refuse the name.
pub(crate) fn note_reason(code: &str) {
    let _noted = abi::set_property("gatehouse_reason", code.as_bytes());
}
