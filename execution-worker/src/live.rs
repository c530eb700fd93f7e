//! What goes out of a run while it goes on: its log, part by part into Redis for those who look on, sealed; and the warning
//! that its time runs out. Neither may hold up the run or its report: what Redis or the database cannot take is left out, and
//! the end of the log is kept with the attempt's end all the same.
//! Knows nothing of what a log says, and writes none of it into ours.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use gatehouse_redis_kit::logs::{Logs, PART_BYTES, Part, Place};
use gatehouse_service::exit::chain;
use gatehouse_store::{OffsetDateTime, OpCtx, Store, logs::LogSeal, sweep::Held};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, timeout_at},
};
use tracing::{debug, warn};

/// How long what was said is gathered before it goes out: with [`PART_BYTES`], how much of one run goes out in a second.
const GATHER: Duration = Duration::from_millis(100);
/// How long the begin of a line waits for its end.
const LINE: Duration = Duration::from_secs(1);
/// Parts that wait at most; beyond that what is said is left out. Each is one read of the pipe.
const WAITING: usize = 16;
/// A log that says nothing is kept by saying so.
const KEEP: Duration = Duration::from_secs(60);
/// After what could not be done.
const AGAIN: Duration = Duration::from_secs(1);

/// What was said, and the number of its first byte.
#[derive(Debug)]
pub struct Heard {
    pub from: u64,
    pub bytes: Vec<u8>,
}

/// Where a run's log goes while it goes on.
pub type Say = mpsc::Sender<Heard>;

/// The running logs of this worker.
#[derive(Clone)]
pub struct Live {
    logs: Option<Logs>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    told_bytes: AtomicU64,
    dropped_bytes: AtomicU64,
}

/// What was gathered of a log and did not go out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Gathered {
    from: u64,
    bytes: Vec<u8>,
}

/// Both ends of a run's log.
pub fn channel() -> (Say, mpsc::Receiver<Heard>) {
    mpsc::channel(WAITING)
}

// === impl Live ===

impl Live {
    /// Into `logs`; nowhere where there is none.
    pub fn new(logs: Option<Logs>) -> Self {
        Self { logs, counts: Arc::default() }
    }

    /// Tells what is heard of a run. Never ends: the run's end ends it, whatever is left then.
    pub async fn tell(
        &self,
        store: &Store,
        op: &OpCtx,
        held: Held,
        mut heard: mpsc::Receiver<Heard>,
    ) {
        let place =
            Place { tenant: held.tenant, execution: held.execution, epoch: held.lease_epoch };
        let (mut gathered, mut seal) = (Gathered::default(), None);
        let Some(logs) = self.logs.as_ref() else {
            // Nothing waits where nobody takes it.
            drop(heard);
            return std::future::pending().await;
        };
        loop {
            let first = if gathered.bytes.is_empty() {
                tokio::select! {
                    first = heard.recv() => first,
                    () = sleep(KEEP) => {
                        drop(logs.keep(&place).await);
                        continue;
                    }
                }
            } else {
                // The begin of a line.
                match timeout_at(Instant::now() + LINE, heard.recv()).await {
                    Ok(more) => more,
                    Err(_) => {
                        let part = gathered.all();
                        self.send(logs, store, op, (place, &mut seal), part).await;
                        continue;
                    }
                }
            };
            let Some(first) = first else { return std::future::pending().await };
            let mut next = Some(first);
            let until = Instant::now() + GATHER;
            while let Some(said) = next.take() {
                let missed = said.from.saturating_sub(gathered.end());
                self.counts.dropped_bytes.fetch_add(missed, Relaxed);
                if let Some(part) = gathered.add(said) {
                    self.send(logs, store, op, (place, &mut seal), part).await;
                }
                if gathered.bytes.len() < PART_BYTES {
                    next = timeout_at(until, heard.recv()).await.ok().flatten();
                }
            }
            if let Some(part) = gathered.lines() {
                self.send(logs, store, op, (place, &mut seal), part).await;
            }
            // However much is said, so much goes out at a time.
            tokio::time::sleep_until(until).await;
        }
    }

    async fn send(
        &self,
        logs: &Logs,
        store: &Store,
        op: &OpCtx,
        (place, seal): (Place, &mut Option<LogSeal>),
        part: Gathered,
    ) {
        let bytes = part.bytes.len() as u64;
        let sent = async {
            let seal = match seal {
                Some(seal) => seal,
                None => seal.insert(store.log_seal(op).await.map_err(|error| chain(&error))?),
            };
            let at = (place.execution, place.epoch, part.from);
            let sealed = seal.seal(at, &part.bytes).map_err(|error| chain(&error))?;
            let now_s = u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0);
            let part = Part { from: part.from, end: part.from.saturating_add(bytes), sealed };
            logs.add(&place, &part, now_s).await.map_err(|error| chain(&error))
        };
        match sent.await {
            Ok(()) => drop(self.counts.told_bytes.fetch_add(bytes, Relaxed)),
            Err(error) => {
                debug!(execution.id = %place.execution, error, "a part of a running log is left out");
                self.counts.dropped_bytes.fetch_add(bytes, Relaxed);
                sleep(AGAIN).await;
            }
        }
    }

    /// How many bytes of running logs went to Redis, and how many were left out.
    pub fn bytes(&self) -> (u64, u64) {
        (self.counts.told_bytes.load(Relaxed), self.counts.dropped_bytes.load(Relaxed))
    }
}

/// Tells that a run's time runs out, when it is said to; again and again while the database is away. Never ends.
pub async fn warn_of_its_end(store: &Store, op: &OpCtx, held: Held, runs_out: &Notify) {
    runs_out.notified().await;
    loop {
        let told = async {
            let mut tx = store.tenant(op).await?;
            tx.warn_execution(held.execution, held.lease_epoch).await?;
            tx.commit().await
        };
        match told.await {
            Ok(()) => break,
            Err(error) if error.is_unavailable() => sleep(AGAIN).await,
            Err(error) => {
                warn!(execution.id = %held.execution, error = %chain(&error),
                    "nobody was told that its time runs out");
                break;
            }
        }
    }
    std::future::pending().await
}

// === impl Gathered ===

impl Gathered {
    /// The number of the byte behind it.
    const fn end(&self) -> u64 {
        self.from.saturating_add(self.bytes.len() as u64)
    }

    /// Adds what was said; what was gathered before something that was not heard goes out as it is.
    fn add(&mut self, said: Heard) -> Option<Self> {
        let before = (said.from != self.end() && !self.bytes.is_empty()).then(|| self.all());
        if self.bytes.is_empty() {
            self.from = said.from;
        }
        self.bytes.extend(said.bytes);
        before
    }

    /// What is whole of it: up to the last end of a line; all where a line is too long.
    fn lines(&mut self) -> Option<Self> {
        match self.bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => Some(self.first(end + 1)),
            None if self.bytes.len() >= PART_BYTES => Some(self.all()),
            None => None,
        }
    }

    /// All but the begin of a character.
    fn all(&mut self) -> Self {
        let cut = match std::str::from_utf8(&self.bytes) {
            Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
                error.valid_up_to()
            }
            _ => self.bytes.len(),
        };
        self.first(cut)
    }

    fn first(&mut self, count: usize) -> Self {
        let rest = self.bytes.split_off(count.min(self.bytes.len()));
        let bytes = std::mem::replace(&mut self.bytes, rest);
        let from = self.from;
        self.from = from.saturating_add(bytes.len() as u64);
        Self { from, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(from: u64, bytes: &[u8]) -> Gathered {
        Gathered { from, bytes: bytes.to_vec() }
    }

    #[test]
    fn whole_lines_go_out_and_the_begin_of_one_waits() {
        let mut all = Gathered::default();
        assert_eq!(all.add(Heard { from: 0, bytes: b"one\ntw".to_vec() }), None);
        assert_eq!(all.lines(), Some(gathered(0, b"one\n")));
        assert_eq!(all.lines(), None);
        assert_eq!(all.add(Heard { from: 6, bytes: b"o\n".to_vec() }), None);
        assert_eq!(all.lines(), Some(gathered(4, b"two\n")));
        assert_eq!(all, gathered(8, b""));
    }

    #[test]
    fn what_was_not_heard_is_a_gap_and_nothing_is_moved_into_it() {
        let mut all = gathered(8, b"be");
        let before = all.add(Heard { from: 100, bytes: b"hind\n".to_vec() });
        assert_eq!(before, Some(gathered(8, b"be")));
        assert_eq!(all.lines(), Some(gathered(100, b"hind\n")));
    }

    #[test]
    fn a_line_without_an_end_goes_out_in_pieces_that_cut_no_character() {
        let mut long = vec![b'x'; PART_BYTES - 1];
        long.extend("é".as_bytes().first());
        let mut all = gathered(0, &long);
        let part = all.lines().unwrap();
        assert_eq!((part.bytes.len(), all.bytes.as_slice()), (PART_BYTES - 1, &[0xc3_u8][..]));
        // What is no text at all is cut anywhere.
        let mut all = gathered(0, &[0x80; PART_BYTES]);
        assert_eq!(all.lines().unwrap().bytes.len(), PART_BYTES);
    }
}
