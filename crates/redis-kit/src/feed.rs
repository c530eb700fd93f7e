//! The change feed in Redis (design §3.1): what the relay writes and every sidecar reads.
//!
//! A feed is one epoch: sequences 1, 2, 3… without a gap in a bounded stream, and beside it the deny list as it
//! stands now. Every write says which epoch and sequence it follows and is refused when Redis stands elsewhere, so
//! that two relays during a change of leaders, or a Redis that came back empty or from an old snapshot, can never be
//! taken for one feed. Knows neither PostgreSQL nor who leads.

use std::time::Duration;

use gatehouse_contract::sidecar::{Change, Denied};
use redis::Pipeline;

use crate::link;

mod reader;
mod writer;

pub use reader::{Feed, News, Reader, Reading};
pub use writer::Writer;

pub(crate) const EPOCH: &str = "feed:epoch";
/// Milliseconds of Redis' clock.
const HEARTBEAT: &str = "feed:heartbeat";
/// Ids are `<sequence>-0`.
const CHANGES: &str = "feed:changes";
/// Members are the entries' JSON, scores the seconds since the Unix epoch at which they may be forgotten.
const DENIED: &str = "feed:denied";
/// The stream entry's only field.
const FIELD: &str = "c";
/// How many changes the stream keeps at least. Whoever is further behind loads the deny list.
pub const KEPT: usize = 10_000;

/// Where a feed stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// `None` where Redis has no feed.
    pub epoch: Option<String>,
    /// The last change's; 0 before the first.
    pub sequence: u64,
}

/// The feed was not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis stands elsewhere than the caller believes: another relay wrote, or Redis lost data. Nothing was
    /// written. Ask [`Writer::state`]; where it is not what the caller's record says, begin a new epoch.
    #[error("the feed stands at {}:{}", .0.epoch.as_deref().unwrap_or("none"), .0.sequence)]
    Elsewhere(Position),
    /// Redis did not do it; after `Late` and `Unreachable` it may have.
    #[error(transparent)]
    Redis(#[from] link::Error),
    /// A change cannot be written as JSON.
    #[error("a change cannot be written")]
    Form(#[source] serde_json::Error),
}

fn deny(pipe: &mut Pipeline, denied: &Denied, json: String) {
    pipe.zadd(DENIED, json, until_s(denied)).ignore();
}

const fn until_s(denied: &Denied) -> u64 {
    match denied {
        Denied::Token { until_s, .. } | Denied::IssuedBefore { until_s, .. } => *until_s,
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(Error::Form)
}

/// What `TIME` answers: seconds, and microseconds within the second.
fn since_epoch((seconds, micros): (u64, u64)) -> Duration {
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

/// Of a stream id `<sequence>-0`; `None` for one that is not ours.
fn sequence_of(id: &str) -> Option<u64> {
    id.strip_suffix("-0")?.parse().ok()
}

fn last_of(entries: &[Entry]) -> Option<u64> {
    entries.first().map_or(Some(0), |(id, _)| sequence_of(id))
}

/// A stream's entry: its id, then fields and values by turns.
type Entry = (String, Vec<String>);

fn change_of((_, fields): &Entry) -> Option<Change> {
    let (name, value) = (fields.first()?, fields.get(1)?);
    (name == FIELD).then(|| serde_json::from_str(value).ok())?
}
