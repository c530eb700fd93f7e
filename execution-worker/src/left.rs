//! What runs of an earlier start of this worker used: read from their control groups before those are removed, and kept in a
//! folder until the database has it, so that neither a crash nor an outage in between loses it.
//! Knows nothing of who is charged: nobody is.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use gatehouse_execution::{outcome::Usage, sandbox::SandboxId};
use gatehouse_service::exit::chain;
use gatehouse_store::{Error, Job, Store};
use serde_json::{Value, json};
use tracing::{info, warn};

/// The folder.
#[derive(Debug, Clone)]
pub struct Left(PathBuf);

impl Left {
    /// What is kept in `folder`, which need not be there.
    pub const fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Keeps what the run `id` used. Its group may be removed then.
    pub fn keep(&self, id: SandboxId, usage: &Usage) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        let document =
            json!({"cpu_us": usage.cpu_us, "memory_peak_bytes": usage.memory_peak_bytes});
        let mut file = File::create(self.0.join(id.to_string()))?;
        file.write_all(document.to_string().as_bytes())?;
        file.sync_all()
    }

    /// Brings what is kept to the database. What it does not take now is kept for the next start.
    pub async fn settle(&self, store: &Store) {
        for (path, id, usage) in self.kept() {
            match settle(store, id, &usage).await {
                Ok(metered) => {
                    info!(sandbox = %id, cpu.us = usage.cpu_us, metered,
                        "found what a lost run used");
                }
                Err(error) if error.is_unavailable() => {
                    warn!(error = %chain(&error), "could not say what lost runs used; the next start does");
                    return;
                }
                Err(error) => {
                    warn!(sandbox = %id, error = %chain(&error), "could not say what a lost run used");
                }
            }
            remove(&path);
        }
    }

    /// Whatever else lies there is removed: nobody reads it.
    fn kept(&self) -> Vec<(PathBuf, SandboxId, Usage)> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.path();
            match read(&path) {
                Some((id, usage)) => found.push((path, id, usage)),
                None => remove(&path),
            }
        }
        found
    }
}

async fn settle(store: &Store, id: SandboxId, usage: &Usage) -> Result<bool, Error> {
    let mut tx = store.system(Job::Sweep).await?;
    let metered = tx.meter_left(id, usage).await?;
    tx.commit().await.map(|()| metered)
}

fn read(path: &Path) -> Option<(SandboxId, Usage)> {
    let id = path.file_name()?.to_str()?.parse().ok()?;
    let document: Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
    let number = |name: &str| document.get(name)?.as_u64();
    let (cpu_us, memory_peak_bytes) = (number("cpu_us")?, number("memory_peak_bytes")?);
    Some((id, Usage { cpu_us, memory_peak_bytes, ..Usage::default() }))
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        warn!(path = %path.display(), %error, "left what a lost run used");
    }
}

#[cfg(test)]
mod tests {
    use gatehouse_contract::ExecutionId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_kept_is_read_and_what_is_none_of_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let left = Left::new(dir.path().join("left"));
        assert!(left.kept().is_empty());
        let id = SandboxId { execution: ExecutionId::new(Uuid::from_u128(7)), epoch: 3 };
        let usage = Usage { cpu_us: 5, memory_peak_bytes: 6, ..Usage::default() };
        left.keep(id, &usage).unwrap();
        // Half written before a crash, and somebody else's.
        let half = SandboxId { epoch: 4, ..id };
        fs::write(left.0.join(half.to_string()), r#"{"cpu_us": 5, "mem"#).unwrap();
        fs::write(left.0.join("x"), r#"{"cpu_us": 5, "memory_peak_bytes": 6}"#).unwrap();
        let kept = left.kept();
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert_eq!((kept[0].1, kept[0].2), (id, usage));
        assert_eq!(fs::read_dir(&left.0).unwrap().count(), 1);
    }
}
