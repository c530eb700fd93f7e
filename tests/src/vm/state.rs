//! What the host holds for one VM: streams, call-outs, logs, clock, counters. No wasmtime here.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Headers, Host, Personality};

/// One line that the filter logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The SDK's level: 0 trace to 5 critical.
    pub level: u32,
    /// The text.
    pub text: String,
}

/// How often a host function was called, and the bytes that crossed with it in either direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Calls.
    pub calls: u64,
    /// Bytes that the filter handed over or was given.
    pub bytes: u64,
}

/// A reply that the filter sent itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u32,
    /// As they left, after the filter's own response step where the host runs it.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    /// -1 where the filter gave none.
    pub grpc_status: i32,
}

/// A call-out that the filter asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The id by which it is answered.
    pub token: u32,
    /// The context that asked: a stream or the root.
    pub context: u32,
    /// Cluster (Envoy) or address (Kong).
    pub target: String,
    /// With the pseudo headers.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    /// The deadline that the filter named.
    pub timeout_ms: u32,
}

impl Call {
    /// `:method` and `:path`.
    pub fn line(&self) -> String {
        let part = |name| self.headers.one(name).unwrap_or_default();
        format!("{} {}", part(":method"), part(":path"))
    }
}

/// How a call-out ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub(super) headers: Headers,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// What a server said.
    pub fn new(headers: Headers, body: impl Into<Vec<u8>>) -> Self {
        Self { headers, body: body.into() }
    }

    /// Envoy's own answer when nobody listens at the target.
    pub fn refused() -> Self {
        let body = "upstream connect error or disconnect/reset before headers. reset reason: \
                    remote connection failure";
        Self::new(Headers::new([(":status", "503"), ("content-type", "text/plain")]), body)
    }

    /// Envoy's own answer when the deadline passes.
    pub fn timed_out() -> Self {
        let headers = Headers::new([(":status", "504"), ("content-type", "text/plain")]);
        Self::new(headers, "upstream request timeout")
    }

    /// A failure without any headers, as Envoy gives it for a reset and Kong for every failure.
    pub fn nothing() -> Self {
        Self::new(Headers::default(), "")
    }
}

/// Where a stream stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Held by the filter.
    Held,
    /// On its way upstream, with the request headers of that moment.
    Forwarded(Headers),
    /// Answered by the filter.
    Replied(Reply),
}

#[derive(Debug)]
pub(super) struct Stream {
    pub request: Headers,
    pub trailers: Headers,
    /// What the filter has held of the body.
    pub body: Vec<u8>,
    /// From when it comes on.
    pub response: Option<Headers>,
    /// As much of its body as the filter holds, and the piece that it is asked about.
    pub response_body: Vec<u8>,
    pub standing: Standing,
    /// Asked for within the callback that runs now; done when it returns, as Envoy does.
    pub resume: bool,
    pub reply: Option<Reply>,
    /// By path.
    pub filter_state: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A counter or gauge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// As defined.
    pub name: String,
    /// Its value.
    pub value: i64,
}

#[derive(Debug)]
pub(super) struct State {
    pub personality: Personality,
    pub guest: Option<Guest>,
    pub log: Vec<Line>,
    pub counts: BTreeMap<&'static str, Count>,
    pub host: Host,
    pub vm_id: String,
    pub environment: Vec<(String, String)>,
    pub random: u64,
    pub configuration: Vec<u8>,
    pub streams: BTreeMap<u32, Stream>,
    pub effective: u32,
    pub root: u32,
    pub targets: BTreeSet<String>,
    pub calls: BTreeMap<u32, Call>,
    pub next_token: u32,
    pub answer: Option<Answer>,
    pub properties: BTreeMap<Vec<u8>, Vec<u8>>,
    pub metrics: Vec<Metric>,
    pub native_signatures: bool,
    pub tick: Duration,
    /// By the time since the process began.
    pub next_tick: Option<Duration>,
}

/// What the module exports for the host's own use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guest {
    pub memory: wasmtime::Memory,
    pub allocate: wasmtime::Func,
}

impl State {
    pub fn count(&mut self, function: &'static str, bytes: usize) {
        let count = self.counts.entry(function).or_default();
        count.calls += 1;
        count.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
    }

    pub fn stream(&mut self) -> Option<&mut Stream> {
        self.streams.get_mut(&self.effective)
    }

    /// The header map of an ABI number, if it is there in the callback that runs.
    pub fn map(&mut self, kind: u32) -> Option<&mut Headers> {
        match kind {
            0 => self.stream().map(|stream| &mut stream.request),
            1 => self.stream().map(|stream| &mut stream.trailers),
            2 => self.stream().and_then(|stream| stream.response.as_mut()),
            6 => self.answer.as_mut().map(|answer| &mut answer.headers),
            _ => None,
        }
    }

    /// The next bytes of a fixed sequence: a run is the same every time.
    pub fn random_byte(&mut self) -> u8 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.to_le_bytes()[0]
    }
}
