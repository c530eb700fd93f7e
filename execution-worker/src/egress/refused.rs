//! Why the proxy refuses, as the agent is told: a problem document (RFC 9457) with a stable code.
//! Says nothing of addresses that an allowed name leads to.

use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use serde_json::json;

/// A refusal. What follows a colon in its text is for the agent's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Without the run's credential, or with another one.
    #[error(
        "the proxy takes the credential of this run alone: use the address in HTTP_PROXY as it is"
    )]
    Credential,
    /// A tunnel, in which neither requests nor tokens could be counted.
    #[error(
        "CONNECT is not served: write the address with http:// in the place of https://; it is asked under TLS all the same"
    )]
    Connect,
    /// No absolute-form, or an address that is none.
    #[error("not an address that can be asked: {0}")]
    Form(String),
    /// Not among the version's hosts.
    #[error("{0} is not among the version's egress hosts")]
    Host(String),
    /// It leads where nobody may go.
    #[error("{0} leads to an address that may not be asked")]
    Address(String),
    /// All requests are used up.
    #[error("the limit of {0} requests is reached")]
    Requests(u32),
    /// The request's body is too large.
    #[error("the request is larger than {0} bytes")]
    Large(u64),
    /// There is no answer.
    #[error("{0} gave no answer")]
    Upstream(String),
    /// There is none in time.
    #[error("{host} gave no answer within {seconds} s")]
    Late {
        /// Who.
        host: String,
        /// How long was waited.
        seconds: u64,
    },
}

impl Refused {
    /// The stable word: the problem's `code`, the label of metrics, the field of logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Credential => "egress_credential",
            Self::Connect => "egress_connect",
            Self::Form(_) => "egress_form",
            Self::Host(_) => "egress_host",
            Self::Address(_) => "egress_address",
            Self::Requests(_) => "egress_requests",
            Self::Large(_) => "egress_large",
            Self::Upstream(_) => "egress_upstream",
            Self::Late { .. } => "egress_late",
        }
    }

    /// Whether the platform's rules are why: an agent that fails after one of these ended for it.
    pub const fn is_denial(&self) -> bool {
        match self {
            Self::Connect | Self::Host(_) | Self::Address(_) | Self::Requests(_) => true,
            Self::Credential
            | Self::Form(_)
            | Self::Large(_)
            | Self::Upstream(_)
            | Self::Late { .. } => false,
        }
    }

    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Credential => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Form(_) => StatusCode::BAD_REQUEST,
            Self::Host(_) | Self::Address(_) => StatusCode::FORBIDDEN,
            Self::Requests(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Large(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Upstream(_) => StatusCode::BAD_GATEWAY,
            Self::Late { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    pub fn response(&self) -> Response<Full<Bytes>> {
        let status = self.status();
        let problem = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "code": self.code(),
            "detail": self.to_string(),
        });
        let mut response = Response::new(Full::from(problem.to_string()));
        *response.status_mut() = status;
        let mut put =
            |name, value| response.headers_mut().insert(name, HeaderValue::from_static(value));
        put(header::CONTENT_TYPE, "application/problem+json");
        match self {
            Self::Credential => drop(put(header::PROXY_AUTHENTICATE, "Basic realm=\"gatehouse\"")),
            Self::Connect => {
                drop(put(header::ALLOW, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"))
            }
            _ => {}
        }
        response
    }
}
