//! Stands where Envoy mirrors requests to, and keeps their heads byte by byte: what the upstream really gets.
//! Knows nothing of what should be in them.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{
    http,
    stack::{
        envoy::CAPTURE,
        instance::{Instance, url},
    },
};

const MAX_HEAD_BYTES: usize = 64 << 10;

/// A listener that keeps what comes. The mirror is on for as long as it lives.
pub struct Capture {
    admin: String,
    heads: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Listens and turns the mirror on.
    pub fn begin(instance: &Instance) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", instance.ports.capture))
            .context("listening where Envoy mirrors to")?;
        listener.set_nonblocking(true).context("listening without blocking")?;
        let (heads, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (heads, stop) = (Arc::clone(&heads), Arc::clone(&stop));
            move || serve(&listener, &heads, &stop)
        });
        let capture =
            Self { admin: url(instance.ports.envoy_admin), heads, stop, thread: Some(thread) };
        capture.mirror(100)?;
        Ok(capture)
    }

    fn mirror(&self, percent: u32) -> anyhow::Result<()> {
        let page = format!("{}/runtime_modify?{CAPTURE}={percent}", self.admin);
        let answer = http::send("POST", &page, &[], &[])?;
        anyhow::ensure!(answer.status == 200, "{page} answered {}", answer.status);
        Ok(())
    }

    /// The header fields of the request whose line has `mark`, names in lower case.
    pub fn fields(&self, mark: &str) -> anyhow::Result<Vec<(String, String)>> {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let found = {
                let heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
                heads
                    .iter()
                    .find(|head| head.lines().next().is_some_and(|line| line.contains(mark)))
                    .cloned()
            };
            if let Some(head) = found {
                return Ok(head.lines().skip(1).filter_map(http::field).collect());
            }
            anyhow::ensure!(Instant::now() < until, "the upstream did not get {mark} within 5 s");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Err(error) = self.mirror(0) {
            eprintln!("xtask: turning the mirror off: {error:#}");
        }
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It cannot panic; if it did, what it kept was read already.
            drop(thread.join());
        }
    }
}

fn serve(listener: &TcpListener, heads: &Mutex<Vec<String>>, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Some(head) = head_of(stream) {
                    heads.lock().unwrap_or_else(PoisonError::into_inner).push(head);
                }
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Reads one request's head and answers it. The connection is closed, so that the next one is seen too.
fn head_of(mut stream: TcpStream) -> Option<String> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while !bytes.windows(4).any(|four| four == b"\r\n\r\n") && bytes.len() < MAX_HEAD_BYTES {
        match stream.read(&mut chunk).ok()? {
            0 => break,
            n => bytes.extend_from_slice(chunk.get(..n)?),
        }
    }
    // Nobody waits for this answer.
    drop(stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"));
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
