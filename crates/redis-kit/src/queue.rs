//! The queue of executions: one Redis stream per priority, one consumer group over all of them.
//! An index, not the truth: PostgreSQL decides who may run an execution, so that a message delivered twice, or a
//! push whose outcome is unknown and is repeated, harms nothing; a queue that is lost is filled again.
//! Knows neither how executions are chosen nor how they run.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gatehouse_contract::{ExecutionId, TenantId};
use redis::{
    Value, cmd, pipe,
    streams::{StreamAutoClaimReply, StreamId, StreamReadReply},
};

use crate::link::{Address, Error, Link};

const GROUP: &str = "workers";
const TENANT: &str = "tenant";
const EXECUTION: &str = "execution";
const VERSION: &str = "v";
/// The version of messages that is written, and the newest that is read. One without is the first.
const WRITTEN: &str = "1";
/// Where messages are put aside that this build cannot read; so many of them, the oldest go.
const PARKED: &str = "parked";
const PARKED_MOST: u32 = 1000;
/// Each so many reads one message of a less urgent stream comes first, of each in turn: however much is urgent, they go on.
const LESS_URGENT: usize = 8;
/// A blocking read waits this much longer for its answer than it asked Redis to block.
const BLOCK_SLACK: Duration = Duration::from_secs(2);

/// How urgent an execution is; each has its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Before all others.
    P0,
    /// The default.
    P1,
    /// Can wait.
    P2,
    /// When nothing else is there.
    P3,
}

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// Whose execution.
    pub tenant: TenantId,
    /// Which.
    pub execution: ExecutionId,
}

/// The message cannot be read here; [`Queue::park`] puts it aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// Not one of ours.
    #[error("the message names no tenant and execution")]
    Foreign,
    /// Of a later build.
    #[error("the message is of a later version")]
    Newer,
}

/// A message that this consumer holds until it is acknowledged or claimed by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The message's id within its stream.
    pub id: String,
    /// Its stream.
    pub priority: Priority,
    /// What it says.
    pub job: Result<Job, Undecodable>,
    /// All of it, where that cannot be read.
    fields: Vec<(String, Vec<u8>)>,
}

/// The streams, through two connections: a blocking read would hold up everything behind it.
#[derive(Clone)]
pub struct Queue {
    commands: Link,
    reads: Link,
    turns: Arc<AtomicUsize>,
    prefix: String,
}

// === impl Priority ===

impl Priority {
    /// From the most to the least urgent.
    pub const ALL: &'static [Self] = &[Self::P0, Self::P1, Self::P2, Self::P3];

    /// The name in stream keys and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P0 => "p0",
            Self::P1 => "p1",
            Self::P2 => "p2",
            Self::P3 => "p3",
        }
    }

    /// The priority of a number; what is less urgent than the last is the last.
    pub const fn of(number: u8) -> Self {
        match number {
            0 => Self::P0,
            1 => Self::P1,
            2 => Self::P2,
            _ => Self::P3,
        }
    }

    /// Its number: 0 to 3.
    pub const fn number(self) -> usize {
        match self {
            Self::P0 => 0,
            Self::P1 => 1,
            Self::P2 => 2,
            Self::P3 => 3,
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Queue ===

impl Queue {
    /// The queue at `url`; every operation waits at most `timeout`. Fails when Redis does not answer or the user
    /// may not use the streams.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn connect(url: &str, timeout: Duration) -> Result<Self, Error> {
        Self::connect_with_prefix(url, timeout, "queue:").await
    }

    /// As [`Self::connect`], with the streams' keys under `prefix`, which must begin with `queue:`. Tests that run
    /// side by side on one server use it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn connect_with_prefix(
        url: &str,
        timeout: Duration,
        prefix: &str,
    ) -> Result<Self, Error> {
        let address: Address = url.parse()?;
        let queue = Self {
            commands: Link::new(&address, timeout)?,
            reads: Link::new(&address, timeout)?,
            turns: Arc::default(),
            prefix: prefix.to_owned(),
        };
        queue.ensure_groups().await?;
        Ok(queue)
    }

    /// Makes what is missing of the streams and the group. Messages that were added before are delivered too.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ensure_groups(&self) -> Result<(), Error> {
        for priority in Priority::ALL {
            let mut create = cmd("XGROUP");
            create.arg("CREATE").arg(self.key(*priority)).arg(GROUP).arg("0").arg("MKSTREAM");
            match self.commands.query::<()>(&create).await {
                Err(error) if error.code() == Some("BUSYGROUP") => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Adds a job and returns its message's id. After [`Error::Late`] or [`Error::Unreachable`] it may be there;
    /// adding it again is harmless.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn push(&self, priority: Priority, job: &Job) -> Result<String, Error> {
        self.commands.query(&self.add(priority, job)).await
    }

    /// Adds many in one round trip, in this order. After an error any of them may be there, as with [`Self::push`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn push_all(&self, jobs: &[(Priority, Job)]) -> Result<(), Error> {
        let mut all = pipe();
        for (priority, job) in jobs {
            all.add_command(self.add(*priority, job)).ignore();
        }
        if jobs.is_empty() { Ok(()) } else { self.commands.pipe(&all).await }
    }

    fn add(&self, priority: Priority, job: &Job) -> redis::Cmd {
        let mut add = cmd("XADD");
        add.arg(self.key(priority)).arg("*").arg(VERSION).arg(WRITTEN);
        add.arg(TENANT).arg(job.tenant.to_string());
        add.arg(EXECUTION).arg(job.execution.to_string());
        add
    }

    /// The next messages for `consumer`, the most urgent first but for one of a less urgent stream now and then; waits up to `block` when there are none. At most
    /// `count`, except that a wait which several streams end at once may bring one from each of them.
    /// Call it from one task per queue: reads wait for each other.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn read(
        &self,
        consumer: &str,
        block: Duration,
        count: usize,
    ) -> Result<Vec<Delivery>, Error> {
        if count == 0 {
            return Ok(Vec::new());
        }
        match self.read_once(consumer, block, count).await {
            // The group is gone: Redis was emptied. What is in the streams since then is still to be had.
            Err(error) if error.code() == Some("NOGROUP") => {
                self.ensure_groups().await?;
                self.read_once(consumer, block, count).await
            }
            other => other,
        }
    }

    async fn read_once(
        &self,
        consumer: &str,
        block: Duration,
        count: usize,
    ) -> Result<Vec<Delivery>, Error> {
        let mut found = Vec::new();
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let first = if turn % LESS_URGENT == LESS_URGENT - 1 {
            let less = [Priority::P1, Priority::P2, Priority::P3];
            less.get(turn / LESS_URGENT % less.len()).map(|priority| (*priority, 1))
        } else {
            None
        };
        let all = Priority::ALL.iter().map(|priority| (*priority, count));
        for (priority, most) in first.into_iter().chain(all) {
            let left = count.saturating_sub(found.len()).min(most);
            if left == 0 {
                return Ok(found);
            }
            let read = self.read_command(consumer, None, left, &[priority]);
            let reply: Option<StreamReadReply> = self.commands.query(&read).await?;
            self.decode(reply, &mut found);
        }
        if found.is_empty() && !block.is_zero() {
            let read = self.read_command(consumer, Some(block), 1, Priority::ALL);
            let within = block.saturating_add(BLOCK_SLACK);
            let reply: Option<StreamReadReply> = self.reads.query_within(&read, within).await?;
            self.decode(reply, &mut found);
        }
        Ok(found)
    }

    fn read_command(
        &self,
        consumer: &str,
        block: Option<Duration>,
        count: usize,
        priorities: &[Priority],
    ) -> redis::Cmd {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg(consumer).arg("COUNT").arg(count);
        if let Some(block) = block {
            // Zero would mean for ever.
            read.arg("BLOCK").arg(u64::try_from(block.as_millis()).unwrap_or(u64::MAX).max(1));
        }
        read.arg("STREAMS");
        for priority in priorities {
            read.arg(self.key(*priority));
        }
        for _ in priorities {
            read.arg(">");
        }
        read
    }

    /// Ends a message: it is acknowledged and removed.
    ///
    /// # Errors
    /// See [`Error`]; doing it again is harmless.
    pub async fn ack(&self, delivery: &Delivery) -> Result<(), Error> {
        let key = self.key(delivery.priority);
        let mut both = pipe();
        both.atomic();
        both.cmd("XACK").arg(&key).arg(GROUP).arg(&delivery.id).ignore();
        both.cmd("XDEL").arg(&key).arg(&delivery.id).ignore();
        self.commands.pipe(&both).await
    }

    /// Ends a message that cannot be read, and keeps what it said beside the streams, with the last of its kind: whoever
    /// looks after the queue finds it there, and nobody runs into it again.
    ///
    /// # Errors
    /// See [`Error`]; doing it again keeps it twice.
    pub async fn park(&self, delivery: &Delivery) -> Result<(), Error> {
        let key = self.key(delivery.priority);
        let mut all = pipe();
        all.atomic();
        let add = all.cmd("XADD").arg(format!("{}{PARKED}", self.prefix));
        add.arg("MAXLEN").arg("~").arg(PARKED_MOST).arg("*");
        add.arg("from").arg(delivery.priority.as_str()).arg("id").arg(&delivery.id);
        for (name, value) in &delivery.fields {
            add.arg(format!("field:{name}")).arg(value.as_slice());
        }
        add.ignore();
        all.cmd("XACK").arg(&key).arg(GROUP).arg(&delivery.id).ignore();
        all.cmd("XDEL").arg(&key).arg(&delivery.id).ignore();
        self.commands.pipe(&all).await
    }

    /// How many messages were put aside and are still kept.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn parked(&self) -> Result<u64, Error> {
        self.commands.query(cmd("XLEN").arg(format!("{}{PARKED}", self.prefix))).await
    }

    /// Takes over up to `count` messages that another consumer (or this one before a restart) has held for
    /// `min_idle` or longer, the most urgent first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn claim_stale(
        &self,
        consumer: &str,
        min_idle: Duration,
        count: usize,
    ) -> Result<Vec<Delivery>, Error> {
        let min_idle_ms = u64::try_from(min_idle.as_millis()).unwrap_or(u64::MAX);
        let mut found = Vec::new();
        for priority in Priority::ALL {
            // `XAUTOCLAIM` looks at ten times `COUNT` entries per call and says where to go on.
            let mut from = "0-0".to_owned();
            loop {
                let left = count.saturating_sub(found.len());
                if left == 0 {
                    return Ok(found);
                }
                let mut claim = cmd("XAUTOCLAIM");
                claim.arg(self.key(*priority)).arg(GROUP).arg(consumer);
                claim.arg(min_idle_ms).arg(&from).arg("COUNT").arg(left);
                let reply: StreamAutoClaimReply = match self.commands.query(&claim).await {
                    Err(error) if error.code() == Some("NOGROUP") => {
                        return self.ensure_groups().await.map(|()| found);
                    }
                    other => other?,
                };
                let claimed = reply.claimed.into_iter();
                found.extend(claimed.map(|message| delivery(*priority, message)));
                if reply.next_stream_id == "0-0" {
                    break;
                }
                from = reply.next_stream_id;
            }
        }
        Ok(found)
    }

    /// How many messages of `priority` are not acknowledged yet, delivered or not.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn depth(&self, priority: Priority) -> Result<u64, Error> {
        self.commands.query(cmd("XLEN").arg(self.key(priority))).await
    }

    /// [`Self::depth`] of every priority, in one round trip.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn depths(&self) -> Result<[u32; 4], Error> {
        let mut all = pipe();
        for priority in Priority::ALL {
            all.cmd("XLEN").arg(self.key(*priority));
        }
        self.commands.pipe(&all).await
    }

    fn key(&self, priority: Priority) -> String {
        format!("{}{priority}", self.prefix)
    }

    fn decode(&self, reply: Option<StreamReadReply>, found: &mut Vec<Delivery>) {
        for stream in reply.map(|reply| reply.keys).unwrap_or_default() {
            let named = Priority::ALL.iter().find(|priority| self.key(**priority) == stream.key);
            if let Some(priority) = named {
                found.extend(stream.ids.into_iter().map(|message| delivery(*priority, message)));
            }
        }
    }
}

fn delivery(priority: Priority, message: StreamId) -> Delivery {
    let job = job(&message);
    let fields = match job {
        Ok(_) => Vec::new(),
        Err(_) => message.map.into_iter().filter_map(bytes).collect(),
    };
    Delivery { id: message.id, priority, job, fields }
}

fn job(message: &StreamId) -> Result<Job, Undecodable> {
    let field = |name: &str| match message.map.get(name) {
        Some(Value::BulkString(bytes)) => {
            std::str::from_utf8(bytes).map_err(|_| Undecodable::Foreign)
        }
        _ => Err(Undecodable::Foreign),
    };
    let tenant = field(TENANT)?;
    if message.map.contains_key(VERSION) && field(VERSION)? != WRITTEN {
        return Err(Undecodable::Newer);
    }
    Ok(Job {
        tenant: tenant.parse().map_err(|_| Undecodable::Foreign)?,
        execution: field(EXECUTION)?.parse().map_err(|_| Undecodable::Foreign)?,
    })
}

fn bytes((name, value): (String, Value)) -> Option<(String, Vec<u8>)> {
    match value {
        Value::BulkString(bytes) => Some((name, bytes)),
        _ => None,
    }
}
