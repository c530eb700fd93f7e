//! `envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`, for users of Envoy's own filter: one unary method,
//! decoded by hand over hyper (gRPC over HTTP/2: a path, a five-byte prefix, trailers).
//! Knows neither how a check is decided nor who listens.

mod answer;
pub mod ask;
pub mod frames;
mod wire;

use std::{future::poll_fn, pin::pin};

use axum::http::{HeaderValue, Method, Request, StatusCode, header::CONTENT_TYPE};
use http_body::Body as HttpBody;
use prost::{
    Message,
    bytes::{Buf, BufMut, Bytes, BytesMut},
};

use self::{
    ask::{Invalid, Question},
    frames::{Frames, Reply},
};
use crate::engine::{Check, Decided, Unavailable};

/// The path of the one method.
pub const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// The domain that is answered unless the configuration names others.
pub const DOMAIN: &str = "gatehouse";
/// What `Content-Type` of every gRPC message begins with.
const CONTENT: &[u8] = b"application/grpc";
/// Longest question, in bytes; the same as that of the other routes.
const QUESTION_BYTES: usize = 8 * 1024;
/// Of the prefix: a flag (compressed or not) and the length.
const PREFIX: usize = 5;

/// The status of a call (gRPC's `status.proto`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// The question cannot be weighed, nor ever can.
    Invalid(Invalid),
    /// The question is larger than the bound.
    TooLarge,
    /// The question is compressed, or the method is not ours.
    Unimplemented,
    /// No verdict can be had, and the tier's policy is `closed`.
    Unavailable,
}

/// What the service must know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The domains that are answered.
    pub domains: Vec<String>,
    /// The window of tier limits, in seconds.
    pub window_s: u32,
}

/// Whether `request` is a gRPC call: then [`call`] answers it, and no other route.
pub fn is_call<B>(request: &Request<B>) -> bool {
    request.method() == Method::POST
        && request
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(CONTENT))
}

/// Answers one call; `check` decides.
pub async fn call<B: HttpBody<Data = Bytes>>(
    settings: &Settings,
    request: Request<B>,
    check: impl AsyncFnOnce(Check<'_>) -> Result<Decided, Unavailable>,
) -> Reply {
    let answered = async {
        if request.uri().path() != PATH {
            return Err(Failed::Unimplemented);
        }
        let message = message(request.into_body()).await?;
        let request = wire::RateLimitRequest::decode(message)
            .map_err(|_| Failed::Invalid(Invalid::Message))?;
        let question = Question::read(&request, settings).map_err(Failed::Invalid)?;
        let decided = check(question.check()).await.map_err(|Unavailable| Failed::Unavailable)?;
        Ok(framed(&answer::of(&decided)))
    };
    match answered.await {
        Ok(message) => frames::reply(Frames::message(message)),
        Err(failed) => refusal(failed),
    }
}

/// The bytes behind the prefix of the one message.
async fn message<B: HttpBody<Data = Bytes>>(body: B) -> Result<Bytes, Failed> {
    let mut body = pin!(body);
    let mut whole = Bytes::new();
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        // The caller went away: nobody reads the answer.
        let frame = frame.map_err(|_| Failed::Invalid(Invalid::Message))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > QUESTION_BYTES {
            return Err(Failed::TooLarge);
        }
        whole = if whole.is_empty() { data } else { [whole, data].concat().into() };
    }
    if whole.len() < PREFIX {
        return Err(Failed::Invalid(Invalid::Message));
    }
    let (compressed, length) = (whole.get_u8(), whole.get_u32());
    match compressed {
        0 if usize::try_from(length).is_ok_and(|length| length == whole.len()) => Ok(whole),
        1 => Err(Failed::Unimplemented),
        _ => Err(Failed::Invalid(Invalid::Message)),
    }
}

fn framed(response: &wire::RateLimitResponse) -> Bytes {
    let length = response.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    // An answer has a handful of limits and headers.
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // A buffer that grows always has room.
    response.encode(&mut bytes).unwrap_or_default();
    bytes.freeze()
}

/// A refusal has no message: its status stands in the headers ("Trailers-Only").
fn refusal(failed: Failed) -> Reply {
    let (status, text) = match failed {
        Failed::Invalid(invalid) => ("3", invalid.to_string()),
        Failed::TooLarge => ("8", "the message is too large".to_owned()),
        Failed::Unimplemented => ("12", "only ShouldRateLimit, uncompressed".to_owned()),
        Failed::Unavailable => ("14", "the rate limiter cannot be reached".to_owned()),
    };
    let mut reply = frames::reply(Frames::none());
    *reply.status_mut() = StatusCode::OK;
    reply.headers_mut().insert(frames::GRPC_STATUS, HeaderValue::from_static(status));
    if let Ok(text) = HeaderValue::try_from(text) {
        reply.headers_mut().insert(frames::GRPC_MESSAGE, text);
    }
    reply
}

#[cfg(test)]
mod tests;
