//! A sidecar's side of the feed. Writes nothing.

use std::time::Duration;

use gatehouse_contract::sidecar::{Change, Denied};
use redis::pipe;

use super::{
    CHANGES, DENIED, EPOCH, Entry, HEARTBEAT, change_of, last_of, sequence_of, since_epoch, until_s,
};
use crate::link::{self, Address, Link};

/// How many changes one reading brings at most.
const BATCH: usize = 1000;

/// Reads the feed.
#[derive(Clone)]
pub struct Reader(Link);

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// Redis has no feed, or not a whole one: silence.
    None,
    /// The epoch that was asked for, at an earlier sequence: Redis lost data and the relay has not seen it yet.
    /// Nothing in it may be believed: silence.
    WentBack,
    /// A feed.
    Feed(Feed),
}

/// What a feed says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// Its name.
    pub epoch: String,
    /// The last change that [`Self::news`] covers.
    pub sequence: u64,
    /// The age of the relay's heartbeat by Redis' clock; `None` before the first, or when it is in the future.
    pub heartbeat_age: Option<Duration>,
    /// What happened since.
    pub news: News,
}

/// What happened since the sequence that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// These changes, in order; no others.
    Changes(Vec<Change>),
    /// That cannot be told: another epoch, too long ago, or a change that this build cannot read. This is the whole
    /// deny list, and everything else that is remembered is old.
    Snapshot(Vec<Denied>),
}

impl Reader {
    /// A reader of the Redis at `address`; every operation waits at most `deadline`. Connects on first use.
    ///
    /// # Errors
    /// [`link::Error::Address`].
    pub fn new(address: &Address, deadline: Duration) -> Result<Self, link::Error> {
        Ok(Self(Link::new(address, deadline)?))
    }

    /// What happened since `after` of `epoch`; without an epoch, from nothing.
    ///
    /// # Errors
    /// See [`link::Error`]; [`link::Error::Foreign`] when the deny list has an entry that this build cannot read.
    pub async fn read(&self, epoch: Option<&str>, after: u64) -> Result<Reading, link::Error> {
        let mut ask = pipe();
        ask.atomic().get(EPOCH).get(HEARTBEAT).cmd("TIME");
        ask.cmd("XREVRANGE").arg(CHANGES).arg("+").arg("-").arg("COUNT").arg(1);
        let from = format!("{}-0", after.saturating_add(1));
        ask.cmd("XRANGE").arg(CHANGES).arg(from).arg("+").arg("COUNT").arg(BATCH);
        type Answer = (Option<String>, Option<u64>, (u64, u64), Vec<Entry>, Vec<Entry>);
        let (found, beat, time, last, entries): Answer = self.0.pipe(&ask).await?;
        let (Some(found), Some(last)) = (found, last_of(&last)) else {
            return Ok(Reading::None);
        };
        if epoch != Some(&*found) {
            return self.snapshot().await;
        }
        if last < after {
            return Ok(Reading::WentBack);
        }
        match in_order(&entries, after, last) {
            Some(changes) => {
                let read = u64::try_from(changes.len()).unwrap_or(u64::MAX);
                Ok(Reading::Feed(Feed {
                    epoch: found,
                    sequence: after.saturating_add(read),
                    heartbeat_age: age(beat, time),
                    news: News::Changes(changes),
                }))
            }
            None => self.snapshot().await,
        }
    }

    async fn snapshot(&self) -> Result<Reading, link::Error> {
        let mut ask = pipe();
        ask.atomic().get(EPOCH).get(HEARTBEAT).cmd("TIME");
        ask.cmd("XREVRANGE").arg(CHANGES).arg("+").arg("-").arg("COUNT").arg(1);
        ask.zrange(DENIED, 0, -1);
        type Answer = (Option<String>, Option<u64>, (u64, u64), Vec<Entry>, Vec<String>);
        let (epoch, beat, time, last, denied): Answer = self.0.pipe(&ask).await?;
        let (Some(epoch), Some(sequence)) = (epoch, last_of(&last)) else {
            return Ok(Reading::None);
        };
        let read = |text: &String| serde_json::from_str::<Denied>(text);
        let mut denied: Vec<Denied> =
            denied.iter().map(read).collect::<Result<_, _>>().map_err(|_| link::Error::Foreign)?;
        denied.retain(|denied| until_s(denied) >= time.0.saturating_sub(60));
        let heartbeat_age = age(beat, time);
        Ok(Reading::Feed(Feed { epoch, sequence, heartbeat_age, news: News::Snapshot(denied) }))
    }
}

/// The changes, when they follow `after` without a gap and all can be read.
fn in_order(entries: &[Entry], after: u64, last: u64) -> Option<Vec<Change>> {
    if entries.is_empty() {
        return (last == after).then(Vec::new);
    }
    let mut changes = Vec::with_capacity(entries.len());
    let mut sequence = after;
    for entry in entries {
        sequence = sequence.checked_add(1)?;
        if sequence_of(&entry.0) != Some(sequence) {
            return None;
        }
        changes.push(change_of(entry)?);
    }
    Some(changes)
}

/// A heartbeat in the future is none: Redis' clock stepped back, or the data is another server's.
fn age(beat: Option<u64>, time: (u64, u64)) -> Option<Duration> {
    since_epoch(time).checked_sub(Duration::from_millis(beat?))
}
