//! The queue of executions: one Redis stream per priority, one consumer group over all of them.
//! An index, not the truth: PostgreSQL decides who may run an execution, so that a message delivered twice, or a
//! push whose outcome is unknown and is repeated, harms nothing; a queue that is lost is filled again.
//! Knows neither how executions are chosen nor how they run.

use std::{fmt, time::Duration};

use gatehouse_contract::{ExecutionId, TenantId};
use redis::{
    Value, cmd, pipe,
    streams::{StreamAutoClaimReply, StreamId, StreamReadReply},
};

use crate::link::{Address, Error, Link};

const GROUP: &str = "workers";
const TENANT: &str = "tenant";
const EXECUTION: &str = "execution";
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

/// The message is not one of ours; [`Queue::ack`] it to be rid of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message names no tenant and execution")]
pub struct Undecodable;

/// A message that this consumer holds until it is acknowledged or claimed by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The message's id within its stream.
    pub id: String,
    /// Its stream.
    pub priority: Priority,
    /// What it says.
    pub job: Result<Job, Undecodable>,
}

/// The streams, through two connections: a blocking read would hold up everything behind it.
#[derive(Clone)]
pub struct Queue {
    commands: Link,
    reads: Link,
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
        let mut add = cmd("XADD");
        add.arg(self.key(priority)).arg("*");
        add.arg(TENANT).arg(job.tenant.to_string());
        add.arg(EXECUTION).arg(job.execution.to_string());
        self.commands.query(&add).await
    }

    /// The next messages for `consumer`, the most urgent first; waits up to `block` when there are none. At most
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
        for priority in Priority::ALL {
            let left = count.saturating_sub(found.len());
            if left == 0 {
                return Ok(found);
            }
            let read = self.read_command(consumer, None, left, &[*priority]);
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
    let field = |name: &str| match message.map.get(name) {
        Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).map_err(|_| Undecodable),
        _ => Err(Undecodable),
    };
    let job = field(TENANT).and_then(|tenant| {
        Ok(Job {
            tenant: tenant.parse().map_err(|_| Undecodable)?,
            execution: field(EXECUTION)?.parse().map_err(|_| Undecodable)?,
        })
    });
    Delivery { id: message.id, priority, job }
}
