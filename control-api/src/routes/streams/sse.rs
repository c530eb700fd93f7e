//! Server-sent events (WHATWG HTML §9.2): frames as text, and a body that makes them as fast as they are read. Whoever reads
//! slowly has no more in memory than what comes next: nothing is asked for before what was made is on its way.
//! Knows no stream.

use std::{
    fmt::Write as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use http_body::Frame;
use serde_json::Value;
use tracing::Span;

/// The media type.
pub const MEDIA: &str = "text/event-stream";
/// A stream that has nothing to tell says so this often, for whoever stands between.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// After which a reader comes again.
const AGAIN_MS: u32 = 2000;

/// Some frames.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Frames(String);

/// What comes next of a stream.
pub enum Step<S> {
    /// These, and more.
    Go(Frames, S),
    /// These, and no more.
    Last(Frames),
    /// No more.
    Over,
}

/// What a stream is made of.
pub trait Source: Sized + Send + 'static {
    /// Waits for what comes next.
    fn next(self) -> impl Future<Output = Step<Self>> + Send;
}

/// Ends when it is time for a heartbeat.
pub async fn quiet() {
    tokio::time::sleep(HEARTBEAT).await;
}

/// The answer that begins with `first`; it ends with that where nothing comes behind.
pub fn answer<S: Source>(first: Frames, behind: Option<S>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(MEDIA)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Proxies of nginx's kind would keep it back.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    let step = behind.map(stepping);
    let stream = Telling { first: Some(first), step, span: Span::current() };
    (headers, Body::new(stream)).into_response()
}

// === impl Frames ===

impl Frames {
    /// What a stream begins with.
    pub fn begin() -> Self {
        Self(format!("retry: {AGAIN_MS}\n\n"))
    }

    /// Nothing, said aloud.
    pub fn heartbeat() -> Self {
        Self(":\n\n".to_owned())
    }

    /// One more. `id` and `event` are words of ours.
    pub fn add(&mut self, id: &str, event: &str, data: &Value) {
        // Writing into a string cannot fail.
        write!(self.0, "id: {id}\nevent: {event}\ndata: {}\n\n", harmless(data))
            .unwrap_or_default();
    }
}

/// JSON in one line, in which no character that steers a terminal, or turns text around, stands as itself: what an agent
/// wrote may be looked at with `curl`.
pub fn harmless(value: &Value) -> String {
    let text = value.to_string();
    let steers = |c: char| {
        matches!(c, '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    if !text.contains(steers) {
        return text;
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        // Beyond ASCII, and at DEL, a character is within a string.
        match steers(c) {
            true => write!(safe, "\\u{:04x}", u32::from(c)).unwrap_or_default(),
            false => safe.push(c),
        }
    }
    safe
}

type Next = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What was made, and what makes what comes behind it.
struct Done(Option<Frames>, Option<Box<dyn FnOnce() -> Next + Send>>);

fn stepping<S: Source>(source: S) -> Next {
    Box::pin(async move {
        match source.next().await {
            Step::Go(frames, source) => Done(Some(frames), Some(Box::new(|| stepping(source)))),
            Step::Last(frames) => Done(Some(frames), None),
            Step::Over => Done(None, None),
        }
    })
}

/// The frames as a body.
struct Telling {
    first: Option<Frames>,
    step: Option<Next>,
    /// The request's: its own ended with the answer's head.
    span: Span,
}

impl http_body::Body for Telling {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(Frames(text)) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(text.into()))));
        }
        let span = self.span.clone();
        let _within = span.enter();
        while let Some(step) = self.step.as_mut() {
            let Poll::Ready(Done(frames, behind)) = step.as_mut().poll(context) else {
                return Poll::Pending;
            };
            self.step = behind.map(|next| next());
            // An empty frame would be for nothing.
            if let Some(Frames(text)) = frames.filter(|frames| !frames.0.is_empty()) {
                return Poll::Ready(Some(Ok(Frame::data(text.into()))));
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_character_that_steers_stands_as_itself_and_all_are_read_back() {
        let said =
            json!({"text": "a\u{1b}[2J\u{9b}1m\u{7f}\u{0}\r\n\u{202e}gnp.exe\u{2028}é 🚚\u{fffd}"});
        let text = harmless(&said);
        assert!(
            text.chars().all(|c| !c.is_control() && c != '\u{202e}' && c != '\u{2028}'),
            "{text}"
        );
        assert!(text.contains("\\u009b1m") && text.contains("é 🚚"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), said);
    }

    #[test]
    fn a_frame_is_closed_by_an_empty_line_and_by_nothing_else() {
        let mut frames = Frames::begin();
        frames.add("7", "execution.queued", &json!({"a": "x\n\ny"}));
        assert_eq!(
            frames.0,
            "retry: 2000\n\nid: 7\nevent: execution.queued\ndata: {\"a\":\"x\\n\\ny\"}\n\n"
        );
    }
}
