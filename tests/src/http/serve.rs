//! A small HTTP/1.1 server of a test's own: the identity provider that our services fetch from, the upstream that
//! tells what it saw. Plain threads, a closure that answers. Knows nothing of what it serves.

use std::{
    io::{BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use serde_json::{Value, json};

use super::Message;
use crate::vm::Headers;

/// Longer than any test: a server that ends kept connections first makes its clients fail.
const IDLE: Duration = Duration::from_secs(1800);

/// Answers a request.
pub type Handler = Arc<dyn Fn(&Message) -> Message + Send + Sync>;

/// A running server.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a free port.
    pub fn start(handler: Handler) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                let handler = Arc::clone(&handler);
                // A connection's thread ends with its peer; an error is a peer that left.
                std::thread::spawn(move || drop(answer(client, &handler)));
            }
        });
        Ok(Self { address, stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees that it ends.
        drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn answer(client: TcpStream, handler: &Handler) -> Result<()> {
    client.set_read_timeout(Some(IDLE))?;
    client.set_nodelay(true)?;
    let mut back = client.try_clone()?;
    let mut from = BufReader::new(client);
    while let Some(request) = Message::read(&mut from, false)? {
        let mut answer = handler(&request);
        let bodiless = request.start.starts_with("HEAD ") || answer.start.contains(" 101 ");
        if !answer.start.contains(" 101 ") {
            answer.headers.add(b"content-length", answer.body.len().to_string().as_bytes());
        }
        if bodiless {
            answer.body.clear();
        }
        back.write_all(&answer.bytes())?;
    }
    Ok(())
}

/// A response with these headers.
pub fn response(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Message {
    Message {
        start: format!("HTTP/1.1 {status} Of-A-Test"),
        headers: Headers::new(headers.iter().copied()),
        body: body.into(),
        trailers: Headers::default(),
    }
}

/// A response with a JSON body.
pub fn json_response(status: u16, body: &Value) -> Message {
    response(status, &[("content-type", "application/json")], body.to_string())
}

/// What an upstream saw, as the JSON that [`echo`] answers with and [`seen`] reads back. Bytes are Latin-1 here, so
/// that none is lost.
pub fn echo(request: &Message) -> Message {
    let pairs = |headers: &Headers| -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| (latin(name), latin(value))).collect()
    };
    let body = json!({
        "start": request.start,
        "headers": pairs(&request.headers),
        "trailers": pairs(&request.trailers),
        "body": latin(&request.body),
    });
    json_response(200, &body)
}

/// Reads what [`echo`] wrote.
pub fn seen(answer: &Message) -> Result<Message> {
    let (start, headers, trailers, body): (String, Pairs, Pairs, String) = {
        let mut body = answer.json()?;
        let mut take = |name: &str| body.get_mut(name).map(Value::take).unwrap_or_default();
        (
            serde_json::from_value(take("start"))?,
            serde_json::from_value(take("headers"))?,
            serde_json::from_value(take("trailers"))?,
            serde_json::from_value(take("body"))?,
        )
    };
    let read = |pairs: Pairs| Headers::new(pairs.iter().map(|(n, v)| (bytes(n), bytes(v))));
    Ok(Message { start, headers: read(headers), trailers: read(trailers), body: bytes(&body) })
}

type Pairs = Vec<(String, String)>;

fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn bytes(latin: &str) -> Vec<u8> {
    latin.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Request;

    #[test]
    fn the_echo_tells_every_byte() {
        let server = Server::start(Arc::new(echo)).unwrap();
        let request = Request::new("GET", "/x").raw(b"X-Odd", b"\xff\x80");
        let saw = seen(&request.send(server.address).unwrap()).unwrap();
        assert_eq!(saw.start, "GET /x HTTP/1.1");
        assert_eq!(saw.bytes(), request.bytes());
    }
}
