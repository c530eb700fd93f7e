//! A refusal on its way to the client: the only shape in which an error reaches a response.
//! Knows no error type of any service; internal causes are logged where they happen.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use gatehouse_contract::{Mistake, Problem, Reason, problem::MEDIA_TYPE};
use serde_json::{Value, json};

/// Longest cause that is echoed to a client, in characters: a cause may quote the client's own text.
const CAUSE_CHARS: usize = 200;
/// Most mistakes that are listed: who sent thousands learns nothing from the rest.
const MISTAKES: usize = 10;

/// A problem and the headers that go with it. [`crate::app::finish`] adds the request's id to its body.
#[derive(Debug, Clone)]
pub struct Reply(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    problem: Problem,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Reply {
    /// A refusal with nothing but its reason.
    pub fn new(reason: Reason) -> Self {
        Self(Box::new(Inner { problem: Problem::new(reason), headers: Vec::new() }))
    }

    /// Adds what happened this time, in words that a client may see.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.problem.detail = Some(detail.into());
        self
    }

    /// Adds an extension member to the body.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.0.problem.extensions.insert(name.to_owned(), value);
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// 422 with the mistakes of a body (or of a query, taken as an object), the first ten: each its JSON pointer and what
    /// is wrong with it, in the members that a schema's errors have (`crates/validate`).
    pub fn mistakes(mistakes: &[Mistake]) -> Self {
        let listed: Vec<Value> = mistakes
            .iter()
            .take(MISTAKES)
            .map(|mistake| {
                let cause: String = mistake.cause.chars().take(CAUSE_CHARS).collect();
                let detail = format!("{cause}; {}", mistake.mend);
                json!({"pointer": mistake.pointer(), "detail": detail})
            })
            .collect();
        Self::new(Reason::BodyInvalid)
            .detail("what was sent is not what is taken here")
            .with("errors", Value::Array(listed))
    }

    /// 422 with one mistake.
    pub fn mistake(path: &str, cause: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::mistakes(&[Mistake { path: path.to_owned(), cause: cause.into(), mend: mend.into() }])
    }

    /// What is refused.
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }
}

impl From<Reason> for Reply {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response<Body> {
        let Inner { problem, headers } = *self.0;
        let mut response = render(&problem);
        for (name, value) in headers {
            response.headers_mut().append(name, value);
        }
        response.extensions_mut().insert(Pending(problem));
        response
    }
}

/// A problem whose request id is still to be filled in.
#[derive(Debug, Clone)]
pub(crate) struct Pending(pub(crate) Problem);

pub(crate) fn render(problem: &Problem) -> Response<Body> {
    let mut response = Response::new(Body::from(problem.to_json()));
    *response.status_mut() =
        StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The reason that stands for a status which some library answered by itself.
pub(crate) fn reason_of(status: StatusCode) -> Reason {
    match status.as_u16() {
        400 => Reason::PathInvalid,
        401 => Reason::CredentialMissing,
        403 => Reason::PermissionDenied,
        404 => Reason::NotFound,
        405 => Reason::MethodNotAllowed,
        408 => Reason::RequestTimeout,
        409 => Reason::Conflict,
        413 => Reason::BodyTooLarge,
        415 => Reason::MediaTypeUnsupported,
        422 => Reason::BodyInvalid,
        503 => Reason::DependencyUnavailable,
        504 => Reason::AnswerTimeout,
        _ => Reason::Internal,
    }
}
