//! The relay's side of the feed. Knows no reader.

use std::{sync::Arc, time::Duration};

use gatehouse_contract::sidecar::{Change, Denied};
use redis::{Pipeline, aio::MultiplexedConnection, pipe};
use tokio::sync::Mutex;

use super::{
    CHANGES, DENIED, EPOCH, Entry, Error, FIELD, HEARTBEAT, KEPT, Position, deny, json, last_of,
    since_epoch,
};
use crate::{
    cred,
    link::{self, Address, Link},
};

/// Writes the feed, over a connection of its own: what it watches must be nobody else's to unwatch.
#[derive(Clone)]
pub struct Writer {
    link: Link,
    /// Held from the watching to the writing.
    turn: Arc<Mutex<()>>,
}

/// What was read under the watch.
type Stand = (Option<String>, Vec<Entry>, (u64, u64));

impl Writer {
    /// A writer to the Redis at `address`; every operation waits at most `deadline`. Connects on first use.
    ///
    /// # Errors
    /// [`link::Error::Address`].
    pub fn new(address: &Address, deadline: Duration) -> Result<Self, link::Error> {
        Ok(Self { link: Link::new(address, deadline)?, turn: Arc::default() })
    }

    /// Where the feed in Redis stands.
    ///
    /// # Errors
    /// See [`link::Error`].
    pub async fn state(&self) -> Result<Position, link::Error> {
        let _turn = self.turn.lock().await;
        let stand = self.link.run(self.link.deadline(), async |connection| watch(connection).await);
        Ok(position(stand.await?).0)
    }

    /// Begins a new epoch at sequence 0 with this deny list, in the place of whatever is there. Everything that was
    /// derived from the old epoch (cached facts, the completeness of the keys) is void with it. The feed is silent
    /// until the next [`Self::beat`].
    ///
    /// # Errors
    /// [`Error::Elsewhere`] when another relay wrote at the same time.
    pub async fn begin(&self, epoch: &str, denied: &[Denied]) -> Result<(), Error> {
        let denied =
            denied.iter().map(|one| Ok((one, json(one)?))).collect::<Result<Vec<_>, Error>>()?;
        self.write(
            |_| true,
            |write, _| {
                write.del((EPOCH, CHANGES, DENIED, HEARTBEAT, cred::COMPLETE)).ignore();
                for (denied, json) in denied {
                    deny(write, denied, json);
                }
                write.set(EPOCH, epoch).ignore();
            },
        )
        .await
    }

    /// Appends `changes` after the sequence `after` of `epoch` and answers with the sequence of the last one. In
    /// the same transaction, before they can be read, cached facts of the tenants and credentials that they name
    /// become void and tokens that they deny enter the deny list. All or nothing; a caller brings some hundreds at
    /// most.
    ///
    /// # Errors
    /// [`Error::Elsewhere`] when Redis does not stand at `after` of `epoch`. After [`link::Error::Late`] and
    /// [`link::Error::Unreachable`] they may have been written: [`Self::state`] tells.
    pub async fn publish(&self, epoch: &str, after: u64, changes: &[Change]) -> Result<u64, Error> {
        let mut entries = Vec::with_capacity(changes.len());
        for change in changes {
            let denied = match change {
                Change::Deny(denied) => Some((denied, json(denied)?)),
                _ => None,
            };
            entries.push((change, json(change)?, denied));
        }
        let last = after.saturating_add(u64::try_from(changes.len()).unwrap_or(u64::MAX));
        self.at(epoch, after, |write, now| {
            let (mut sequence, now_s) = (after, now.as_secs());
            for (change, _, denied) in &entries {
                cred::void(write, change, &format!("{epoch}:{last}"));
                if let Some((denied, json)) = denied {
                    deny(write, denied, json.clone());
                }
            }
            // What has expired by itself; a minute of grace for clocks that differ.
            let gone = now_s.saturating_sub(60);
            write.cmd("ZREMRANGEBYSCORE").arg(DENIED).arg("-inf").arg(gone).ignore();
            for (_, json, _) in &entries {
                sequence += 1;
                // Refused by Redis itself where it is not the greatest.
                let id = format!("{sequence}-0");
                write.cmd("XADD").arg(CHANGES).arg("MAXLEN").arg("~").arg(KEPT);
                write.arg(id).arg(FIELD).arg(json).ignore();
            }
        })
        .await?;
        Ok(last)
    }

    /// Says that the feed is complete up to now: to be called only after everything that was committed a second ago
    /// has been published.
    ///
    /// # Errors
    /// [`Error::Elsewhere`] when Redis does not stand at `sequence` of `epoch`.
    pub async fn beat(&self, epoch: &str, sequence: u64) -> Result<(), Error> {
        self.at(epoch, sequence, |write, now| {
            write.set(HEARTBEAT, u64::try_from(now.as_millis()).unwrap_or(u64::MAX)).ignore();
        })
        .await
    }

    /// Runs one transaction on the condition that Redis stands there, now being Redis' time.
    async fn at(
        &self,
        epoch: &str,
        sequence: u64,
        fill: impl FnOnce(&mut Pipeline, Duration),
    ) -> Result<(), Error> {
        let there = Position { epoch: Some(epoch.to_owned()), sequence };
        self.write(|position| *position == there, fill).await
    }

    /// Reads where Redis stands and writes, on the condition that it `may` and that nobody else writes in between.
    async fn write(
        &self,
        may: impl FnOnce(&Position) -> bool,
        fill: impl FnOnce(&mut Pipeline, Duration),
    ) -> Result<(), Error> {
        let turn = self.turn.lock().await;
        // Both trips go over one connection: on another one nothing would be watched.
        let outcome = self.link.run(self.link.deadline(), async |connection| {
            let (position, now) = position(watch(connection).await?);
            if !may(&position) {
                return Ok(Err(Some(position)));
            }
            let mut write = pipe();
            write.atomic();
            fill(&mut write, now);
            let done: Option<Vec<redis::Value>> = write.query_async(connection).await?;
            Ok(done.map(drop).ok_or(None))
        });
        let outcome = outcome.await?;
        drop(turn);
        match outcome {
            Ok(()) => Ok(()),
            Err(Some(position)) => Err(Error::Elsewhere(position)),
            Err(None) => Err(Error::Elsewhere(self.state().await?)),
        }
    }
}

/// From here to the next transaction on this connection, whoever else writes the feed makes that fail. Begins anew,
/// since an operation that was given up at its deadline may have left its watch.
async fn watch(connection: &mut MultiplexedConnection) -> redis::RedisResult<Stand> {
    let mut ask = pipe();
    ask.cmd("UNWATCH").ignore().cmd("WATCH").arg(EPOCH).arg(CHANGES).ignore();
    ask.get(EPOCH).cmd("XREVRANGE").arg(CHANGES).arg("+").arg("-").arg("COUNT").arg(1).cmd("TIME");
    ask.query_async(connection).await
}

fn position((epoch, last, time): Stand) -> (Position, Duration) {
    // A stream whose last id is not ours has no place in the feed.
    let sequence = last_of(&last).unwrap_or(u64::MAX);
    (Position { epoch, sequence }, since_epoch(time))
}
