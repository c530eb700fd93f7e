//! The configuration file while the worker runs: it is read again and again, and what is live in it is taken as soon as it
//! changes. A file is taken whole or not at all, so that the worker always runs what one file says: one with a mistake, or
//! one that changes a key which needs a restart, is kept out, and the log, `/readyz` and `/metrics` say so.
//! Reading beats being told: renamed, written over and swapped behind a link (a ConfigMap's `..data`) look the same.
//! Knows no key but which of them are live.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gatehouse_execution::Limits;
use gatehouse_service::{Shutdown, Stop, config as file};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    config::{self, Config, Live},
    metrics::{Metrics, Reloaded},
};

/// How often the file is read: a change is live within twice this.
const LOOK: Duration = Duration::from_millis(200);
/// Members of the document that hold passwords: no part of a version, which everybody may see.
const SECRET: [&str; 2] = ["database", "redis"];

/// What is in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InEffect {
    /// What a file may change.
    pub live: Live,
    /// Names the document, without what is secret in it: 16 hexadecimal digits, equal for documents that say the same.
    pub version: Arc<str>,
}

/// A configuration file, and what of it is in effect.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    /// The text that is in effect.
    taken: String,
    effect: watch::Sender<InEffect>,
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Nothing new.
    Same,
    /// Something else, which can be taken.
    New(InEffect),
    /// Something that is kept out, and why.
    Not(Reloaded, String),
}

// === impl InEffect ===

impl InEffect {
    /// An execution's limits with those that are the worker's.
    pub const fn limits(&self, limits: Limits) -> Limits {
        Limits { start_timeout: self.live.start, grace: self.live.grace, ..limits }
    }
}

// === impl File ===

impl File {
    /// Reads the file at `path` for the first time.
    ///
    /// # Errors
    /// One line per mistake, with the exit code 64.
    pub fn open(path: &Path) -> Result<(Config, Self), Stop> {
        let taken = file::text(path)?;
        let config = file::parse(path, &taken, config::read)?;
        let effect = InEffect { live: config.live, version: version(&members(&taken)) };
        let effect = watch::Sender::new(effect);
        Ok((config, Self { path: path.to_owned(), taken, effect }))
    }

    /// What is in effect, now and whenever it changes.
    pub fn in_effect(&self) -> watch::Receiver<InEffect> {
        self.effect.subscribe()
    }

    /// Reads the file until the shutdown.
    pub async fn follow(mut self, metrics: Metrics, shutdown: Shutdown) {
        let mut refused = None;
        let mut seen = self.taken.clone();
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let (text, found) = self.look();
            // What is half written is no document yet: a refusal is believed when it is read twice.
            let settled = text == seen;
            seen.clone_from(&text);
            match found {
                Found::Same => {
                    if refused.take().is_some() {
                        info!("the configuration file says again what is in effect");
                        metrics.reloaded(Reloaded::Taken);
                    }
                }
                Found::New(effect) => {
                    refused = None;
                    info!(config.version = %effect.version, concurrency = effect.live.concurrency,
                        drain.s = effect.live.drain.as_secs(), "took the changed configuration");
                    self.taken = text;
                    self.effect.send_replace(effect);
                    metrics.reloaded(Reloaded::Taken);
                }
                Found::Not(how, why) if settled && refused.as_ref() != Some(&why) => {
                    warn!(error = %why, "kept the changed configuration out");
                    metrics.reloaded(how);
                    refused = Some(why);
                }
                Found::Not(..) => {}
            }
        }
    }

    /// Reads the file, which is small and in memory, as every start does.
    fn look(&self) -> (String, Found) {
        let text = match file::text(&self.path) {
            Ok(text) => text,
            Err(stop) => return (String::new(), Found::Not(Reloaded::Refused, stop.to_string())),
        };
        if text == self.taken {
            return (text, Found::Same);
        }
        let found = match file::parse(&self.path, &text, config::read) {
            Ok(config) => self.judge(&text, &config),
            Err(stop) => Found::Not(Reloaded::Refused, stop.to_string()),
        };
        (text, found)
    }

    fn judge(&self, text: &str, config: &Config) -> Found {
        let (before, after) = (members(&self.taken), members(text));
        let fixed: Vec<&str> = before
            .keys()
            .chain(after.keys().filter(|key| !before.contains_key(*key)))
            .map(String::as_str)
            .filter(|key| !Live::KEYS.contains(key) && before.get(*key) != after.get(*key))
            .collect();
        if fixed.is_empty() {
            return Found::New(InEffect { live: config.live, version: version(&after) });
        }
        let why = format!("a restart is needed for what it says of {}", fixed.join(", "));
        Found::Not(Reloaded::NeedsRestart, why)
    }
}

/// The document's members; what is no object has none, and was refused before.
fn members(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

fn version(members: &Map<String, Value>) -> Arc<str> {
    let open: Map<String, Value> = members
        .iter()
        .filter(|(key, _)| !SECRET.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let hash = Sha256::digest(Value::Object(open).to_string());
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(document: &Value) -> Arc<str> {
        version(&members(&document.to_string()))
    }

    #[test]
    fn a_version_names_what_is_said_and_no_secret() {
        let one = of(&json!({"concurrency": 2, "redis": "redis://worker:a@h", "runsc": "/r"}));
        assert_eq!(one.len(), 16);
        assert_eq!(
            one,
            of(&json!({"runsc": "/r", "redis": "redis://worker:b@h", "concurrency": 2}))
        );
        assert_ne!(
            one,
            of(&json!({"concurrency": 3, "redis": "redis://worker:a@h", "runsc": "/r"}))
        );
    }
}
