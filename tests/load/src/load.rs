//! Clients that keep a limiter busy and log every request: when it was sent, when it was answered, with what. A
//! bounded number of kept connections, each with one request on its way, all in one thread of their own.
//!
//! A connection that breaks under a request says nothing about it: the client asks again, at the next address, as
//! a client that waits for an answer would. The log has the request that was answered; what a broken one may have
//! been charged is nobody's answer. Knows no limits: [`crate::checker`] judges the log.

pub mod grpc;
mod wire;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use tokio::task::LocalSet;

use crate::checker::{Entry, Outcome};

/// Between two attempts at one request: a restart is waited for, not hammered.
const AGAIN: Duration = Duration::from_millis(5);

/// The one clock of all clients whose entries are judged together.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

/// One kind of request.
#[derive(Debug, Clone)]
pub struct Way {
    /// Whose limit it is charged to, in the log.
    pub key: u32,
    /// The whole HTTP/1.1 request.
    pub request: Arc<[u8]>,
    /// Reads an answer.
    pub read: Read,
}

/// The meaning of a status and a body.
pub type Read = fn(u16, &[u8]) -> Outcome;

/// What clients do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where they connect: each begins at another of these.
    pub targets: Vec<SocketAddr>,
    /// What they ask, in turn.
    pub ways: Vec<Way>,
    /// How many clients there are.
    pub clients: usize,
    /// The least time between two requests of one client.
    pub pace: Duration,
    /// Requests per second of all clients together, each due at its own moment whatever became of those before: it is
    /// sent when a client is free, and its time counts from when it was due. `None`: as fast as answers come.
    pub rate: Option<u32>,
    /// A request that has no answer by then, whatever was tried, is lost.
    pub patience: Duration,
    /// At most this many requests.
    pub requests: u64,
}

/// What the clients saw.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// Every request.
    pub entries: Vec<Entry>,
    /// How many more were sent whose connection broke.
    pub cut: u64,
}

/// Running clients. Dropped, they stop after the request that is on its way.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Log>>>,
}

// === impl Clock ===

impl Clock {
    /// It begins now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Since its start.
    pub fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

// === impl Plan ===

impl Plan {
    /// 64 clients without a pause, until they are stopped.
    pub fn new(targets: Vec<SocketAddr>, ways: Vec<Way>) -> Self {
        Self {
            targets,
            ways,
            clients: 64,
            pace: Duration::ZERO,
            rate: None,
            patience: Duration::from_secs(10),
            requests: u64::MAX,
        }
    }

    /// Starts the clients.
    pub fn start(self, clock: Clock) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, clients(self, clock, ended))
        });
        Load { stop, thread: Some(thread) }
    }

    /// Runs the clients for `span`, or until all requests are sent.
    pub fn run(self, clock: Clock, span: Duration) -> Result<Log> {
        let end = Instant::now() + span;
        let mut load = self.start(clock);
        while Instant::now() < end && !load.is_done() {
            std::thread::sleep(Duration::from_millis(2));
        }
        load.stop()
    }
}

// === impl Load ===

impl Load {
    /// Whether all requests are sent and answered.
    pub fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the clients after the requests that are on their way; what they saw.
    pub fn stop(&mut self) -> Result<Log> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().context("stopped twice")?;
        thread.join().map_err(|_| anyhow!("the clients broke"))?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

impl Log {
    /// With what other clients saw by the same clock.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.entries.extend(other.entries);
        self.cut += other.cut;
        self
    }
}

async fn clients(plan: Plan, clock: Clock, stop: Arc<AtomicBool>) -> Result<Log> {
    let (plan, sent) = (Arc::new(plan), Arc::new(AtomicU64::new(0)));
    let clock = (clock, clock.now());
    let tasks: Vec<_> = (0..plan.clients)
        .map(|index| {
            let (plan, stop, sent) = (Arc::clone(&plan), Arc::clone(&stop), Arc::clone(&sent));
            tokio::task::spawn_local(client(plan, index, clock, stop, sent))
        })
        .collect();
    let mut log = Log::default();
    for task in tasks {
        log = log.and(task.await.context("a client broke")?);
    }
    Ok(log)
}

/// When the request of this number is due, after the first.
fn due(number: u64, rate: u32) -> Duration {
    Duration::from_secs(number) / rate.max(1)
}

async fn client(
    plan: Arc<Plan>,
    index: usize,
    (clock, first_due): (Clock, Duration),
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
) -> Log {
    let mut log = Log::default();
    let mut connection = None;
    let (mut at, mut turn) = (index, index);
    while !stop.load(Ordering::Relaxed) {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        if number >= plan.requests {
            break;
        }
        let due = plan.rate.map(|rate| first_due + due(number, rate));
        if let Some(due) = due {
            // Each of its own, whichever client sends it.
            turn = usize::try_from(number).unwrap_or(turn);
            tokio::time::sleep(due.saturating_sub(clock.now())).await;
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        let Some(way) = plan.ways.get(turn % plan.ways.len().max(1)) else { break };
        turn += 1;
        let began = due.unwrap_or_else(|| clock.now());
        let asked = ask(&plan, way, &clock, &mut connection, &mut at, &mut log.cut);
        let entry = match tokio::time::timeout(plan.patience, asked).await {
            Ok(entry) => Entry { sent: due.unwrap_or(entry.sent), ..entry },
            Err(_) => {
                connection = None;
                let answered = clock.now();
                Entry { key: way.key, sent: began, answered, outcome: Outcome::Lost }
            }
        };
        log.entries.push(entry);
        let rest = (began + plan.pace).saturating_sub(clock.now());
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
    }
    log
}

/// Asks until somebody answers.
async fn ask(
    plan: &Plan,
    way: &Way,
    clock: &Clock,
    connection: &mut Option<wire::Connection>,
    at: &mut usize,
    cut: &mut u64,
) -> Entry {
    loop {
        let sent = clock.now();
        match attempt(plan, way, connection, *at).await {
            Ok(outcome) => {
                return Entry { key: way.key, sent, answered: clock.now(), outcome };
            }
            Err(_) => {
                *connection = None;
                *at += 1;
                *cut += 1;
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn attempt(
    plan: &Plan,
    way: &Way,
    connection: &mut Option<wire::Connection>,
    at: usize,
) -> Result<Outcome> {
    let open = match connection {
        Some(open) => open,
        None => {
            let target = plan.targets.get(at % plan.targets.len().max(1)).context("no target")?;
            connection.insert(wire::Connection::open(*target).await?)
        }
    };
    let (status, body) = open.exchange(&way.request).await?;
    Ok((way.read)(status, body))
}

/// Reads an answer of the sidecar's `/v1/check`.
pub fn check_answer(status: u16, body: &[u8]) -> Outcome {
    let says = |text: &[u8]| body.windows(text.len()).any(|part| part == text);
    match status {
        200 if says(br#""allowed":true"#) => Outcome::Allowed,
        200 if says(br#""allowed":false"#) => Outcome::Denied,
        _ => Outcome::Unavailable,
    }
}

/// Reads an answer that came through the gateway.
pub fn gateway_answer(status: u16, _body: &[u8]) -> Outcome {
    match status {
        200..=299 => Outcome::Allowed,
        429 => Outcome::Denied,
        _ => Outcome::Unavailable,
    }
}

#[cfg(test)]
mod tests;
