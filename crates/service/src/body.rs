//! Reads request bodies: bounded, of the right media type, and with every mistake reported at once.
//! Knows no operation.

use axum::{
    body::Bytes,
    extract::{
        FromRequest, Request,
        rejection::{BytesRejection, FailedToBufferBody},
    },
    http::{HeaderMap, header},
};
use gatehouse_contract::{Document, Reason, document};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

use crate::Reply;

/// A JSON body's bytes. Its bound is the route's `DefaultBodyLimit` ([`crate::app::Bounds`]); a larger body is
/// 413, another media type 415, and what is no JSON 400.
#[derive(Debug, Clone)]
pub struct JsonBody(pub Bytes);

impl JsonBody {
    /// Reads the object with `build`; all its mistakes, unknown fields among them, become one 422.
    pub fn read<T>(&self, build: impl FnOnce(&Document<'_>) -> Option<T>) -> Result<T, Reply> {
        let text = std::str::from_utf8(&self.0)
            .map_err(|_| Reply::new(Reason::BodyMalformed).detail("the body is not UTF-8"))?;
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| malformed(&error))?;
        document::read(text, build).map_err(|mistakes| Reply::mistakes(&mistakes))
    }
}

/// Reads a type that is judged by its form alone: 400 for what is no JSON, 422 for another type. Of the body nothing is quoted,
/// as it may hold a credential, and of the library's words none.
pub fn wire<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Reply> {
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        Category::Data => {
            Reply::mistake("$", "not what this path takes", "send what its description says")
        }
        Category::Syntax | Category::Eof | Category::Io => malformed(&error),
    })
}

fn malformed(error: &serde_json::Error) -> Reply {
    let (line, column) = (error.line(), error.column());
    Reply::new(Reason::BodyMalformed).detail(format!("not JSON at line {line}, column {column}"))
}

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Reply;

    async fn from_request(request: Request, state: &S) -> Result<Self, Reply> {
        if !is_json(request.headers()) {
            return Err(Reply::new(Reason::MediaTypeUnsupported)
                .detail("send the body as application/json"));
        }
        bytes(request, state).await.map(Self)
    }
}

/// The body's bytes within the route's bound, else 413.
pub async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Reply> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            Reply::new(Reason::BodyTooLarge)
        }
        _ => Reply::new(Reason::BodyMalformed).detail("the body ended early"),
    })
}

/// Whether the body is declared as JSON (RFC 8259, or a `+json` type).
fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|kind| {
        kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json")
    })
}

/// The body's declared media type without parameters, in lower case; none when it is missing or sent twice.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let kind = value.to_str().ok()?.split(';').next()?.trim().to_ascii_lowercase();
    Some(kind)
}
