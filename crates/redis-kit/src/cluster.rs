//! A Redis Cluster: which server keeps a slot, a [`Link`] to each, and the redirections.
//!
//! Not the client library's own cluster client: that one repeats commands whose fate is unknown when a connection
//! breaks, and a charge must not be made twice. Here only what a server has refused to run is asked elsewhere: after
//! `MOVED` and `ASK`, once. Knows no keys and no functions of ours.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use redis::{Cmd, FromRedisValue, Value, cmd, pipe};
use tokio::{sync::Mutex, time::Instant};

use crate::link::{Address, Error, Link};

/// How many slots a cluster has (Redis Cluster specification, key distribution model).
const SLOTS: u16 = 16_384;
/// At most one look at the map in this time.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A slot that begins a range, and the server that keeps all up to the next.
type Map = BTreeMap<u16, String>;

/// A cluster, shared by everyone who clones it. Learns who keeps what on first use, and again whenever it was wrong.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Shared>);

struct Shared {
    seeds: Vec<Address>,
    deadline: Duration,
    links: RwLock<BTreeMap<String, Link>>,
    map: RwLock<Arc<Map>>,
    /// When the map was last looked at; held by whoever looks.
    looked: Mutex<Option<Instant>>,
}

/// The slot of a key's hash tag: CRC16 (XMODEM) modulo 16384.
pub(crate) fn slot(tag: &str) -> u16 {
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % SLOTS
}

impl Cluster {
    /// The cluster of which `seeds` are some servers, all with the same user. Connects on first use.
    ///
    /// # Errors
    /// [`Error::Address`] when there is no seed or the client library takes one of them not.
    pub(crate) fn new(seeds: &[Address], deadline: Duration) -> Result<Self, Error> {
        if seeds.is_empty() {
            return Err(Error::Address);
        }
        for seed in seeds {
            Link::new(seed, deadline)?;
        }
        Ok(Self(Arc::new(Shared {
            seeds: seeds.to_vec(),
            deadline,
            links: RwLock::default(),
            map: RwLock::default(),
            looked: Mutex::new(None),
        })))
    }

    /// Runs one command on the server that keeps `slot`. Repeated only where a server refused it for another.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn query<T: FromRedisValue>(
        &self,
        slot: u16,
        command: &Cmd,
    ) -> Result<(Link, T), (Option<Link>, Error)> {
        let link = self.keeper(slot).await.map_err(|error| (None, error))?;
        if link.is_silent() {
            // Its tenants wait no longer, and nobody waits with them; it may have been replaced.
            self.look_again().await;
            return Err((Some(link), Error::Silent));
        }
        let error = match link.query::<T>(command).await {
            Ok(value) => return Ok((link, value)),
            Err(error) => error,
        };
        match error.code() {
            Some("MOVED") => {
                let elsewhere = self.named(&error).map_err(|error| (Some(link), error))?;
                self.look_again().await;
                let outcome = elsewhere.query(command).await;
                outcome.map(|v| (elsewhere.clone(), v)).map_err(|error| (Some(elsewhere), error))
            }
            Some("ASK") => {
                let elsewhere = self.named(&error).map_err(|error| (Some(link), error))?;
                let mut asking = pipe();
                asking.cmd("ASKING").ignore().add_command(command.clone());
                let outcome: Result<(T,), Error> = elsewhere.pipe(&asking).await;
                outcome.map(|(v,)| (elsewhere.clone(), v)).map_err(|error| (Some(elsewhere), error))
            }
            // A server that is gone may have been replaced.
            _ => match error {
                // Nothing was sent, and it says nothing of the other servers.
                Error::Away(_) | Error::Resting => {
                    self.look_again().await;
                    Err((Some(link), Error::Silent))
                }
                Error::Unreachable(_) => {
                    self.look_again().await;
                    Err((Some(link), error))
                }
                _ => Err((Some(link), error)),
            },
        }
    }

    /// Every server that keeps slots.
    ///
    /// # Errors
    /// See [`Error`], when nobody tells.
    pub(crate) async fn masters(&self) -> Result<Vec<Link>, Error> {
        if self.map().is_empty() {
            self.look().await?;
        }
        let map = self.map();
        let names: std::collections::BTreeSet<&String> = map.values().collect();
        names.into_iter().map(|name| self.link(name)).collect()
    }

    /// The server that keeps `slot`.
    pub(crate) async fn keeper(&self, slot: u16) -> Result<Link, Error> {
        let known = |map: &Map| map.range(..=slot).next_back().map(|(_, name)| name.clone());
        let name = match known(&self.map()) {
            Some(name) => name,
            None => {
                self.look().await?;
                known(&self.map()).ok_or(Error::Foreign)?
            }
        };
        self.link(&name)
    }

    /// The server that a redirection names.
    fn named(&self, error: &Error) -> Result<Link, Error> {
        self.link(error.elsewhere().ok_or(Error::Foreign)?)
    }

    /// The link to `name`, which is `host:port`.
    fn link(&self, name: &str) -> Result<Link, Error> {
        let links = self.0.links.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(name) {
            return Ok(link.clone());
        }
        drop(links);
        let seed = self.0.seeds.first().ok_or(Error::Address)?;
        let link = Link::new(&seed.on(name).ok_or(Error::Foreign)?, self.0.deadline)?;
        let mut links = self.0.links.write().unwrap_or_else(PoisonError::into_inner);
        Ok(links.entry(name.to_owned()).or_insert(link).clone())
    }

    fn map(&self) -> Arc<Map> {
        Arc::clone(&self.0.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the map; whoever comes meanwhile waits and takes what was found.
    async fn look(&self) -> Result<(), Error> {
        let mut looked = self.0.looked.lock().await;
        if looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return if self.map().is_empty() { Err(Error::Resting) } else { Ok(()) };
        }
        *looked = Some(Instant::now());
        let known: Vec<Link> = {
            let links = self.0.links.read().unwrap_or_else(PoisonError::into_inner);
            links.values().cloned().collect()
        };
        let seeds = self.0.seeds.iter().map(|seed| Link::new(seed, self.0.deadline));
        let mut last = Error::Resting;
        for link in known.into_iter().map(Ok).chain(seeds) {
            let mut ask = cmd("CLUSTER");
            ask.arg("SLOTS");
            match link?.query::<Value>(&ask).await {
                Ok(reply) => match read(&reply) {
                    Some(map) if !map.is_empty() => {
                        let mut shared = self.0.map.write().unwrap_or_else(PoisonError::into_inner);
                        *shared = Arc::new(map);
                        return Ok(());
                    }
                    _ => last = Error::Foreign,
                },
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Looks at the map beside whoever asks: the next command finds what was learnt.
    async fn look_again(&self) {
        let cluster = self.clone();
        // Bounded by the links' deadlines; at most one look runs, and not more than one in a while.
        tokio::spawn(async move {
            if let Err(error) = cluster.look().await {
                tracing::debug!(error = %error, "looking at the cluster's map failed");
            }
        });
    }
}

/// Reads `CLUSTER SLOTS`: (first, last, (host, port, …), replicas…) per range. Slots that nobody keeps are asked of
/// their neighbour, which refuses them.
fn read(reply: &Value) -> Option<Map> {
    let Value::Array(ranges) = reply else { return None };
    let range = |range: &Value| {
        let Value::Array(range) = range else { return None };
        let [Value::Int(first), _, Value::Array(keeper), ..] = range.as_slice() else {
            return None;
        };
        let [Value::BulkString(host), Value::Int(port), ..] = keeper.as_slice() else {
            return None;
        };
        let host = std::str::from_utf8(host).ok()?;
        Some((u16::try_from(*first).ok()?, format!("{host}:{port}")))
    };
    ranges.iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the Redis Cluster specification, and as a real server says.
    #[test]
    fn a_slot_is_the_crc_of_its_tag() {
        for (tag, expected) in [("123456789", 0x31C3), ("foo", 12182), ("somekey", 11058)] {
            assert_eq!(slot(tag), expected, "{tag}");
        }
    }
}
