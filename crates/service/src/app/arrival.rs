//! Whether a request's body has arrived whole, so that a request that took too long can say whose fault that is.
//! Knows nothing of what is in it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
};
use http_body::{Frame, SizeHint};

/// Watches the request's body; the answer says whether all of it is here.
pub(super) fn watch(request: &mut Request) -> Arc<AtomicBool> {
    let whole = Arc::new(AtomicBool::new(request.body().is_end_stream()));
    if !whole.load(Relaxed) {
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = Body::new(Watched { body, whole: Arc::clone(&whole) });
    }
    whole
}

struct Watched {
    body: Body,
    whole: Arc<AtomicBool>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        // A handler that has the last byte may never ask for the end.
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.whole.store(true, Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
