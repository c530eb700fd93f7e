//! What the policy tells its shell to do, as data, and what the shell brings back.
//! Knows neither hosts nor transport.

use std::rc::Rc;

use gatehouse_contract::{Reason, header};

use crate::{
    config::Target,
    cors::Grant,
    decision::Decision,
    flow::Pending,
    limits::{Key, Standing},
    text::Text,
    transform::Values,
    vary::Vary,
    version::{Notice, VersionSource},
    view::Dialect,
};

/// What comes next for a request. Each variant ends the shell's turn: resume, reply or call, never two of them.
#[derive(Debug)]
pub enum Step {
    /// Let it go on to the upstream.
    Continue {
        /// Changes to the request's headers, in their order.
        edits: Vec<Edit>,
        /// What the response needs later.
        record: RequestRecord,
    },
    /// Answer it here.
    Reply(Reply),
    /// Ask the sidecar and come back with [`crate::Suite::on_answer`]. When the call cannot be made, come back
    /// with [`Answer::Unavailable`].
    Call {
        /// What to ask.
        call: Call,
        /// What is known so far.
        pending: Box<Pending>,
    },
}

/// A header's name: ours, one of the document's, or a client's spelling of one of them.
pub type Name = Text;

/// One change to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Replace every value of this header by one.
    Set(Name, Text),
    /// One value more of this header.
    Add(Name, Text),
    /// Remove every value of this header. Only on hosts where that reaches the upstream.
    Remove(Name),
    /// Set the host's property for the upstream's path and query (Kong: `ngx.upstream_uri`).
    UpstreamUri(String),
}

/// A call-out. The shell adds the scheme, `http`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Whom to ask.
    pub to: Rc<Target>,
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// JSON; empty on `GET`.
    pub body: Vec<u8>,
    /// How long to wait, in milliseconds.
    pub timeout_ms: u64,
    /// The request that waits for it, for the log of whoever answers; `None` where none does.
    pub request_id: Option<Rc<str>>,
}

/// What came back from a call-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The sidecar's own answer.
    Sidecar {
        /// Its HTTP status.
        status: u16,
        /// Its body.
        body: &'a [u8],
    },
    /// Refused, timed out, made up by the host, or from somebody else.
    Unavailable,
}

impl<'a> Answer<'a> {
    /// Only what carries the sidecar's own marker header counts: hosts make up 503 and 504 of their own.
    pub fn read<N: AsRef<[u8]>, V: AsRef<[u8]>>(headers: &[(N, V)], body: &'a [u8]) -> Self {
        let find = |wanted: &str| {
            headers.iter().find_map(|(name, value)| {
                name.as_ref().eq_ignore_ascii_case(wanted.as_bytes()).then_some(value.as_ref())
            })
        };
        let status = find(":status")
            .and_then(|value| std::str::from_utf8(value).ok())
            .and_then(|value| value.parse().ok());
        match (status, find(header::SIDECAR_MARKER)) {
            (Some(status), Some(b"1")) => Self::Sidecar { status, body },
            _ => Self::Unavailable,
        }
    }
}

/// An answer of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// All headers but `content-length`.
    pub headers: Vec<(&'static str, Text)>,
    /// The body; empty for gRPC.
    pub body: Vec<u8>,
    /// Set when the host must make the reply as gRPC itself: Envoy rewrites any reply to a gRPC request.
    pub grpc: Option<GrpcStatus>,
    /// For the access log and metrics; `None` where nothing is refused.
    pub reason: Option<Reason>,
    /// What the response needs later.
    pub record: RequestRecord,
}

/// A gRPC status (`grpc-status`, `grpc-message` before its percent-encoding).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcStatus {
    /// The code, 1 to 16.
    pub code: u8,
    /// The message, ASCII.
    pub message: &'static str,
}

/// What is kept of a request until its response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// The request's id.
    pub request_id: Rc<str>,
    /// The API version that answers; `None` where another module sees to versions.
    pub version: Option<Rc<str>>,
    /// What told it; `None` where the path has no place for one.
    pub source: Option<VersionSource>,
    /// What every response says of its version's end, where that is in sight.
    pub(crate) notice: Option<Box<Notice>>,
    /// Lines for the log, for the shell to take; at most one a minute of a kind.
    pub notes: Vec<String>,
    /// The tightest limit's standing, once it was asked for.
    pub limit: Option<Standing>,
    /// Whether it was decided without the shared count: the limiter was away.
    pub degraded: bool,
    /// What was charged, where the response may name another cost (acceptance R24); taken by
    /// [`crate::Suite::settle`].
    pub(crate) charged: Option<Box<Key>>,
    /// Whether no cache may keep the response, as the request's URL held a credential (acceptance J26).
    pub no_store: bool,
    /// What the role matrix said, once it was asked; see [`crate::Suite::rule`].
    pub decision: Option<Decision>,
    /// Why the request would have been refused if the matrix were not in shadow mode: for logs and metrics.
    pub shadowed: Option<Reason>,
    /// The caller in JSON, for single modules behind this one; `None` for the fused module and without a caller.
    pub handover: Option<Rc<str>>,
    /// The caller's part of the line for the access log.
    pub(crate) logged: Option<Rc<str>>,
    /// What scripts may read; `None` where CORS is left to the upstream.
    pub(crate) cors: Option<Grant>,
    /// The headers that were consulted.
    pub(crate) vary: Vary,
    /// What the response's changes need of the caller.
    pub(crate) shaped: Option<Values>,
    /// What the caller understands.
    pub(crate) dialect: Dialect,
    /// Whether what follows the head is a body with a bound.
    pub(crate) counts_body: bool,
    /// Whether the answer goes into an envelope, should it be JSON.
    pub(crate) wraps: bool,
}

/// Response header that says that the limiter was away ([`RequestRecord::degraded`]).
pub(crate) const RATE_DEGRADED: &str = "x-ratelimit-degraded";
/// Response header that says that most of the day's quota is used, e.g. `"day";used=85` in percent.
pub(crate) const RATE_WARNING: &str = "x-ratelimit-warning";
/// The policies that weighed (draft-ietf-httpapi-ratelimit-headers).
pub(crate) const RATE_POLICY: &str = "ratelimit-policy";
/// The standing of the tightest.
pub(crate) const RATE_STATE: &str = "ratelimit";
/// What an upstream may set, too.
pub(crate) const RATE_HEADERS: [&str; 5] =
    [header::RATE_LIMIT, header::RATE_REMAINING, header::RATE_RESET, RATE_POLICY, RATE_STATE];

impl RequestRecord {
    pub(crate) fn new(request_id: Rc<str>, version: Option<Rc<str>>) -> Self {
        Self {
            request_id,
            version,
            source: None,
            notice: None,
            notes: Vec::new(),
            limit: None,
            degraded: false,
            charged: None,
            no_store: false,
            decision: None,
            shadowed: None,
            handover: None,
            logged: None,
            cors: None,
            vary: Vary::default(),
            shaped: None,
            dialect: Dialect::Http,
            counts_body: false,
            wraps: false,
        }
    }

    /// Whether the response may say that the request cost more than was charged: [`crate::Suite::settle`] is due.
    pub fn is_unsettled(&self) -> bool {
        self.charged.is_some()
    }

    /// The headers that every response carries, local ones included.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'static str, Text)> {
        let version = self.version.as_ref().map(|version| (header::API_VERSION, version.into()));
        let warning = self.limit.as_ref().and_then(|limit| limit.shown.warning.as_ref());
        std::iter::once((header::REQUEST_ID, (&self.request_id).into()))
            .chain(version)
            .chain(warning.map(|warning| (RATE_WARNING, warning.into())))
            .chain(self.degraded.then_some((RATE_DEGRADED, "true".into())))
    }

    /// The headers of the tightest limit.
    pub(crate) fn rate_headers(&self) -> impl Iterator<Item = (&'static str, Text)> {
        let limits = self.limit.as_ref().map(|limit| {
            [
                (header::RATE_LIMIT, limit.limit().into()),
                (header::RATE_REMAINING, limit.remaining.into()),
                (header::RATE_RESET, limit.reset_shown.into()),
                (RATE_POLICY, (&limit.shown.policy).into()),
                (RATE_STATE, limit.item().into()),
            ]
        });
        limits.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_answers_are_the_sidecars() {
        let marked = [(":status", "503"), ("X-Gatehouse-Sidecar", "1")];
        assert_eq!(Answer::read(&marked, b"{}"), Answer::Sidecar { status: 503, body: b"{}" });
        for unmarked in [
            vec![],
            vec![(":status", "200")],
            vec![(":status", "503"), ("x-gatehouse-sidecar", "0")],
            vec![("x-gatehouse-sidecar", "1")],
            vec![(":status", "two"), ("x-gatehouse-sidecar", "1")],
        ] {
            assert_eq!(Answer::read(&unmarked, b"{}"), Answer::Unavailable, "{unmarked:?}");
        }
    }
}
