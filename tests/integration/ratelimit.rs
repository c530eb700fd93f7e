//! The limits over the sidecars' real sockets, with real Redis, single and as a cluster of three. Clients log what
//! they see, and a checker that shares nothing with the product judges the log.

mod chaos;
mod endpoints;
mod exact;
mod outages;
mod quotas;
mod vectors;

use std::time::Duration;

use gatehouse_contract::sidecar::CheckAnswer;
use gatehouse_tests::{
    checker::{Broken, Entry, Promise},
    cluster::Cluster,
    fleet::{Fleet, Settings, Store, redis::Redis},
};
use tempfile::TempDir;

/// Sidecars with the folder of their logs, which stays when a test is red.
struct Stage {
    fleet: Fleet,
    dir: TempDir,
}

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Single,
    Cluster,
}

impl Stage {
    fn new(count: usize, kind: Kind, settings: &Settings) -> Self {
        let dir = tempfile::Builder::new().prefix("gatehouse-limits-").tempdir().unwrap();
        let store = match kind {
            Kind::Single => Store::Redis(Redis::start(dir.path(), "redis").unwrap()),
            Kind::Cluster => Store::Cluster(Cluster::start(dir.path()).unwrap()),
        };
        let fleet = Fleet::start(dir.path(), count, store, settings).unwrap();
        Self { fleet, dir }
    }

    /// Sidecars over one Redis.
    fn single(count: usize, settings: &Settings) -> Self {
        Self::new(count, Kind::Single, settings)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What a red test needs: the logs stay.
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("logs are in {}", self.dir.path().display());
        }
    }
}

/// No window of the log holds more than `limit`, and every request has an answer.
#[track_caller]
fn holds(log: &[Entry], window: Duration, limit: u32) {
    kept(&Promise::strict(window, limit), log);
}

#[track_caller]
fn kept(promise: &Promise, log: &[Entry]) {
    let broken: Vec<String> = promise.broken(log).iter().map(Broken::to_string).collect();
    assert_eq!(broken, [""; 0], "of {} requests", log.len());
}

/// What a client would see: the verdict, then every limit as `name left/of`, the tightest first.
fn shown(answer: &CheckAnswer) -> String {
    let verdict = if answer.allowed { "+" } else { "-" };
    let limit = |limit: &gatehouse_contract::sidecar::LimitState| {
        format!(" {} {}/{}", limit.name, limit.remaining, limit.limit)
    };
    verdict.to_owned() + &answer.limits.iter().map(limit).collect::<String>()
}
