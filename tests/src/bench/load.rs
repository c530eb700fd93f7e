//! A load generator over keep-alive connections: each has one request on its way, every request may be another.
//! Cheap enough to keep one worker of Envoy busy from another core. Knows what ends an answer, nothing more of HTTP.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

/// What every good answer's body ends with, and nothing else does.
pub const END: &str = "\n-- end --";
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of a bad answer is shown.
const SHOWN_BYTES: usize = 2000;
/// What a good answer begins with.
const GOOD: &[u8] = b"HTTP/1.1 200";

/// Requests in their order, again from the first after the last.
#[derive(Debug, Clone)]
pub struct Requests {
    all: Rc<[Box<[u8]>]>,
    /// What every good answer ends with.
    end: &'static str,
}

impl Requests {
    /// One `GET` of JSON per token.
    pub fn get(path: &str, tokens: &[String]) -> Self {
        Self::accepting("application/json", path, tokens)
    }

    /// One `GET` of this media type per token.
    pub fn accepting(media_type: &str, path: &str, tokens: &[String]) -> Self {
        let bytes = |token: &String| {
            let text = format!(
                "GET {path} HTTP/1.1\r\nhost: api.greenlang.local\r\nuser-agent: gatehouse-bench/1\r\naccept: {media_type}\r\nauthorization: Bearer {token}\r\n\r\n"
            );
            text.into_bytes().into_boxed_slice()
        };
        Self { all: tokens.iter().map(bytes).collect(), end: END }
    }

    /// The same, whose answers end so.
    #[must_use]
    pub fn ending(self, end: &'static str) -> Self {
        Self { end, ..self }
    }

    /// One `POST` of JSON.
    pub fn post(path: &str, body: &str) -> Self {
        let length = body.len();
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: api.greenlang.local\r\nuser-agent: gatehouse-bench/1\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        Self { all: [text.into_bytes().into_boxed_slice()].into(), end: END }
    }
}

/// Connections to one listener, with the requests that go there.
#[derive(Debug)]
pub struct Load {
    connections: Vec<Connection>,
    requests: Requests,
    next: usize,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Load {
    /// Opens `count` connections.
    pub fn open(to: SocketAddr, count: usize, requests: Requests) -> Result<Self> {
        let open = || {
            let stream = TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(Connection { stream, answer: Vec::with_capacity(8192) })
        };
        let connections = (0..count).map(|_| open()).collect::<Result<_>>()?;
        Ok(Self { connections, requests, next: 0 })
    }

    /// One exchange; the whole answer as text.
    pub fn once(&mut self) -> Result<String> {
        let request =
            self.requests.all.get(self.next % self.requests.all.len()).context("no tokens")?;
        self.next += 1;
        let connection = self.connections.first_mut().context("no connections")?;
        connection.send(request)?;
        connection.receive(self.requests.end)?;
        Ok(String::from_utf8_lossy(&connection.answer).into_owned())
    }

    /// Keeps every connection busy for `span`; how many requests were answered, all of them well.
    pub fn run(&mut self, span: Duration) -> Result<u64> {
        let Self { connections, requests, next } = self;
        let mut send = |connection: &mut Connection| {
            let request = requests.all.get(*next % requests.all.len()).context("no tokens")?;
            *next += 1;
            connection.send(request)
        };
        connections.iter_mut().try_for_each(&mut send)?;
        let end = Instant::now() + span;
        let mut answered = 0;
        loop {
            let last = Instant::now() >= end;
            for connection in connections.iter_mut() {
                connection.receive(requests.end)?;
                answered += 1;
                if !last {
                    send(connection)?;
                }
            }
            if last {
                return Ok(answered);
            }
        }
    }
}

impl Connection {
    fn send(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).context("sending")
    }

    fn receive(&mut self, end: &str) -> Result<()> {
        self.answer.clear();
        let mut piece = [0; 8192];
        while !self.answer.ends_with(end.as_bytes()) {
            let read = self.stream.read(&mut piece).with_context(|| self.so_far())?;
            ensure!(read > 0, "the connection ended after {}", self.so_far());
            self.answer.extend_from_slice(piece.get(..read).unwrap_or_default());
        }
        ensure!(self.answer.starts_with(GOOD), "a bad answer: {}", self.so_far());
        Ok(())
    }

    fn so_far(&self) -> String {
        let begin = self.answer.get(..SHOWN_BYTES).unwrap_or(&self.answer);
        format!("{} bytes, {:?}", self.answer.len(), String::from_utf8_lossy(begin))
    }
}
