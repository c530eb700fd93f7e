//! HTTP/1.1 down to the byte: what a client sends is exactly what the test wrote, with spellings, duplicates,
//! trailers and pipelining that libraries hide. Reads messages in the same way on both sides.

pub mod serve;

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::vm::Headers;

/// No exchange of a test lasts longer.
const LIMIT: Duration = Duration::from_secs(20);

/// One request or response.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// The request line or status line.
    pub start: String,
    /// Exactly as they stood there.
    pub headers: Headers,
    /// Without any transfer coding.
    pub body: Vec<u8>,
    /// Trailers of a chunked body.
    pub trailers: Headers,
}

impl Message {
    /// Reads the next message; `None` at a clean end. `bodiless` where the exchange rules out a body (HEAD).
    pub fn read(from: &mut impl BufRead, bodiless: bool) -> Result<Option<Self>> {
        let Some(start) = line(from)? else { return Ok(None) };
        let headers = fields(from)?;
        let mut message = Self { start, headers, ..Self::default() };
        let status = message.status().ok();
        if bodiless || matches!(status, Some(100..=199 | 204 | 304)) {
            return Ok(Some(message));
        }
        let chunked = message.headers.all("transfer-encoding").concat().contains("chunked");
        if chunked {
            loop {
                let size = line(from)?.context("cut off in a chunk")?;
                let size = size.split(';').next().unwrap_or_default().trim();
                let size = usize::from_str_radix(size, 16).context("chunk size")?;
                if size == 0 {
                    break;
                }
                let mut chunk = vec![0; size];
                from.read_exact(&mut chunk)?;
                message.body.extend(chunk);
                ensure!(line(from)?.as_deref() == Some(""), "no end of chunk");
            }
            message.trailers = fields(from)?;
        } else if let Some(size) = message.headers.one("content-length") {
            message.body = vec![0; size.parse().context("content-length")?];
            from.read_exact(&mut message.body)?;
        } else if status.is_some() {
            from.read_to_end(&mut message.body)?;
        }
        Ok(Some(message))
    }

    /// The status of a response.
    pub fn status(&self) -> Result<u16> {
        let mut words = self.start.split(' ');
        let version = words.next().unwrap_or_default();
        ensure!(version.starts_with("HTTP/"), "no status line: {}", self.start);
        words.next().unwrap_or_default().parse().with_context(|| self.start.clone())
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        let text = || String::from_utf8_lossy(&self.body).into_owned();
        serde_json::from_slice(&self.body).with_context(|| format!("{}: {}", self.start, text()))
    }

    /// With a header more.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.add(name.as_bytes(), value.as_bytes());
        self
    }

    /// The one value of a header, or the empty text.
    pub fn header(&self, name: &str) -> String {
        self.headers.one(name).unwrap_or_default()
    }

    /// The message's bytes, with a `content-length` body.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{}\r\n", self.start).into_bytes();
        for (name, value) in self.headers.iter() {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

/// A line without its end; `None` at the end of the stream.
fn line(from: &mut impl BufRead) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    if from.read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    let Some(text) = bytes.strip_suffix(b"\r\n") else { bail!("a line without its end") };
    Ok(Some(String::from_utf8_lossy(text).into_owned()))
}

fn fields(from: &mut impl BufRead) -> Result<Headers> {
    let mut pairs = Vec::new();
    loop {
        let mut bytes = Vec::new();
        from.read_until(b'\n', &mut bytes)?;
        let Some(text) = bytes.strip_suffix(b"\r\n") else { bail!("cut off in headers") };
        if text.is_empty() {
            return Ok(Headers::new(pairs));
        }
        let colon = text.iter().position(|byte| *byte == b':').context("a header without colon")?;
        let (name, value) = text.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
        pairs.push((name.to_vec(), value.to_vec()));
    }
}

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, LIMIT)
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends these bytes and nothing else.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(bytes).context("sending")
    }

    /// Reads the next response.
    pub fn response(&mut self) -> Result<Message> {
        Message::read(&mut self.stream, false)?.context("the connection ended without an answer")
    }

    /// Reads the response to this request: the one to HEAD has no body, whatever its length says.
    pub fn response_to(&mut self, request: &Request) -> Result<Message> {
        let bodiless = request.line().starts_with("HEAD ");
        Message::read(&mut self.stream, bodiless)?.context("the connection ended without an answer")
    }

    /// Whether the peer closes without saying more.
    pub fn closed(&mut self) -> Result<bool> {
        Ok(self.stream.fill_buf()?.is_empty())
    }
}

/// Sends these bytes on a connection of their own and reads one response.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> Result<Message> {
    let mut connection = Connection::open(address)?;
    connection.send(bytes)?;
    connection.response()
}

/// A request under construction: headers are sent as they are spelt here, in this order.
#[derive(Debug, Clone)]
pub struct Request(Message);

impl Request {
    /// With the authority that the gateway is called by.
    pub fn new(method: &str, target: &str) -> Self {
        let start = format!("{method} {target} HTTP/1.1");
        let headers = Headers::new([("Host", "api.greenlang.local")]);
        Self(Message { start, headers, ..Message::default() })
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.0.headers.add(name.as_bytes(), value.as_bytes());
        self
    }

    /// Adds a header of any bytes.
    #[must_use]
    pub fn raw(mut self, name: &[u8], value: &[u8]) -> Self {
        self.0.headers.add(name, value);
        self
    }

    /// Without the header that [`Self::new`] or an earlier step added.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.headers.remove(name.as_bytes());
        self
    }

    /// Adds the bearer token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// Sets a body of this media type.
    #[must_use]
    pub fn body(mut self, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        self.0.body = body.into();
        let length = self.0.body.len().to_string();
        self.header("Content-Type", kind).header("Content-Length", &length)
    }

    /// The request line.
    pub fn line(&self) -> &str {
        &self.0.start
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.bytes()
    }

    /// Sends it on a connection of its own.
    pub fn send(&self, to: SocketAddr) -> Result<Message> {
        let send = || {
            let mut connection = Connection::open(to)?;
            connection.send(&self.bytes())?;
            connection.response_to(self)
        };
        send().with_context(|| self.0.start.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, body: &str, trailers: usize) {
        let mut from = text.as_bytes();
        let message = Message::read(&mut from, false).unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&message.body), body);
        assert_eq!(message.trailers.len(), trailers);
        assert!(from.is_empty(), "{} bytes left", from.len());
    }

    #[test]
    fn bodies_end_where_they_say() {
        check("GET / HTTP/1.1\r\nA: b\r\n\r\n", "", 0);
        check("HTTP/1.1 204 No Content\r\n\r\n", "", 0);
        check("HTTP/1.1 200 OK\r\n\r\nrest", "rest", 0);
        check("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", "hi", 0);
        check(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1;x\r\n!\r\n0\r\nX-T: 1\r\n\r\n",
            "hi!",
            1,
        );
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        for text in
            ["GET /", "GET / HTTP/1.1\r\nA: b\r\n", "X / HTTP/1.1\r\nContent-Length: 2\r\n\r\nh"]
        {
            assert!(Message::read(&mut text.as_bytes(), false).is_err(), "{text:?}");
        }
        assert!(Message::read(&mut &b""[..], false).unwrap().is_none());
    }
}
