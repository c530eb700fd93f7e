//! A recording reverse proxy on the wire between two real parts: what the gateway sends to an upstream goes
//! through unchanged, byte for byte, and stays to be looked at. Answers may be changed on the way back (a key set
//! that gains a test key). Plain threads, one connection at a time per thread, HTTP/1.1.

use std::{
    io::{BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;

use crate::http::Message;

/// Longer than any test: a proxy that ends kept connections first makes its clients fail.
const IDLE: Duration = Duration::from_secs(1800);

/// Changes an answer on its way back.
pub type Change = Arc<dyn Fn(&Message, Message) -> Message + Send + Sync>;

/// A running tap.
pub struct Tap {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Message>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Listens on a free port and passes everything on to `upstream`.
    pub fn start(upstream: SocketAddr, change: Option<Change>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (record, ended) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                let (record, change) = (Arc::clone(&record), change.clone());
                // A connection's thread ends with its peer or its time limit.
                std::thread::spawn(move || {
                    // An error is a peer that left; who misses an answer will say so.
                    drop(pass(client, upstream, &record, change.as_ref()));
                });
            }
        });
        Ok(Self { address, seen, stop, thread: Some(thread) })
    }

    /// The requests since the last time, in the order of their arrival.
    pub fn take(&self) -> Vec<Message> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees that it ends.
        drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn pass(
    client: TcpStream,
    upstream: SocketAddr,
    seen: &Mutex<Vec<Message>>,
    change: Option<&Change>,
) -> Result<()> {
    client.set_read_timeout(Some(IDLE))?;
    let mut back = client.try_clone()?;
    let mut from_client = BufReader::new(client);
    let server = TcpStream::connect(upstream)?;
    server.set_read_timeout(Some(IDLE))?;
    let mut to_server = server.try_clone()?;
    let mut from_server = BufReader::new(server);
    while let Some(request) = Message::read(&mut from_client, false)? {
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        to_server.write_all(&plain(&request).bytes())?;
        let bodiless = request.start.starts_with("HEAD ");
        let Some(answer) = Message::read(&mut from_server, bodiless)? else { return Ok(()) };
        let answer = match change {
            Some(change) => change(&request, answer),
            None => answer,
        };
        back.write_all(&if bodiless { answer.bytes() } else { plain(&answer).bytes() })?;
    }
    Ok(())
}

/// The same message with its body counted instead of chunked; trailers were recorded and end here.
fn plain(message: &Message) -> Message {
    let mut plain = message.clone();
    let chunked = !plain.headers.all("transfer-encoding").is_empty();
    if chunked || !plain.headers.all("content-length").is_empty() {
        plain.headers.remove(b"transfer-encoding");
        plain.headers.replace(b"content-length", plain.body.len().to_string().as_bytes());
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Request;

    #[test]
    fn records_what_passes_and_changes_what_comes_back() {
        let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let upstream = server.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            let (client, _) = server.accept().unwrap();
            let mut writer = client.try_clone().unwrap();
            let request = Message::read(&mut BufReader::new(client), false).unwrap().unwrap();
            writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").unwrap();
            request
        });
        let change: Change = Arc::new(|_, mut answer| {
            answer.body.push(b'!');
            answer
        });
        let tap = Tap::start(upstream, Some(change)).unwrap();
        let answer = Request::new("GET", "/x").header("X-Odd_Name", "1").send(tap.address).unwrap();
        assert_eq!((answer.status().unwrap(), answer.body.as_slice()), (200, &b"hi!"[..]));
        let there = serving.join().unwrap();
        let seen = tap.take();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].bytes(), there.bytes());
        assert_eq!(there.header("x-odd_name"), "1");
        assert!(tap.take().is_empty());
    }
}
