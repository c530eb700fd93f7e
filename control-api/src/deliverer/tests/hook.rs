//! An HTTPS endpoint of a test: takes what is posted, keeps it, and answers as it was told to.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::world::{Authority, acceptor, until};

/// What it does with a request.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// Status and header fields, without the version and the empty line.
    Head(&'static str),
    /// These bytes.
    Raw(&'static str),
    /// Nothing, and keeps the connection.
    Hang,
    /// A byte now and then.
    Drip,
    /// A hundred megabytes.
    Flood,
    /// 204 once it is released.
    Wait,
}

/// What came.
#[derive(Debug, Clone)]
pub struct Request {
    pub head: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Request>>,
    answers: Mutex<VecDeque<Answer>>,
    connections: AtomicUsize,
    now: AtomicUsize,
    at_once: AtomicUsize,
    flooded: AtomicUsize,
}

pub struct Hook {
    pub at: SocketAddr,
    seen: Arc<Seen>,
    gate: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Hook {
    /// Answers one after another like this, and then always like the last.
    pub async fn start(authority: &Authority, answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        seen.answers.lock().unwrap().extend(answers);
        let gate = Arc::new(Semaphore::new(0));
        let acceptor = acceptor(authority);
        let (of, opens) = (Arc::clone(&seen), Arc::clone(&gate));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                of.connections.fetch_add(1, SeqCst);
                // Ends with its connection; that somebody hangs up is what some tests are about.
                tokio::spawn(serve(acceptor.clone(), stream, Arc::clone(&of), Arc::clone(&opens)));
            }
        });
        Self { at, seen, gate, task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.at.port())
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap().clone()
    }

    pub async fn received(&self, count: usize) -> Vec<Request> {
        until(|| self.seen.requests.lock().unwrap().len() >= count).await;
        self.requests()
    }

    /// From now on.
    pub fn answers_now(&self, answer: Answer) {
        *self.seen.answers.lock().unwrap() = [answer].into();
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(SeqCst)
    }

    /// The most requests that were under way at a time.
    pub fn at_once(&self) -> usize {
        self.seen.at_once.load(SeqCst)
    }

    /// Bytes of a flood that somebody took.
    pub fn flooded(&self) -> usize {
        self.seen.flooded.load(SeqCst)
    }

    pub fn release(&self) {
        self.gate.add_permits(1);
    }

    pub fn stop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    seen: Arc<Seen>,
    gate: Arc<Semaphore>,
) -> io::Result<()> {
    let mut stream = BufReader::new(acceptor.accept(stream).await?);
    let request = read(&mut stream).await?;
    seen.at_once.fetch_max(seen.now.fetch_add(1, SeqCst) + 1, SeqCst);
    let answer = {
        let mut answers = seen.answers.lock().unwrap();
        if answers.len() > 1 { answers.pop_front() } else { answers.front().copied() }
    };
    seen.requests.lock().unwrap().push(request);
    let done = act(answer.unwrap(), &mut stream, &seen, &gate).await;
    seen.now.fetch_sub(1, SeqCst);
    done
}

async fn read(stream: &mut BufReader<TlsStream<TcpStream>>) -> io::Result<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut headers = HeaderMap::new();
    for line in &lines[1..] {
        let (name, value) = line.split_once(": ").unwrap();
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let mut body = vec![0; headers["content-length"].to_str().unwrap().parse().unwrap()];
    stream.read_exact(&mut body).await?;
    Ok(Request { head: lines.remove(0), headers, body })
}

async fn act(
    answer: Answer,
    stream: &mut BufReader<TlsStream<TcpStream>>,
    seen: &Seen,
    gate: &Semaphore,
) -> io::Result<()> {
    match answer {
        Answer::Head(head) => stream.write_all(format!("HTTP/1.1 {head}\r\n").as_bytes()).await?,
        Answer::Raw(bytes) => stream.write_all(bytes.as_bytes()).await?,
        // Until the other side hangs up.
        Answer::Hang => drop(stream.read_u8().await?),
        Answer::Drip => {
            for byte in b"HTTP/1.1 200 OK\r\n".iter().chain([b'x'].iter().cycle()) {
                stream.write_all(&[*byte]).await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Answer::Flood => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n").await?;
            let piece = vec![b'x'; 64 * 1024];
            for _ in 0..1600 {
                // Counted first: what nobody takes fails.
                seen.flooded.fetch_add(piece.len(), SeqCst);
                stream.write_all(&piece).await?;
            }
        }
        Answer::Wait => {
            if let Ok(permit) = gate.acquire().await {
                permit.forget();
            }
            stream.write_all(b"HTTP/1.1 204 X\r\n\r\n").await?;
        }
    }
    stream.shutdown().await
}
