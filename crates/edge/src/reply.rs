//! Refusals in the caller's dialect: problem documents (RFC 9457), or gRPC statuses without a body (acceptance
//! X8, J34). Knows no policy: it is told what to say.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gatehouse_contract::{Problem, Reason, problem};

use crate::{
    config::Host,
    cors::Grant,
    step::{GrpcStatus, Reply, RequestRecord},
    text::Text,
    view::Dialect,
};

/// `realm` of our challenges (RFC 6750 §3).
const REALM: &str = "Bearer realm=\"gatehouse\"";

/// What to add to a 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// No credential came: no `error` either (RFC 6750 §3.1, acceptance J1).
    Bare,
    /// The credential is refused (J2). The description is fixed: nothing of the token, nothing of a library.
    InvalidToken,
    /// More than one credential, or one in a broken form (J4).
    InvalidRequest,
}

impl Challenge {
    fn header(self) -> String {
        let (error, description) = match self {
            Self::Bare => return REALM.to_owned(),
            Self::InvalidToken => ("invalid_token", "The access token is not valid"),
            Self::InvalidRequest => ("invalid_request", "The request has an ambiguous credential"),
        };
        format!("{REALM}, error=\"{error}\", error_description=\"{description}\"")
    }
}

/// A refusal in the making.
#[derive(Debug)]
pub(crate) struct Refusal {
    reason: Reason,
    problem: Problem,
    headers: Vec<(&'static str, Text)>,
}

impl Refusal {
    pub(crate) fn new(reason: Reason) -> Self {
        let mut headers = Vec::new();
        // Answers that depend on who asks or how often must not be kept by caches on the way.
        if matches!(reason.status(), 401 | 403 | 429) {
            headers.push(("cache-control", "no-store".into()));
        }
        if reason.status() == 503 {
            headers.push(("retry-after", "1".into()));
        }
        Self { reason, problem: Problem::new(reason), headers }
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.problem = self.problem.detail(detail);
        self
    }

    pub(crate) fn with(mut self, name: &str, value: serde_json::Value) -> Self {
        self.problem = self.problem.with(name, value);
        self
    }

    pub(crate) fn challenge(self, challenge: Challenge) -> Self {
        self.header("www-authenticate", challenge.header())
    }

    /// A 403 of a token that lacks a scope (RFC 6750 §3.1, acceptance J3). `scope` is what it needs.
    pub(crate) fn challenge_scope(self, scope: &str) -> Self {
        let challenge = format!(
            "{REALM}, error=\"insufficient_scope\", error_description=\"The access token lacks a scope\", scope=\"{scope}\""
        );
        self.header("www-authenticate", challenge)
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<Text>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn into_reply(self, host: Host, dialect: Dialect, record: RequestRecord) -> Reply {
        let Self { reason, problem, mut headers } = self;
        if record.no_store && !headers.iter().any(|(name, _)| *name == "cache-control") {
            headers.push(("cache-control", "no-store".into()));
        }
        headers.extend(record.headers().chain(record.rate_headers()));
        headers.extend(record.notice.iter().flat_map(|notice| notice.headers()));
        headers.extend(record.cors.iter().flat_map(Grant::headers).chain(record.vary.header()));
        let status = GrpcStatus { code: reason.grpc_code(), message: reason.title() };
        let message = percent_encoded(status.message);
        let (content_type, body) = match (dialect, host) {
            (Dialect::Http, _) => {
                headers.push(("content-type", problem::MEDIA_TYPE.into()));
                let body = problem.request_id(record.request_id.as_ref()).to_json();
                return Reply {
                    status: reason.status(),
                    headers,
                    body,
                    grpc: None,
                    reason: Some(reason),
                    record,
                };
            }
            // Envoy makes a trailers-only reply of it, content type and encoding included.
            (Dialect::Grpc, Host::Envoy) => {
                let grpc = Some(status);
                return Reply {
                    status: 200,
                    headers,
                    body: Vec::new(),
                    grpc,
                    reason: Some(reason),
                    record,
                };
            }
            (Dialect::Grpc, Host::Kong) => ("application/grpc", Vec::new()),
            // Trailers are a frame of the body there; a reply without a body would lose its content type in Envoy.
            (Dialect::GrpcWeb | Dialect::GrpcWebText, _) => {
                // A script of another origin sees no header that is not named (acceptance J34).
                if record.cors.is_none() {
                    let exposed = "grpc-status, grpc-message";
                    headers.push(("access-control-expose-headers", exposed.into()));
                }
                let frame = trailers_frame(status.code, &message);
                if dialect == Dialect::GrpcWebText {
                    ("application/grpc-web-text+proto", STANDARD.encode(frame).into_bytes())
                } else {
                    ("application/grpc-web+proto", frame)
                }
            }
        };
        headers.push(("content-type", content_type.into()));
        headers.push(("grpc-status", u32::from(status.code).into()));
        headers.push(("grpc-message", message.into()));
        Reply { status: 200, headers, body, grpc: None, reason: Some(reason), record }
    }
}

/// The answer to a preflight: what it asks about is judged when it comes. `record` says it all, as every response
/// does. Nothing is refused here: of a foreign origin nothing is said, and its browser asks no further.
pub(crate) fn preflight(record: RequestRecord) -> Reply {
    let mut headers: Vec<_> = record.headers().collect();
    headers.extend(record.cors.iter().flat_map(Grant::headers).chain(record.vary.header()));
    Reply { status: 204, headers, body: Vec::new(), grpc: None, reason: None, record }
}

/// The trailers of gRPC-Web: a frame whose flag is the highest bit, and a block of HTTP/1.1 header lines.
fn trailers_frame(code: u8, message: &str) -> Vec<u8> {
    let lines = format!("grpc-status:{code}\r\ngrpc-message:{message}\r\n");
    // Our messages are titles of a few words: always below 4 GiB.
    let length = u32::try_from(lines.len()).unwrap_or_default();
    [[0x80].as_slice(), &length.to_be_bytes(), lines.as_bytes()].concat()
}

/// `Status-Message` of the gRPC HTTP/2 protocol: printable ASCII but `%` stands for itself.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(reason: Reason, host: Host, dialect: Dialect) -> Reply {
        let record = RequestRecord::new("r1".into(), Some("v1".into()));
        Refusal::new(reason).into_reply(host, dialect, record)
    }

    fn header<'r>(reply: &'r Reply, name: &str) -> Option<&'r str> {
        let mut values = reply.headers.iter().filter(|(ours, _)| *ours == name);
        let value = values.next().map(|(_, value)| &**value);
        assert!(values.next().is_none(), "{name} twice");
        value
    }

    #[test]
    fn x8_refusals_are_problems_that_no_cache_keeps() {
        let denied = reply(Reason::PermissionDenied, Host::Envoy, Dialect::Http);
        assert_eq!(denied.status, 403);
        assert_eq!(header(&denied, "content-type"), Some("application/problem+json"));
        assert_eq!(header(&denied, "cache-control"), Some("no-store"));
        assert_eq!(header(&denied, "x-request-id"), Some("r1"));
        assert!(String::from_utf8(denied.body).unwrap().contains(r#""request_id":"r1""#));
        let unknown = reply(Reason::NotFound, Host::Envoy, Dialect::Http);
        assert_eq!(header(&unknown, "cache-control"), None);
        let away = reply(Reason::IdentityUnavailable, Host::Envoy, Dialect::Http);
        assert_eq!(header(&away, "retry-after"), Some("1"));
    }

    #[test]
    fn j34_grpc_callers_get_a_status_and_no_body() {
        for (reason, code) in [
            (Reason::CredentialMissing, 16),
            (Reason::PermissionDenied, 7),
            (Reason::QuotaExceeded, 8),
            (Reason::LimiterUnavailable, 14),
            (Reason::NotFound, 12),
            (Reason::PathInvalid, 3),
        ] {
            let by_envoy = reply(reason, Host::Envoy, Dialect::Grpc);
            assert_eq!((by_envoy.status, by_envoy.body.as_slice()), (200, b"".as_slice()));
            assert_eq!(by_envoy.grpc.map(|grpc| grpc.code), Some(code), "{reason:?}");
            for (host, dialect) in [
                (Host::Kong, Dialect::Grpc),
                (Host::Kong, Dialect::GrpcWeb),
                (Host::Envoy, Dialect::GrpcWeb),
                (Host::Envoy, Dialect::GrpcWebText),
                (Host::Kong, Dialect::GrpcWebText),
            ] {
                let ours = reply(reason, host, dialect);
                assert_eq!(ours.status, 200);
                if dialect != Dialect::Grpc {
                    let body = match dialect {
                        Dialect::GrpcWebText => STANDARD.decode(&ours.body).unwrap(),
                        _ => ours.body.clone(),
                    };
                    let lines = format!(
                        "grpc-status:{code}\r\ngrpc-message:{}\r\n",
                        percent_encoded(reason.title())
                    );
                    let (head, rest) = body.split_at(5);
                    assert_eq!(head, [0x80, 0, 0, 0, u8::try_from(lines.len()).unwrap()]);
                    assert_eq!(String::from_utf8_lossy(rest), lines);
                    assert_eq!(
                        header(&ours, "access-control-expose-headers"),
                        Some("grpc-status, grpc-message")
                    );
                } else {
                    assert!(ours.body.is_empty());
                }
                assert_eq!(header(&ours, "grpc-status"), Some(code.to_string().as_str()));
                assert!(ours.grpc.is_none());
            }
        }
        assert_eq!(percent_encoded("a b%\u{e9}\n"), "a b%25%C3%A9%0A");
    }
}
