//! The Redis store of rate limits: one function call decides over all limits of a request.
//! Knows no policy: callers bring the rules that weigh.
//!
//! The sidecar loads the function itself, at start and whenever Redis has lost it, so that an emptied or replaced
//! Redis heals without an operator; its user may do that and nothing beyond ([`crate::acl::SIDECAR`]).

use std::{sync::Arc, time::Duration};

use gatehouse_contract::TenantId;
use gatehouse_ratelimit::{Decision, Rule, Standing, Timestamp, keys};
use redis::{Cmd, cmd};
use tokio::sync::Mutex;

use crate::link::{Address, Error, Link};

/// The library as Redis loads it.
const LIBRARY: &str = include_str!("ratelimit.lua");
const FUNCTION: &str = "gatehouse_rl_check";
/// Redis' words for a function that is not there (no code of its own: `ERR Function not found`).
const NOT_FOUND: &str = "Function not found";

/// Limits in Redis.
#[derive(Clone)]
pub struct Limiter {
    link: Link,
    /// Held by whoever loads the function: those who miss it at the same time wait and find it.
    loading: Arc<Mutex<()>>,
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

    /// Puts this build's function into Redis, in the place of an older one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn load(&self) -> Result<(), Error> {
        let mut load = cmd("FUNCTION");
        load.arg("LOAD").arg("REPLACE").arg(LIBRARY);
        let _name: String = self.link.query(&load).await?;
        Ok(())
    }

    /// Weighs a request of `cost` against `rules` and charges all of them when it passes. A function that is not
    /// there (Redis was emptied or replaced) is loaded and asked again, once: it cannot have charged anything.
    ///
    /// # Errors
    /// See [`Error`]; after [`Error::Late`] and [`Error::Unreachable`] the charge may have been made. It is never
    /// repeated, so that a request is charged once at most.
    pub async fn decide(
        &self,
        tenant: TenantId,
        rules: &[Rule],
        cost: u32,
    ) -> Result<Decided, Error> {
        let call = call(tenant, rules, cost);
        let mut reply = self.link.query(&call).await;
        if is_missing(&reply) {
            let _turn = self.loading.lock().await;
            reply = self.link.query(&call).await;
            if is_missing(&reply) {
                tracing::warn!("the rate limit function is missing in Redis, loading it");
                self.load().await?;
                reply = self.link.query(&call).await;
            }
        }
        let reply: Vec<i64> = reply?;
        decoded(rules, &reply).ok_or(Error::Foreign)
    }

    /// Whether Redis answers.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.link.ping().await
    }
}

fn is_missing(reply: &Result<Vec<i64>, Error>) -> bool {
    let refusal = reply.as_ref().err().and_then(Error::refusal);
    refusal.is_some_and(|text| text.contains(NOT_FOUND))
}

fn call(tenant: TenantId, rules: &[Rule], cost: u32) -> Cmd {
    let mut call = cmd("FCALL");
    call.arg(FUNCTION).arg(rules.len());
    let mut key = String::with_capacity(160);
    for rule in rules {
        key.clear();
        keys::write(&mut key, tenant, rule.key_tail());
        call.arg(&key);
    }
    call.arg(cost);
    for rule in rules {
        call.arg(rule.max).arg(rule.span.slot_ms());
    }
    call
}

fn decoded(rules: &[Rule], reply: &[i64]) -> Option<Decided> {
    let (head, rest) = reply.split_at_checked(2)?;
    let [now, allowed] = head else { return None };
    if rest.len() != rules.len() * 3 {
        return None;
    }
    let standings = rest.chunks_exact(3).map(|standing| {
        let [used, free_in, pass_in] = standing else { return None };
        Some(Standing {
            used: u32::try_from(*used).ok()?,
            free_in: millis(*free_in),
            pass_in: millis(*pass_in),
        })
    });
    Some(Decided {
        decision: Decision { allowed: *allowed == 1, standings: standings.collect::<Option<_>>()? },
        at: Timestamp::from_ms(u64::try_from(*now).ok()?),
    })
}

/// A wait; negative is never.
fn millis(wait: i64) -> Option<Duration> {
    u64::try_from(wait).ok().map(Duration::from_millis)
}
