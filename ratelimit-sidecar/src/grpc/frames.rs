//! The body of a gRPC answer: one message, then the trailers that say that all went well; and the body of the public
//! listener's answers, which is that or axum's.
//! Knows no message.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, Response, header::CONTENT_TYPE},
};
use gatehouse_contract::header::SIDECAR_MARKER;
use http_body::{Body as HttpBody, Frame, SizeHint};

pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What is still to be sent.
#[derive(Debug)]
pub enum Frames {
    /// A message and the trailers.
    Message(Bytes),
    /// The trailers.
    Trailers,
    /// Nothing.
    None,
}

/// An answer of the public listener.
pub type Reply = Response<Answer>;

/// Its body.
#[derive(Debug)]
pub enum Answer {
    Grpc(Frames),
    Axum(Body),
}

impl Frames {
    pub const fn message(message: Bytes) -> Self {
        Self::Message(message)
    }

    pub const fn none() -> Self {
        Self::None
    }

    fn next(&mut self) -> Option<Frame<Bytes>> {
        match std::mem::replace(self, Self::None) {
            Self::Message(message) => {
                *self = Self::Trailers;
                Some(Frame::data(message))
            }
            Self::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
                Some(Frame::trailers(trailers))
            }
            Self::None => None,
        }
    }
}

/// A 200 with what every answer to a gRPC call carries.
pub fn reply(frames: Frames) -> Reply {
    let mut reply = Response::new(Answer::Grpc(frames));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(HeaderName::from_static(SIDECAR_MARKER), HeaderValue::from_static("1"));
    reply
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Grpc(frames) => Poll::Ready(frames.next().map(Ok)),
            Self::Axum(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Grpc(frames) => matches!(frames, Frames::None),
            Self::Axum(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // Without one hyper writes no content-length, which a gRPC answer need not have.
            Self::Grpc(Frames::None) => SizeHint::with_exact(0),
            Self::Grpc(_) => SizeHint::default(),
            Self::Axum(body) => body.size_hint(),
        }
    }
}
