//! `$.store` and how long, how much and how often it is waited for.
//! Connects to nothing.

use std::{str::FromStr, time::Duration};

use gatehouse_contract::Document;
use gatehouse_redis_kit::Address;
use gatehouse_service::config::secret_url;

/// Where windows are kept.
#[derive(Debug)]
pub enum StoreKind {
    /// In this process, for one sidecar.
    Memory,
    Redis(Address),
    /// Some of a Redis Cluster's nodes; the others are found through them.
    RedisCluster(Vec<Address>),
}

/// What checks may wait for, and when they stop to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// For one answer of the store.
    pub deadline: Duration,
    /// Checks that may wait for the store at once; one more is answered by its tier's policy.
    pub queue: usize,
    /// Failures in a row after which the store is left alone.
    pub failures: u32,
    /// The store is left alone as well when more than this part of a second's answers is late.
    pub late_percent: u32,
    /// How often a store that is left alone is tried.
    pub probe: Duration,
}

/// A user and a password in a URL of Redis.
const SCHEMES: &[&str] = &["redis", "redis+unix"];
const WRITE: &str = "write \"redis://user:password@host:port\"";
const KINDS: &str = "\"redis\", \"redis_cluster\" or \"memory\"";
/// More are found through the first ones.
const SEEDS: usize = 64;

pub fn read(doc: &Document<'_>) -> Option<StoreKind> {
    doc.object("store", store)
}

fn store(doc: &Document<'_>) -> Option<StoreKind> {
    match doc.parsed::<StoreName>("kind", KINDS)? {
        StoreName::Memory => {
            // Windows in one process say nothing about another's: the limit would be multiplied.
            let sidecars = doc.integer("sidecars", None, 1..=10_000)?;
            if sidecars == 1 {
                return Some(StoreKind::Memory);
            }
            doc.note(
                "sidecars",
                format!("{sidecars} sidecars cannot share windows in memory"),
                "write \"kind\": \"redis\", or 1 if there is one sidecar only",
            );
            None
        }
        StoreName::Redis => address(doc, "url").map(StoreKind::Redis),
        StoreName::RedisCluster => addresses(doc).map(StoreKind::RedisCluster),
    }
}

/// A required address of Redis; its text is never echoed.
pub fn address(doc: &Document<'_>, name: &'static str) -> Option<Address> {
    let url = secret_url(doc, name, SCHEMES)?;
    let address = url.parse().ok();
    if address.is_none() {
        doc.note(name, "not a Redis address", WRITE);
    }
    address
}

fn addresses(doc: &Document<'_>) -> Option<Vec<Address>> {
    let listed = doc.raw("urls").and_then(|urls| urls.as_array());
    let Some(listed) = listed.filter(|urls| (1..=SEEDS).contains(&urls.len())) else {
        let mend = "write a list of 1 to 64 nodes, such as [\"redis://user:password@host:port\"]";
        doc.note("urls", "not a list of nodes", mend);
        return None;
    };
    let mut addresses = Some(Vec::new());
    for (index, url) in listed.iter().enumerate() {
        // A node of a cluster is told to the others by host and port: no sockets of this machine.
        let url = url.as_str().filter(|url| url.starts_with("redis://"));
        match (addresses.as_mut(), url.and_then(|url| url.parse().ok())) {
            (Some(addresses), Some(address)) => addresses.push(address),
            (_, Some(_)) => {}
            (_, None) => {
                doc.note(&format!("urls[{index}]"), "not a Redis address", WRITE);
                addresses = None;
            }
        }
    }
    addresses
}

/// `$.redis_timeout_ms`, `$.queue` and `$.breaker`.
pub fn bounds(doc: &Document<'_>) -> Option<Bounds> {
    let deadline_ms = doc.integer("redis_timeout_ms", Some(25), 1..=1000);
    let number = |value: u64| u32::try_from(value).ok();
    let queue = doc.integer("queue", Some(4096), 1..=1_000_000);
    let breaker = doc.object_opt("breaker", |doc| {
        let failures = doc.integer("failures", Some(5), 1..=1000);
        let late_percent = doc.integer("late_percent", Some(20), 1..=100);
        let probe_ms = doc.integer("probe_ms", Some(200), 10..=60_000);
        Some((number(failures?)?, number(late_percent?)?, probe_ms?))
    });
    let (failures, late_percent, probe_ms) = breaker?.unwrap_or((5, 20, 200));
    let queue = usize::try_from(queue?).ok()?;
    let (deadline, probe) = (Duration::from_millis(deadline_ms?), Duration::from_millis(probe_ms));
    Some(Bounds { deadline, queue, failures, late_percent, probe })
}

enum StoreName {
    Memory,
    Redis,
    RedisCluster,
}

impl FromStr for StoreName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "memory" => Ok(Self::Memory),
            "redis" => Ok(Self::Redis),
            "redis_cluster" => Ok(Self::RedisCluster),
            _ => Err(()),
        }
    }
}
