//! An answer on its way from the upstream to the agent: bounded, metered, and counted when it is over, however it ends.
//! Drives the upstream's connection itself: whoever drops the answer drops that, too.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::{run::Run, tokens::Meter};

/// How long an upstream may be silent within its answer.
const SILENCE: Duration = Duration::from_secs(120);
/// Largest answer.
pub const ANSWER_BYTES: u64 = 64 << 20;

/// The upstream's connection, which must be polled for anything to arrive.
pub type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// The body.
pub struct Answer {
    body: Incoming,
    connection: Option<Connection>,
    silence: Pin<Box<Sleep>>,
    meter: Meter,
    exchange: Exchange,
}

/// What is told of one request when it is over.
#[derive(Debug)]
pub struct Exchange {
    pub run: Arc<Run>,
    pub host: String,
    pub status: u16,
    pub began: Instant,
    /// Of the answer's body, so far.
    pub bytes: u64,
    pub tokens: u64,
}

impl Answer {
    pub fn new(body: Incoming, connection: Connection, meter: Meter, exchange: Exchange) -> Self {
        let (connection, silence) = (Some(connection), Box::pin(sleep(SILENCE)));
        Self { body, connection, silence, meter, exchange }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if let Some(connection) = &mut this.connection
            && connection.as_mut().poll(cx).is_ready()
        {
            // Whether it ended well the body says.
            this.connection = None;
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            ready!(this.silence.as_mut().poll(cx));
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        };
        this.silence.as_mut().reset(Instant::now() + SILENCE);
        let frame = match frame {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_ref() {
            this.exchange.bytes = this.exchange.bytes.saturating_add(data.len() as u64);
            if this.exchange.bytes > ANSWER_BYTES {
                return Poll::Ready(Some(Err(io::ErrorKind::FileTooLarge.into())));
            }
            this.meter.read(data);
            this.exchange.tokens = this.meter.tokens();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.run.over(self);
    }
}
