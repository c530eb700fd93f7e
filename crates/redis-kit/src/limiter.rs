//! The Redis store of rate limits: one function call decides many requests, each over all its limits at once, on one
//! server or on a cluster. Knows no policy: callers bring the rules that weigh.
//!
//! The function is loaded by its callers, at start and whenever a server has lost it, so that an emptied or replaced
//! Redis heals without an operator; the sidecar's user may do that and nothing beyond ([`crate::acl::SIDECAR`]). Its
//! name carries a digest of its text and it is never replaced: a load cannot end a run ([`Run`]), and two versions
//! work side by side. A call whose fate is unknown is never repeated: a request is charged once at most.

mod wire;

use std::{
    collections::BTreeSet,
    fmt::Write,
    sync::{Arc, LazyLock},
    time::Duration,
};

use gatehouse_contract::TenantId;
use gatehouse_ratelimit::{
    Decision, Declaration, Refused, Return, Rule, Run, Take, Taken, Timestamp,
};
use redis::{Cmd, FromRedisValue, cmd};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use crate::link::{Address, Error, Link, NO_FUNCTION};

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
    link: Link,
    /// Held by whoever loads the function: those who miss it at the same time wait and find it.
    loading: Arc<Mutex<()>>,
}

/// What a pulse tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// The run of every server.
    pub runs: BTreeSet<Run>,
    /// How many sidecars were seen in the last two seconds, the asker included.
    pub live: u32,
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
        Ok(Self { link: Link::new(address, deadline)?, loading: Arc::default() })
    }

    /// Puts this build's function beside those of other builds, where it is not there yet.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn load(&self) -> Result<(), Error> {
        let mut load = cmd("FUNCTION");
        load.arg("LOAD").arg(&LIBRARY.source);
        match self.link.query::<String>(&load).await {
            Err(error) if error.refusal().is_some_and(|text| text.contains(ALREADY_THERE)) => {
                Ok(())
            }
            outcome => outcome.map(drop),
        }
    }

    /// Weighs and charges, at most [`MOST_TAKES`] in one call and each call within one deadline. The answers are in
    /// the order of `takes`. A function that is not there (Redis was emptied or replaced) is loaded and asked again,
    /// once: it cannot have charged anything.
    ///
    /// # Errors
    /// See [`Error`]; where it [`Error::may_have_run`] the charge may have been made. It is never repeated.
    pub async fn take(&self, takes: &[Take]) -> Vec<Result<Result<Taken, Refused>, Error>> {
        let mut answers = vec![];
        // Neighbours of one run go together; a sidecar knows one run of a server, but for a moment.
        for same in takes.chunk_by(|one, next| one.run == next.run) {
            for some in same.chunks(MOST_TAKES) {
                let run = some.first().and_then(|take| take.run);
                let call = wire::take(&LIBRARY.take, run, some);
                let reply: Result<Vec<i64>, Error> = self.call(&call).await;
                match reply.and_then(|reply| wire::answers(some, &reply).ok_or(Error::Foreign)) {
                    Ok(read) => answers.extend(read.into_iter().map(Ok)),
                    Err(error) => answers.extend(some.iter().map(|_| Err(error.clone()))),
                }
            }
        }
        answers
    }

    /// Hands back what leases did not use. Sent once.
    ///
    /// # Errors
    /// See [`Error`], the first of them; nothing is to be done about it.
    pub async fn give_back(&self, gives: &[Return]) -> Result<(), Error> {
        let mut outcome = Ok(());
        for same in gives.chunk_by(|one, next| one.run == next.run) {
            for some in same.chunks(MOST_TAKES) {
                let Some(run) = some.first().map(|give| give.run) else { continue };
                let call = wire::give_back(&LIBRARY.give_back, run, some);
                outcome = outcome.and(self.call::<i64>(&call).await.map(drop));
            }
        }
        outcome
    }

    /// Declares what was charged to a run that is over. The answers are in the order of `all`: whether the store is
    /// still in the run that it was declared to.
    ///
    /// # Errors
    /// See [`Error`]; where it [`Error::may_have_run`] another declaration of the same may count twice.
    pub async fn declare(&self, all: &[Declaration]) -> Vec<Result<bool, Error>> {
        let mut answers = vec![];
        for same in all.chunk_by(|one, next| one.run == next.run) {
            for some in same.chunks(MOST_TAKES) {
                let Some(run) = some.first().map(|one| one.run) else { continue };
                let call = wire::declare(&LIBRARY.declare, run, some);
                let heard = self.call::<i64>(&call).await.map(|heard| heard == 1);
                answers.extend(some.iter().map(|_| heard.clone()));
            }
        }
        answers
    }

    /// Says that the sidecar `name` lives, and asks for the runs of the servers and for how many live. To be called
    /// every 250 ms.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn pulse(&self, name: &str) -> Result<Pulse, Error> {
        let mut call = cmd("FCALL");
        call.arg(&LIBRARY.pulse).arg(1).arg(LIVING).arg(name);
        let (_, run, live): (u64, u64, u32) = self.call(&call).await?;
        Ok(Pulse { runs: [Run(run)].into(), live })
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

    /// Whether Redis answers.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.link.ping().await
    }

    /// Calls a function; one that is missing is loaded and called again, once.
    async fn call<T: FromRedisValue>(&self, call: &Cmd) -> Result<T, Error> {
        let mut reply = self.link.query(call).await;
        if is_missing(&reply) {
            let _turn = self.loading.lock().await;
            reply = self.link.query(call).await;
            if is_missing(&reply) {
                tracing::warn!("the rate limit function is missing in Redis, loading it");
                self.load().await?;
                reply = self.link.query(call).await;
            }
        }
        reply
    }
}

fn is_missing<T>(reply: &Result<T, Error>) -> bool {
    let refusal = reply.as_ref().err().and_then(Error::refusal);
    refusal.is_some_and(|text| text.contains(NO_FUNCTION))
}
