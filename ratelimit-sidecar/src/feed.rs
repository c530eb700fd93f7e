//! `GET /v1/changes`: what filters and we must no longer believe (design §3.1). One loop reads Redis for all filters
//! beside us; their questions are answered from memory.
//!
//! What is remembered here is only as good as the feed is alive: without a heartbeat of at most 5 s by Redis' clock
//! nothing may be concluded from what the feed does not say. Knows no principal and no key.

mod denied;

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{
    TenantId,
    sidecar::{Change, ChangesAnswer},
};
use gatehouse_redis_kit::{
    Error,
    feed::{Feed as Read, News, Reader, Reading},
};
use gatehouse_service::{Reply, Shutdown, exit::chain};
use serde::Deserialize;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use self::denied::DenyList;
use crate::{
    app::{App, json},
    store::Store,
};

/// How often Redis is read.
const EVERY: Duration = Duration::from_millis(100);
/// How old the relay's heartbeat may be.
pub const ALIVE: Duration = Duration::from_secs(5);
/// Changes that are kept for filters that are behind: some 2 MB.
const KEPT: usize = 10_000;
/// Changes of one answer: some 200 KB.
const ANSWER: usize = 1000;

/// The feed as this sidecar knows it.
#[derive(Clone, Default)]
pub struct Feed(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    epoch: Option<String>,
    /// The last change that was read.
    sequence: u64,
    changes: VecDeque<Change>,
    denied: DenyList,
    /// The last heartbeat, by our monotonic clock.
    beat: Option<Instant>,
}

/// What a reading brought that others must hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Everything that is remembered is old.
    Everything,
    /// Something of it.
    Changes(Vec<Change>),
}

#[derive(Deserialize)]
pub struct Ask {
    epoch: Option<String>,
    #[serde(default)]
    after: u64,
}

impl Feed {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The epoch, while the feed is alive.
    pub fn live_epoch(&self) -> Option<String> {
        let known = self.read();
        known.epoch.clone().filter(|_| known.is_alive(Instant::now()))
    }

    /// Whether a token of this mark is denied. Final only while the feed is alive.
    pub fn denies_token(&self, mark: &str) -> bool {
        self.read().denied.has_token(mark)
    }

    /// Whether a token of this subject that was issued then is denied. Final only while the feed is alive.
    pub fn denies_issue(&self, tenant: TenantId, subject: &str, issued_at_s: Option<u64>) -> bool {
        self.read().denied.has_issue(tenant, subject, issued_at_s)
    }

    /// Entries of the deny list, and the age of the last heartbeat in seconds.
    pub fn figures(&self) -> (bool, usize, Option<f64>) {
        let (known, now) = (self.read(), Instant::now());
        let age = known.beat.map(|beat| now.saturating_duration_since(beat).as_secs_f64());
        (known.is_alive(now), known.denied.len(), age)
    }

    /// Reads Redis once, so that what begins after it need not be begun again for the first snapshot's sake.
    pub async fn begin(&self, reader: &Reader, tell: &impl Fn(&Heard)) {
        self.step(reader, tell).await;
    }

    /// Reads Redis until the shutdown and hands what it hears to `tell`, before filters can hear it.
    pub async fn follow(self, reader: Reader, tell: impl Fn(&Heard), shutdown: Shutdown) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_alive = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.requested() => return,
            }
            // More may be waiting than one reading brings.
            while self.step(&reader, &tell).await {}
            let is_alive = self.live_epoch().is_some();
            match (was_alive, is_alive) {
                (false, true) => info!("the change feed is alive"),
                (true, false) => warn!("the change feed is silent: every credential is asked for"),
                _ => {}
            }
            was_alive = is_alive;
        }
    }

    /// One reading; true when there may be more at once.
    async fn step(&self, reader: &Reader, tell: &impl Fn(&Heard)) -> bool {
        let (epoch, after) = {
            let known = self.read();
            (known.epoch.clone(), known.sequence)
        };
        let asked = Instant::now();
        let read = reader.read(epoch.as_deref(), after).await;
        self.take(read, asked, tell)
    }

    fn take(&self, read: Result<Reading, Error>, asked: Instant, tell: impl Fn(&Heard)) -> bool {
        match read {
            Ok(Reading::Feed(read)) => {
                let heard = match &read.news {
                    News::Snapshot(_) => Heard::Everything,
                    News::Changes(changes) => Heard::Changes(changes.clone()),
                };
                let count = match &heard {
                    Heard::Everything => None,
                    Heard::Changes(changes) => Some(changes.len()),
                };
                let mut known = self.write();
                known.hear(read, asked);
                // Under the lock: nobody hears of a change from us before everybody here has.
                if count != Some(0) {
                    tell(&heard);
                }
                count.is_some_and(|count| count >= ANSWER)
            }
            Ok(Reading::None | Reading::WentBack) => {
                // Its data is not what it was: nothing of it may be believed until there is a new epoch.
                self.write().beat = None;
                false
            }
            Err(error) => {
                // The heartbeat ages by itself. One line per change of state is written by the loop.
                tracing::debug!(error = %chain(&error), "the change feed cannot be read");
                false
            }
        }
    }

    fn answer(&self, ask: &Ask) -> ChangesAnswer {
        let known = self.read();
        let mut answer = ChangesAnswer {
            epoch: known.epoch.clone().unwrap_or_default(),
            sequence: known.sequence,
            alive: known.epoch.is_some() && known.is_alive(Instant::now()),
            changes: Vec::new(),
            snapshot: None,
            keys: std::collections::BTreeMap::new(),
        };
        match known.after(ask) {
            Some(changes) => {
                answer.changes = changes;
                if ask.after + (answer.changes.len() as u64) < known.sequence {
                    answer.sequence = ask.after + answer.changes.len() as u64;
                }
            }
            None => answer.snapshot = Some(known.denied.list()),
        }
        answer
    }
}

impl Known {
    fn is_alive(&self, now: Instant) -> bool {
        self.beat.is_some_and(|beat| now.saturating_duration_since(beat) <= ALIVE)
    }

    fn hear(&mut self, read: Read, asked: Instant) {
        // Older than it was, if anything: the answer took its time.
        self.beat = read.heartbeat_age.and_then(|age| asked.checked_sub(age));
        self.sequence = read.sequence;
        match read.news {
            News::Snapshot(denied) => {
                self.epoch = Some(read.epoch);
                self.changes.clear();
                self.denied = DenyList::from_entries(denied);
            }
            News::Changes(changes) => {
                for change in changes {
                    if let Change::Deny(denied) = &change {
                        self.denied.add(denied.clone());
                    }
                    self.changes.push_back(change);
                }
                while self.changes.len() > KEPT {
                    self.changes.pop_front();
                }
            }
        }
    }

    /// The changes after the asked one, at most [`ANSWER`]; `None` when that cannot be told.
    fn after(&self, ask: &Ask) -> Option<Vec<Change>> {
        if self.epoch.is_none() || ask.epoch != self.epoch {
            return None;
        }
        let missed = usize::try_from(self.sequence.checked_sub(ask.after)?).ok()?;
        let skipped = self.changes.len().checked_sub(missed)?;
        Some(self.changes.iter().skip(skipped).take(ANSWER).cloned().collect())
    }
}

pub async fn changes<S: Store>(
    State(app): State<App<S>>,
    ask: Result<Query<Ask>, QueryRejection>,
) -> Response {
    let Ok(Query(ask)) = ask else {
        return Reply::mistake("$.after", "not a sequence", "write epoch=EPOCH&after=SEQUENCE")
            .into_response();
    };
    let mut answer = app.feed.answer(&ask);
    answer.keys = app.keysets.generations();
    json(&answer)
}

#[cfg(test)]
mod tests;
