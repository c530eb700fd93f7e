//! What stands around every router: request ids, one log line per request, bounds on time and body, panics
//! caught, and every refusal as problem+json whoever made it.
//! Knows no route.

mod arrival;

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderValue, Response, StatusCode, Version, header},
    middleware::{Next, from_fn_with_state},
    response::IntoResponse,
};
use gatehouse_contract::{Problem, Reason, header as names, problem::MEDIA_TYPE};
use tracing::{Instrument, debug, error, field::Empty, info, info_span};

use crate::{
    Reply, RequestId,
    metrics::Requests,
    problem::{Pending, reason_of, render},
    request::Trace,
};

/// What one request may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// From the first byte of the headers' handling to the reply's headers.
    pub time: Duration,
    /// The body, in bytes; a route may set its own `DefaultBodyLimit`.
    pub body_bytes: usize,
    /// Whether answers below 500 are logged at `debug` only: for probes, and for listeners that answer every
    /// request of a gateway, where a line each would cost more than the answer. Nor is there told apart who was slow: a
    /// request that did not arrive in time is answered as one that was not worked off.
    pub quiet: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { time: Duration::from_secs(15), body_bytes: 64 * 1024, quiet: false }
    }
}

/// A body of no more than this is read to its end after an answer that did not need it, and the connection goes on.
const DRAINED_BYTES: u64 = 4096;

/// Marks a reply that is an error of another protocol's shape (RFC 6749 §5.2) and stays as it is.
#[derive(Debug, Clone, Copy)]
pub struct Verbatim;

/// Lets a handler take longer than [`Bounds::time`], where its caller asked for that: it is in every request's extensions.
#[derive(Debug, Clone, Default)]
pub struct Patience(Arc<AtomicU64>);

impl Patience {
    /// So much longer.
    pub fn longer(&self, by: Duration) {
        self.0.store(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    fn granted(&self) -> Duration {
        Duration::from_millis(self.0.load(Relaxed))
    }
}

/// Completes a router: unknown paths and methods are problems, and the layers of this module stand around all.
/// Add nothing to the router afterwards: it would stand outside of them.
pub fn finish(router: Router, bounds: Bounds) -> Router {
    finish_counted(router, bounds, Requests::default())
}

/// As [`finish`], counting every answer in `requests`.
pub fn finish_counted(router: Router, bounds: Bounds, requests: Requests) -> Router {
    router
        .fallback(async || Reply::new(Reason::NotFound))
        .method_not_allowed_fallback(async || Reply::new(Reason::MethodNotAllowed))
        .layer(DefaultBodyLimit::max(bounds.body_bytes))
        .layer(from_fn_with_state((bounds, requests), around))
}

async fn around(
    State((bounds, requests)): State<(Bounds, Requests)>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let id = RequestId::of(request.headers());
    let trace = Trace::of(request.headers());
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(trace.clone());
    let patience = Patience::default();
    request.extensions_mut().insert(patience.clone());
    let arrived = (!bounds.quiet).then(|| arrival::watch(&mut request));
    let drained = request.version() >= Version::HTTP_2
        || request.body().size_hint().exact().is_some_and(|bytes| bytes <= DRAINED_BYTES);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let span = info_span!(
        "request",
        request.id = %id,
        http.method = %method,
        http.route = route,
        trace.id = trace.id(),
        tenant.id = Empty,
    );
    async {
        let start = Instant::now();
        let mut run = CatchPanic(Box::pin(next.run(request)));
        let mut ended = tokio::time::timeout(bounds.time, &mut run).await;
        let longer = patience.granted();
        if ended.is_err() && !longer.is_zero() {
            ended = tokio::time::timeout(longer, &mut run).await;
        }
        // What was begun is dropped before it is answered that it did not end.
        drop(run);
        let response = match ended {
            Ok(Ok(response)) => response,
            Ok(Err(Panicked)) => {
                error!("the handler panicked; its caller got 500");
                Reply::new(Reason::Internal).into_response()
            }
            Err(_) if arrived.as_ref().is_some_and(|arrived| !arrived.load(Relaxed)) => {
                info!(bound_ms = bounds.time.as_millis(), "the request did not arrive in time");
                // The rest of the body would be read as the next request's head.
                Reply::new(Reason::RequestTimeout)
                    .header(header::CONNECTION, HeaderValue::from_static("close"))
                    .into_response()
            }
            Err(_) => {
                error!(bound_ms = bounds.time.as_millis(), "the handler did not end in time");
                Reply::new(Reason::AnswerTimeout)
                    .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
                    .into_response()
            }
        };
        let (mut response, code) = seal(response, &id);
        if !drained && arrived.is_some_and(|arrived| !arrived.load(Relaxed)) {
            // The connection ends with this answer: a gateway that is not told would send its next request into the end.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        let status = response.status().as_u16();
        let took = start.elapsed();
        requests.count((&method, route), status, code, took);
        let elapsed_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if bounds.quiet && status < 500 {
            debug!(http.status = status, reason = code, elapsed_us, "request answered");
        } else {
            info!(http.status = status, reason = code, elapsed_us, "request answered");
        }
        response
    }
    .instrument(span)
    .await
}

/// Gives the reply its request id and makes a refusal in another form a problem; returns the problem's code.
fn seal(mut response: Response<Body>, id: &RequestId) -> (Response<Body>, Option<&'static str>) {
    let status = response.status();
    let problem = match response.extensions_mut().remove::<Pending>() {
        Some(Pending(problem)) => Some(problem),
        None if !(status.is_client_error() || status.is_server_error()) => None,
        None if response.extensions().get::<Verbatim>().is_some() => None,
        None if is_problem(&response) => None,
        None => Some(Problem::new(reason_of(status))),
    };
    let code = problem.as_ref().map(|problem| problem.code);
    if let Some(problem) = problem {
        let whole = render(&problem.request_id(id.as_str()));
        *response.status_mut() = whole.status();
        response.headers_mut().remove(header::CONTENT_LENGTH);
        for (name, value) in whole.headers() {
            response.headers_mut().insert(name, value.clone());
        }
        *response.body_mut() = whole.into_body();
    }
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        // What is away may be back at any moment.
        let soon = HeaderValue::from_static("1");
        response.headers_mut().entry(header::RETRY_AFTER).or_insert(soon);
    }
    response.headers_mut().insert(names::REQUEST_ID, id.to_header());
    (response, code)
}

fn is_problem(response: &Response<Body>) -> bool {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(MEDIA_TYPE.as_bytes()))
}

/// The handler panicked; its message is in the log by the panic hook.
struct Panicked;

/// A future that ends with [`Panicked`] where the inner one panics, so that the client still gets an answer.
struct CatchPanic<F>(Pin<Box<F>>);

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Unwind safety: after a panic the future is dropped and never polled again.
        match std::panic::catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}

#[cfg(test)]
mod tests;
