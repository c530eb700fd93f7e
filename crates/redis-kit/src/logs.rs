//! What a running attempt has logged, for those who look on: one capped stream per attempt, of parts that the worker seals
//! under the tenant's key. The end of it is kept elsewhere when the attempt ends, so that all of this may be lost.
//!
//! Keys are `log:{<tenant>}:<execution>:<epoch>`; an entry's id is `<end>-0`, the number of bytes of the log up to its end, so
//! that a part written twice is there once. Beside them `log:{<tenant>}:index` names what is there, for a tenant's end.
//! Knows neither lines nor what is sealed.

use std::time::Duration;

use gatehouse_contract::{ExecutionId, TenantId};
use redis::{Value, cmd, pipe};

use crate::{
    cache::name_in,
    link::{Address, Error, Link},
};

/// How long after its last part a log is there: as long as whatever else is remembered of a tenant that is erased.
const KEEP_S: u64 = 300;
/// Parts that are kept of one attempt, at least.
pub const PARTS: usize = 64;
/// Most bytes of one part, before it is sealed.
pub const PART_BYTES: usize = 16 << 10;
/// Parts that are read at once.
const AT_ONCE: usize = 16;
/// Logs that one command asks for.
const ASKED: usize = 256;
const FROM: &str = "f";
const PART: &str = "p";

/// The log of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Whose.
    pub tenant: TenantId,
    /// Of which execution.
    pub execution: ExecutionId,
    /// The claim that runs it.
    pub epoch: u64,
}

/// A part of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The number of its first byte.
    pub from: u64,
    /// The number of the byte behind its last one.
    pub end: u64,
    /// Its bytes, sealed.
    pub sealed: Vec<u8>,
}

/// The logs in one Redis.
#[derive(Clone)]
pub struct Logs(Link);

// === impl Place ===

impl Place {
    fn key(&self) -> String {
        format!("log:{{{}}}:{}:{}", self.tenant, self.execution, self.epoch)
    }
}

pub(crate) fn index_key(tenant: TenantId) -> String {
    format!("log:{{{tenant}}}:index")
}

// === impl Logs ===

impl Logs {
    /// The logs in the Redis at `address`; every operation waits at most `deadline`. Connects on first use.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn new(address: &Address, deadline: Duration) -> Result<Self, Error> {
        Ok(Self(Link::new(address, deadline)?))
    }

    /// Adds a part behind those that are there; `now_s` is the time in seconds since the Unix epoch. Beyond [`PARTS`] the
    /// oldest go.
    ///
    /// # Errors
    /// See [`Error`]; one that is not behind the last one is refused by Redis.
    pub async fn add(&self, place: &Place, part: &Part, now_s: u64) -> Result<(), Error> {
        let key = place.key();
        let mut write = pipe();
        write.atomic();
        let add = write.cmd("XADD").arg(&key).arg("MAXLEN").arg("~").arg(PARTS);
        add.arg(format!("{}-0", part.end)).arg(FROM).arg(part.from);
        add.arg(PART).arg(part.sealed.as_slice()).ignore();
        write.cmd("EXPIRE").arg(&key).arg(KEEP_S).ignore();
        name_in(&mut write, &index_key(place.tenant), &key, (now_s, KEEP_S));
        self.0.pipe(&write).await
    }

    /// Keeps a log that nothing was added to.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn keep(&self, place: &Place) -> Result<(), Error> {
        self.0.query(cmd("EXPIRE").arg(place.key()).arg(KEEP_S)).await
    }

    /// The parts that end behind `after`, in their order: some of them, where they are many.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn behind(&self, place: &Place, after: u64) -> Result<Vec<Part>, Error> {
        let mut ask = cmd("XRANGE");
        ask.arg(place.key()).arg(format!("({after}-0")).arg("+").arg("COUNT").arg(AT_ONCE);
        let entries: Vec<Entry> = self.0.query(&ask).await?;
        Ok(entries.into_iter().filter_map(part).collect())
    }

    /// Of these logs, each known up to a number, those that have parts behind it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn beyond(&self, known: &[(Place, u64)]) -> Result<Vec<(Place, u64)>, Error> {
        let mut moved = Vec::new();
        for known in known.chunks(ASKED) {
            let mut ask = pipe();
            for (place, after) in known {
                let ask = ask.cmd("XRANGE").arg(place.key()).arg(format!("({after}-0"));
                ask.arg("+").arg("COUNT").arg(1);
            }
            let found: Vec<Vec<Entry>> = self.0.pipe(&ask).await?;
            for ((place, _), entries) in known.iter().zip(found) {
                let part = entries.into_iter().next().and_then(part);
                moved.extend(part.map(|part| (*place, part.end)));
            }
        }
        Ok(moved)
    }
}

type Entry = (String, Vec<(String, Value)>);

/// What cannot be read is none of ours, and is passed over.
fn part((id, fields): Entry) -> Option<Part> {
    let end = id.strip_suffix("-0")?.parse().ok()?;
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let Some(Value::BulkString(from)) = field(FROM) else { return None };
    let Some(Value::BulkString(sealed)) = field(PART) else { return None };
    let from = std::str::from_utf8(from).ok()?.parse().ok()?;
    (from < end).then(|| Part { from, end, sealed: sealed.clone() })
}
