//! The Redis store of rate limits: one function call decides many requests, each over all its limits at once, on one
//! server or on a cluster. Knows no policy: callers bring the rules that weigh.
//!
//! The function is loaded by its callers, at start and whenever a server has lost it, so that an emptied or replaced
//! Redis heals without an operator; the sidecar's user may do that and nothing beyond ([`crate::acl::SIDECAR`]). Its
//! name carries a digest of its text and it is never replaced: a load cannot end a run ([`Run`]), and two versions
//! work side by side. A call whose fate is unknown is never repeated: a request is charged once at most.

mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, LazyLock},
    task::Poll,
    time::Duration,
};

use gatehouse_contract::TenantId;
use gatehouse_ratelimit::{
    Decision, Declaration, Refused, Return, Rule, Run, Take, Taken, Timestamp,
};
use redis::{Cmd, FromRedisValue, cmd};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use crate::{
    cluster::{Cluster, slot},
    link::{Address, Error, Link, NO_FUNCTION},
};

/// The most takes of one call: some tenths of a millisecond of Redis' time.
pub const MOST_TAKES: usize = 64;
/// The record of the living sidecars.
pub const LIVING: &str = "rl:sidecars";

const SOURCE: &str = concat!(
    include_str!("ratelimit/windows.lua"),
    include_str!("ratelimit/levels.lua"),
    include_str!("ratelimit/logs.lua"),
    include_str!("ratelimit/calls.lua"),
);
const PLACEHOLDER: &str = "@DIGEST@";
/// Redis' words for a library that is there (`ERR Library 'x' already exists`).
const ALREADY_THERE: &str = "already exists";

/// This build's library and the names of its functions.
struct Library {
    source: String,
    take: String,
    give_back: String,
    declare: String,
    pulse: String,
}

static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let mut digest = String::with_capacity(8);
    for byte in Sha256::digest(SOURCE.as_bytes()).iter().take(4) {
        // Writing into a String cannot fail.
        write!(digest, "{byte:02x}").unwrap_or_default();
    }
    let name = |function: &str| format!("gatehouse_rl_{digest}_{function}");
    Library {
        source: SOURCE.replace(PLACEHOLDER, &digest),
        take: name("take"),
        give_back: name("give_back"),
        declare: name("declare"),
        pulse: name("pulse"),
    }
});

/// Limits in Redis.
#[derive(Clone)]
pub struct Limiter {
    server: Server,
    /// Held by whoever loads the function: those who miss it at the same time wait and find it.
    loading: Arc<Mutex<()>>,
}

#[derive(Clone)]
enum Server {
    Single(Link),
    Cluster(Cluster),
}

/// What a pulse tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// The run of every server.
    pub runs: BTreeSet<Run>,
    /// How many sidecars were seen in the last two seconds, the asker included.
    pub live: u32,
    /// Whether every server that answered decides: none waits for declarations any more.
    pub settled: bool,
}

/// A decision and Redis' time at which it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The verdict.
    pub decision: Decision,
    /// By Redis' clock, the only one that counts.
    pub at: Timestamp,
}

impl Limiter {
    /// Limits in the Redis at `address`; every call to it takes at most `deadline`. Connects on first use.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn new(address: &Address, deadline: Duration) -> Result<Self, Error> {
        let server = Server::Single(Link::new(address, deadline)?);
        Ok(Self { server, loading: Arc::default() })
    }

    /// Limits in the Redis Cluster of which `seeds` are some servers. A tenant's windows are on one of them; those of
    /// several tenants are asked for at the same time.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn cluster(seeds: &[Address], deadline: Duration) -> Result<Self, Error> {
        let server = Server::Cluster(Cluster::new(seeds, deadline)?);
        Ok(Self { server, loading: Arc::default() })
    }

    /// Puts this build's function beside those of other builds, on every server where it is not there yet.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn load(&self) -> Result<(), Error> {
        for link in self.servers().await? {
            load(&link).await?;
        }
        Ok(())
    }

    /// Weighs and charges, at most [`MOST_TAKES`] in one call and each call within one deadline. The answers are in
    /// the order of `takes`. A function that is not there (Redis was emptied or replaced) is loaded and asked again,
    /// once: it cannot have charged anything.
    ///
    /// # Errors
    /// See [`Error`]; where it [`Error::may_have_run`] the charge may have been made. It is never repeated.
    pub async fn take(&self, takes: &[Take]) -> Vec<Result<Result<Taken, Refused>, Error>> {
        let groups = self.groups(takes, |take| (take.tenant, take.run));
        let asked = groups.into_iter().map(async |((slot, run), group)| {
            let some: Vec<&Take> = group.iter().filter_map(|i| takes.get(*i)).collect();
            let call = wire::take(&LIBRARY.take, run, &some);
            let reply: Result<Vec<u8>, Error> = self.call(slot, &call).await;
            let read = reply.and_then(|reply| wire::answers(&some, &reply).ok_or(Error::Foreign));
            match read {
                Ok(read) => group.into_iter().zip(read.into_iter().map(Ok)).collect(),
                Err(error) => group.into_iter().map(|i| (i, Err(error.clone()))).collect(),
            }
        });
        in_order(join(asked).await)
    }

    /// Hands back what leases did not use. Sent once.
    ///
    /// # Errors
    /// See [`Error`], the first of them; nothing is to be done about it.
    pub async fn give_back(&self, gives: &[Return]) -> Result<(), Error> {
        let groups = self.groups(gives, |give| (give.tenant, give.run));
        let asked = groups.into_iter().map(async |((slot, run), group)| {
            let some: Vec<&Return> = group.iter().filter_map(|i| gives.get(*i)).collect();
            let call = wire::give_back(&LIBRARY.give_back, run, &some);
            self.call::<i64>(slot, &call).await.map(drop)
        });
        join(asked).await.into_iter().collect()
    }

    /// Declares what was charged to a run that is over. The answers are in the order of `all`: whether the store is
    /// in the run that it was declared to; another one ignores it. In a cluster every server has a run of its own.
    ///
    /// # Errors
    /// See [`Error`]; where it [`Error::may_have_run`] another declaration of the same may count twice.
    pub async fn declare(&self, all: &[Declaration]) -> Vec<Result<bool, Error>> {
        let groups = self.groups(all, |one| (one.tenant, one.run));
        let asked = groups.into_iter().map(async |((slot, run), group)| {
            let some: Vec<&Declaration> = group.iter().filter_map(|i| all.get(*i)).collect();
            let call = wire::declare(&LIBRARY.declare, run, &some);
            let heard = self.call::<i64>(slot, &call).await.map(|heard| heard == 1);
            group.into_iter().map(|i| (i, heard.clone())).collect()
        });
        in_order(join(asked).await)
    }

    /// Says that the sidecar `name` lives, and asks for the runs of the servers and for how many live. To be called
    /// every 250 ms. In a cluster those that are away are left out; `live` is 0 where the server that counts is.
    ///
    /// # Errors
    /// See [`Error`], when no server answers.
    pub async fn pulse(&self, name: &str) -> Result<Pulse, Error> {
        let mut counted = cmd("FCALL");
        counted.arg(&LIBRARY.pulse).arg(1).arg(LIVING).arg(name);
        let mut plain = cmd("FCALL");
        plain.arg(&LIBRARY.pulse).arg(0).arg(name);
        let (counts, others) = match &self.server {
            Server::Single(link) => (link.clone(), vec![]),
            Server::Cluster(cluster) => {
                let counts = cluster.keeper(slot(LIVING)).await?;
                let mut others = cluster.masters().await?;
                others.retain(|link| !link.is(&counts));
                (counts, others)
            }
        };
        let servers = std::iter::once((counts, &counted));
        let servers = servers.chain(others.into_iter().map(|link| (link, &plain)));
        let asked = servers
            .map(async |(link, call)| self.call_on(&link, call, link.query(call).await).await);
        let mut pulse = Pulse { runs: BTreeSet::new(), live: 0, settled: true };
        let mut last = None;
        for told in join(asked).await {
            let told: Result<(u64, u64, u32, u8), Error> = told;
            match told {
                Ok((_, run, live, settled)) => {
                    pulse.settled &= settled == 1;
                    pulse.runs.insert(Run(run));
                    pulse.live = pulse.live.max(live);
                }
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) if pulse.runs.is_empty() => Err(error),
            _ => Ok(pulse),
        }
    }

    /// Weighs one request of `cost` and charges it when it passes.
    ///
    /// # Errors
    /// As [`Self::take`]; [`Error::Resting`] while the store waits for declarations.
    pub async fn decide(
        &self,
        tenant: TenantId,
        rules: &[Rule],
        cost: u32,
    ) -> Result<Decided, Error> {
        let answer = self.take(&[Take::one(tenant, rules.into(), cost)]).await.pop();
        let taken = answer.ok_or(Error::Foreign)??.map_err(|_| Error::Resting)?;
        Ok(Decided { decision: taken.decision, at: taken.at })
    }

    /// Whether every server answers.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ping(&self) -> Result<(), Error> {
        let servers = self.servers().await?;
        join(servers.iter().map(Link::ping)).await.into_iter().collect()
    }

    async fn servers(&self) -> Result<Vec<Link>, Error> {
        match &self.server {
            Server::Single(link) => Ok(vec![link.clone()]),
            Server::Cluster(cluster) => cluster.masters().await,
        }
    }

    /// The places of items that one call can carry: of one run, in a cluster of one slot, at most [`MOST_TAKES`].
    fn groups<T, R: Ord + Copy>(&self, items: &[T], of: impl Fn(&T) -> (TenantId, R)) -> Groups<R> {
        let mut open: BTreeMap<(u16, R), Vec<usize>> = BTreeMap::new();
        let mut groups = vec![];
        for (i, item) in items.iter().enumerate() {
            let (tenant, run) = of(item);
            let slot = match &self.server {
                Server::Single(_) => 0,
                Server::Cluster(_) => slot(&tenant.to_string()),
            };
            let group = open.entry((slot, run)).or_default();
            group.push(i);
            if group.len() == MOST_TAKES {
                groups.push(((slot, run), std::mem::take(group)));
            }
        }
        groups.extend(open.into_iter().filter(|(_, group)| !group.is_empty()));
        groups
    }

    /// Calls a function on the server that keeps `slot`.
    async fn call<T: FromRedisValue>(&self, slot: u16, call: &Cmd) -> Result<T, Error> {
        match &self.server {
            Server::Single(link) => self.call_on(link, call, link.query(call).await).await,
            Server::Cluster(cluster) => match cluster.query(slot, call).await {
                Ok((_, value)) => Ok(value),
                Err((Some(link), error)) => self.call_on(&link, call, Err(error)).await,
                Err((None, error)) => Err(error),
            },
        }
    }

    /// What a server answered; where the function was missing, it is loaded and called again, once.
    async fn call_on<T: FromRedisValue>(
        &self,
        link: &Link,
        call: &Cmd,
        mut reply: Result<T, Error>,
    ) -> Result<T, Error> {
        if is_missing(&reply) {
            let _turn = self.loading.lock().await;
            reply = link.query(call).await;
            if is_missing(&reply) {
                tracing::warn!("the rate limit function is missing in Redis, loading it");
                load(link).await?;
                reply = link.query(call).await;
            }
        }
        reply
    }
}

/// What one call carries: its slot and run, and the places of its items.
type Groups<R> = Vec<((u16, R), Vec<usize>)>;

async fn load(link: &Link) -> Result<(), Error> {
    let mut load = cmd("FUNCTION");
    load.arg("LOAD").arg(&LIBRARY.source);
    match link.query::<String>(&load).await {
        Err(error) if error.refusal().is_some_and(|text| text.contains(ALREADY_THERE)) => Ok(()),
        outcome => outcome.map(drop),
    }
}

fn is_missing<T>(reply: &Result<T, Error>) -> bool {
    let refusal = reply.as_ref().err().and_then(Error::refusal);
    refusal.is_some_and(|text| text.contains(NO_FUNCTION))
}

/// Runs all at the same time; their values are in their order.
async fn join<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Pin<Box<F>>> = all.map(Box::pin).collect();
    let mut values: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut waits = false;
        for (one, value) in running.iter_mut().zip(&mut values) {
            if value.is_none() {
                match one.as_mut().poll(context) {
                    Poll::Ready(ready) => *value = Some(ready),
                    Poll::Pending => waits = true,
                }
            }
        }
        if waits { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    values.into_iter().flatten().collect()
}

fn in_order<T>(groups: Vec<Vec<(usize, T)>>) -> Vec<T> {
    let mut all: Vec<(usize, T)> = groups.into_iter().flatten().collect();
    all.sort_unstable_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, value)| value).collect()
}
