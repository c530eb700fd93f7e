//! A log as it comes: what is there of the attempt that was asked for, then line by line, from Redis while it runs and from
//! what is kept of it when it has ended, then the next attempt's, until the execution is settled. What is nowhere any more is
//! said to be missing.

use axum::{
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{ExecutionId, Reason, TenantId};
use gatehouse_redis_kit::logs::Place;
use gatehouse_service::{Reply, exit::chain};
use gatehouse_store::{
    Error, OpCtx,
    logs::{LogSeal, Run},
};
use serde_json::json;
use tracing::debug;

use super::lines::pieces;
use crate::{
    routes::{
        Api, refused,
        streams::{
            foreign,
            sse::{self, Frames, Source, Step},
        },
    },
    watchers::{Closed, Watching, rights::Right},
};

/// A stream of lines that goes on.
struct Following {
    api: Api,
    op: OpCtx,
    id: ExecutionId,
    seal: LogSeal,
    /// The claim whose log is shown; 0 before the first.
    epoch: u64,
    /// The number of the byte behind what was shown of it.
    end: u64,
    /// Whether its attempt has ended and all that was kept of it was shown.
    done: bool,
    stand: Stand,
    /// Whether something happened since `run` was read.
    told: bool,
    /// As it was when `events` last told of something.
    run: Run,
    events: Watching<(TenantId, ExecutionId)>,
    seen: u64,
    live: Option<Watching<Place>>,
    right: Right,
}

/// The answer; what can be refused is refused before it begins.
pub async fn begin(
    api: Api,
    op: OpCtx,
    id: ExecutionId,
    (attempt, from): (Option<u32>, Option<(u64, u64)>),
    parts: Parts,
) -> Result<Response, Reply> {
    let events = api.watchers.watch((op.tenant, id))?;
    let seen = events.read(api.store.executions_beyond(&[(events.key(), 0)])).await;
    let seen = seen.map_err(refused)?.first().map_or(0, |(_, seen)| *seen);
    let mut tx = api.store.tenant(&op).await.map_err(refused)?;
    let run = tx.last_run(id).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    let seal = tx.log_seal().await.map_err(refused)?;
    let heads = tx.logs(id).await.map_err(refused)?;
    drop(tx);
    let (epoch, end) = match (from, attempt) {
        (Some((epoch, _)), _) if epoch > run.lease_epoch => return Err(foreign()),
        (Some(position), _) => position,
        (None, Some(attempt)) => {
            let kept = heads.iter().find(|head| head.attempt == attempt);
            let kept = kept.map(|head| head.lease_epoch);
            let runs = (run.attempt == attempt && run.running).then_some(run.lease_epoch);
            // One that has not begun is waited for.
            let later = (attempt > run.attempt && !run.settled).then_some(run.lease_epoch);
            (runs.or(kept).or(later).ok_or(Reason::NotFound)?, 0)
        }
        (None, None) => (run.lease_epoch, 0),
    };
    let right = api.rights.hold(parts);
    let mut following = Following {
        api,
        op,
        id,
        seal,
        epoch,
        end,
        done: false,
        stand: Stand::More,
        told: false,
        run,
        events,
        seen,
        live: None,
        right,
    };
    let mut frames = Frames::begin();
    let before = (following.epoch, following.end);
    while following.stand == Stand::More && before == (following.epoch, following.end) {
        following.catch_up(&mut frames).await.map_err(refused)?;
    }
    let same = before == (following.epoch, following.end);
    match following.stand {
        Stand::More | Stand::Waits => Ok(sse::answer(frames, Some(following))),
        // Who has all is told to come no more.
        Stand::Over if from.is_some() && same => Ok(StatusCode::NO_CONTENT.into_response()),
        Stand::Over => {
            following.end_of_all(&mut frames);
            Ok(sse::answer(frames, None::<Following>))
        }
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// There is more already.
    More,
    /// Nothing, before something happens.
    Waits,
    /// Nothing any more.
    Over,
}

/// Why it goes on.
enum Woken {
    News,
    Nothing,
    End,
}

impl Source for Following {
    async fn next(mut self) -> Step<Self> {
        match self.woken().await {
            Woken::News => {}
            Woken::Nothing => return Step::Go(Frames::heartbeat(), self),
            Woken::End => return Step::Over,
        }
        if !self.right.stands(&self.api).await {
            return Step::Over;
        }
        let mut frames = Frames::default();
        match self.catch_up(&mut frames).await {
            Ok(Stand::Over) => {
                self.end_of_all(&mut frames);
                Step::Last(frames)
            }
            Ok(Stand::More | Stand::Waits) => Step::Go(frames, self),
            Err(error) => {
                debug!(execution.id = %self.id, error = %chain(&error), "a stream ends early");
                Step::Over
            }
        }
    }
}

impl Following {
    async fn woken(&mut self) -> Woken {
        if self.stand == Stand::More {
            return Woken::News;
        }
        let (end, live) = (self.end, self.live.as_mut());
        let grown = async {
            match live {
                Some(live) => live.beyond(end).await,
                // The attempt's end will say all.
                None => std::future::pending().await,
            }
        };
        let moved = tokio::select! {
            () = self.right.lost() => Err(Closed),
            moved = self.events.beyond(self.seen) => moved.map(Some),
            moved = grown => moved.map(|_| None),
            () = sse::quiet() => return Woken::Nothing,
        };
        match moved {
            Ok(seen) => {
                self.seen = seen.unwrap_or(self.seen);
                self.told = seen.is_some();
                Woken::News
            }
            Err(Closed) => Woken::End,
        }
    }

    /// Shows what comes next.
    async fn catch_up(&mut self, frames: &mut Frames) -> Result<Stand, Error> {
        if std::mem::take(&mut self.told) {
            let read = async { self.api.store.tenant(&self.op).await?.last_run(self.id).await };
            // One that is gone has ended.
            let Some(run) = self.events.read(read).await? else { return Ok(Stand::Over) };
            self.run = run;
        }
        let last = self.epoch == self.run.lease_epoch;
        if last && self.run.running {
            self.done = false;
            self.of_live(frames).await;
            self.stand = Stand::Waits;
        } else if self.epoch > 0 && !self.done {
            self.of_kept(frames).await?;
            self.done = true;
            self.stand = Stand::More;
        } else if !last {
            self.next_attempt();
            self.stand = Stand::More;
        } else {
            self.stand = if self.run.settled { Stand::Over } else { Stand::Waits };
        }
        Ok(self.stand)
    }

    fn next_attempt(&mut self) {
        self.epoch += 1;
        self.end = 0;
        self.done = false;
        self.live = None;
    }

    /// What is kept of an attempt that has ended; of one whose worker was lost what it said of late.
    async fn of_kept(&mut self, frames: &mut Frames) -> Result<(), Error> {
        let (id, epoch) = (self.id, self.epoch);
        let read = async { self.api.store.tenant(&self.op).await?.log_of(id, epoch).await };
        match self.events.read(read).await? {
            Some(log) => {
                let from = log.total_bytes.saturating_sub(log.bytes.len() as u64);
                self.show(frames, from, &log.bytes);
            }
            None => while self.parts(frames).await {},
        }
        self.live = None;
        Ok(())
    }

    async fn of_live(&mut self, frames: &mut Frames) {
        if self.live.is_none()
            && let Some(live) = &self.api.live
        {
            // Where too many wait it is shown at its end.
            self.live = live.watchers.watch(self.place()).ok();
        }
        // The rest is still to be looked for.
        self.parts(frames).await;
        if let Some(live) = &self.live {
            live.saw(self.end);
        }
    }

    /// The next parts in Redis. Whether any were there.
    async fn parts(&mut self, frames: &mut Frames) -> bool {
        let Some(live) = &self.api.live else { return false };
        let before = self.end;
        let parts = match live.logs.behind(&self.place(), self.end).await {
            Ok(parts) => parts,
            Err(error) => {
                debug!(error = %chain(&error), "a running log cannot be read");
                return false;
            }
        };
        for part in parts {
            // What does not open is none of ours; it is missing, and said to be.
            let opened = self.seal.open((self.id, self.epoch, part.from), &part.sealed);
            if let Ok(bytes) = opened {
                self.show(frames, part.from, &bytes);
            }
        }
        self.end > before
    }

    /// The part of a log that begins at the byte `from`, as far as it was not shown.
    fn show(&mut self, frames: &mut Frames, from: u64, bytes: &[u8]) {
        let attempt = self.run.attempt;
        let attempt = if self.epoch == self.run.lease_epoch { Some(attempt) } else { None };
        if from > self.end {
            let missing = from - self.end;
            let data =
                json!({"lease_epoch": self.epoch, "attempt": attempt, "dropped_bytes": missing});
            frames.add(&format!("{}-{from}", self.epoch), "dropped", &data);
            self.end = from;
        }
        for piece in pieces(from, bytes, self.end) {
            let data = json!({"lease_epoch": self.epoch, "attempt": attempt, "text": piece.text,
                "partial": piece.partial});
            frames.add(&format!("{}-{}", self.epoch, piece.end), "line", &data);
            self.end = piece.end;
        }
    }

    fn end_of_all(&self, frames: &mut Frames) {
        let data = json!({"lease_epoch": self.epoch, "total_bytes": self.end});
        frames.add(&format!("{}-{}", self.epoch, self.end), "end", &data);
    }

    const fn place(&self) -> Place {
        Place { tenant: self.op.tenant, execution: self.id, epoch: self.epoch }
    }
}
