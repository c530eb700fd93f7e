//! Results that could not be told while the database was away: one sealed file each in the worker's own folder, on the disk
//! before it counts, so that a result outlives a restart of its worker. Bounded by the runs of one worker: while anything is
//! here, nothing new is taken.
//! Knows neither the database nor what becomes of a result.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use gatehouse_contract::{ExecutionId, TenantId};
use gatehouse_execution::{
    EndReason, Record,
    outcome::{Captured, Outcome, Usage},
    provenance::Provenance,
    sandbox::SandboxId,
};
use gatehouse_store::{CannotOpen, MasterKeys};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use tracing::error;
use uuid::Uuid;

use crate::hooks::Ran;

/// What is not written to its end.
const UNFINISHED: &str = "new";
/// What cannot be read: left for people, and out of the way.
const UNREADABLE: &str = "unreadable";
/// A result and what is said beside it are no longer than this.
const MOST_BYTES: u64 = 64 << 20;

/// The end of an attempt, as the database is told it.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Whose execution.
    pub tenant: TenantId,
    /// Which.
    pub execution: ExecutionId,
    /// Under which claim.
    pub lease_epoch: u64,
    /// Which attempt.
    pub attempt: u32,
    /// What ran of its hooks.
    pub hooks: Vec<Ran>,
    /// How it ended.
    pub outcome: Outcome,
    /// What is stored with it.
    pub record: Record,
}

/// The folder.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    keys: MasterKeys,
    waiting: watch::Sender<usize>,
}

/// Why a result is not kept, or not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or a file of it.
    #[error("{what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Sealed under a key that is not in the file any more, or changed.
    #[error("it does not open")]
    Sealed(#[from] CannotOpen),
    /// The result cannot be sealed.
    #[error("it cannot be sealed")]
    Seal,
    /// Not what this build writes.
    #[error("it is not understood")]
    Form,
}

/// A [`Report`] as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    tenant: TenantId,
    execution: ExecutionId,
    lease_epoch: u64,
    attempt: u32,
    /// Point, run and how it ended, if it ran.
    hooks: Vec<(String, Uuid, Option<String>)>,
    reason: String,
    output: Option<Value>,
    message: Option<String>,
    oom_kills: u64,
    pids_refused: u64,
    cpu_us: u64,
    memory_peak_bytes: u64,
    egress_requests: u64,
    tokens: u64,
    wall_us: u64,
    provenance: Option<Provenance>,
    log: Vec<u8>,
    log_bytes: u64,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}

// === impl Spool ===

impl Spool {
    /// The spool in `dir`, which is made where it is missing. What an earlier start did not write to its end is removed: it
    /// never counted.
    pub fn open(dir: PathBuf, keys: MasterKeys) -> Result<Self, Error> {
        fs::create_dir_all(&dir).map_err(failed("making", &dir))?;
        let spool = Self { dir, keys, waiting: watch::Sender::new(0) };
        for name in spool.names()? {
            if name.ends_with(UNFINISHED) {
                let path = spool.dir.join(&name);
                fs::remove_file(&path).map_err(failed("removing", &path))?;
            }
        }
        spool.count()?;
        Ok(spool)
    }

    /// How many results wait.
    pub fn waiting(&self) -> usize {
        *self.waiting.borrow()
    }

    /// Ends when nothing waits.
    pub async fn emptied(&self) {
        // The sender is ours.
        drop(self.waiting.subscribe().wait_for(|waiting| *waiting == 0).await);
    }

    /// Ends when something waits.
    pub async fn filled(&self) {
        drop(self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await);
    }

    /// Keeps a result. When this returns it is on the disk. Blocks.
    pub fn put(&self, report: &Report) -> Result<(), Error> {
        let name = name_of(report)?;
        let plain = serde_json::to_vec(&Written::from(report)).map_err(|_| Error::Form)?;
        let sealed = self.keys.seal(&bound(&name), &plain).map_err(|_| Error::Seal)?;
        let aside = self.dir.join(format!("{}.{UNFINISHED}", Uuid::new_v4()));
        let path = self.dir.join(&name);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .open(&aside)
            .map_err(failed("making", &aside))?;
        let written = file
            .write_all(&sealed)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&aside, &path))
            .and_then(|()| File::open(&self.dir)?.sync_all());
        if let Err(error) = written {
            // Of a full disk everything is given back.
            drop(fs::remove_file(&aside));
            return Err(failed("writing", &path)(error));
        }
        self.count()
    }

    /// What waits. What cannot be read is said once and put out of the way. Blocks.
    pub fn reports(&self) -> Result<Vec<Report>, Error> {
        let mut reports = Vec::new();
        for name in self.names()? {
            if name.ends_with(UNFINISHED) || name.ends_with(UNREADABLE) {
                continue;
            }
            match self.read(&name) {
                Ok(report) => reports.push(report),
                Err(error) => {
                    let (path, aside) = (self.dir.join(&name), format!("{name}.{UNREADABLE}"));
                    error!(file = %path.display(), error = %gatehouse_service::exit::chain(&error),
                        "a kept result cannot be read");
                    fs::rename(&path, self.dir.join(aside)).map_err(failed("renaming", &path))?;
                }
            }
        }
        self.count()?;
        Ok(reports)
    }

    /// A result that was told, or that nobody waits for, is kept no longer. Blocks.
    pub fn remove(&self, report: &Report) -> Result<(), Error> {
        let path = self.dir.join(name_of(report)?);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("removing", &path)(error));
            }
            _ => {}
        }
        self.count()
    }

    fn read(&self, name: &str) -> Result<Report, Error> {
        let path = self.dir.join(name);
        let size = fs::metadata(&path).map_err(failed("reading", &path))?.len();
        if size > MOST_BYTES {
            return Err(Error::Form);
        }
        let sealed = fs::read(&path).map_err(failed("reading", &path))?;
        let plain = self.keys.open(&bound(name), &sealed)?;
        let written: Written = serde_json::from_slice(&plain).map_err(|_| Error::Form)?;
        written.try_into()
    }

    fn names(&self) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed("reading", &self.dir))? {
            let entry = entry.map_err(failed("reading", &self.dir))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn count(&self) -> Result<(), Error> {
        let waits = |name: &String| !name.ends_with(UNFINISHED) && !name.ends_with(UNREADABLE);
        let waiting = self.names()?.iter().filter(|name| waits(name)).count();
        self.waiting.send_replace(waiting);
        Ok(())
    }
}

/// The file of an attempt: there can be one only.
fn name_of(report: &Report) -> Result<String, Error> {
    let epoch = u32::try_from(report.lease_epoch).map_err(|_| Error::Form)?;
    Ok(SandboxId { execution: report.execution, epoch }.to_string())
}

/// What was sealed for one file opens in no other.
fn bound(name: &str) -> String {
    format!("gatehouse/spool/{name}")
}

// === impl Written ===

impl From<&Report> for Written {
    fn from(report: &Report) -> Self {
        let Report { tenant, execution, lease_epoch, attempt, hooks, outcome, record } = report;
        let Usage { oom_kills, pids_refused, cpu_us, memory_peak_bytes, egress_requests, tokens } =
            record.usage;
        Self {
            tenant: *tenant,
            execution: *execution,
            lease_epoch: *lease_epoch,
            attempt: *attempt,
            hooks: hooks.iter().map(written).collect(),
            reason: outcome.reason.to_string(),
            output: outcome.output.clone(),
            message: outcome.message.clone(),
            oom_kills,
            pids_refused,
            cpu_us,
            memory_peak_bytes,
            egress_requests,
            tokens,
            wall_us: u64::try_from(record.wall.as_micros()).unwrap_or(u64::MAX),
            provenance: record.provenance.clone(),
            log: record.log.bytes.clone(),
            log_bytes: record.log.total_bytes,
        }
    }
}

impl TryFrom<Written> for Report {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self, Error> {
        let reason = EndReason::from_str(&written.reason).map_err(|_| Error::Form)?;
        Ok(Self {
            tenant: written.tenant,
            execution: written.execution,
            lease_epoch: written.lease_epoch,
            attempt: written.attempt,
            hooks: written.hooks.into_iter().map(read).collect::<Result<_, _>>()?,
            outcome: Outcome { reason, output: written.output, message: written.message },
            record: Record {
                usage: Usage {
                    oom_kills: written.oom_kills,
                    pids_refused: written.pids_refused,
                    cpu_us: written.cpu_us,
                    memory_peak_bytes: written.memory_peak_bytes,
                    egress_requests: written.egress_requests,
                    tokens: written.tokens,
                },
                wall: Duration::from_micros(written.wall_us),
                provenance: written.provenance,
                log: Captured { bytes: written.log, total_bytes: written.log_bytes },
            },
        })
    }
}

fn written(ran: &Ran) -> (String, Uuid, Option<String>) {
    (ran.hook.to_string(), ran.run_id, ran.end.map(|reason| reason.to_string()))
}

fn read((hook, run_id, end): (String, Uuid, Option<String>)) -> Result<Ran, Error> {
    let hook = hook.parse().map_err(|_| Error::Form)?;
    let end = end.map(|end| end.parse()).transpose().map_err(|_| Error::Form)?;
    Ok(Ran { hook, run_id, end })
}

#[cfg(test)]
mod tests {
    use gatehouse_execution::Hook;
    use serde_json::json;

    use super::*;

    fn report(output: Value) -> Report {
        Report {
            tenant: TenantId::new(Uuid::new_v4()),
            execution: ExecutionId::new(Uuid::new_v4()),
            lease_epoch: 3,
            attempt: 2,
            hooks: vec![Ran {
                hook: Hook::Cleanup,
                run_id: Uuid::new_v4(),
                end: Some(EndReason::Failed),
            }],
            outcome: Outcome { reason: EndReason::Completed, output: Some(output), message: None },
            record: Record { wall: Duration::from_micros(1500), ..Record::default() },
        }
    }

    fn open(dir: &Path, key: &str) -> Spool {
        Spool::open(dir.to_owned(), MasterKeys::parse(&key.repeat(64)).unwrap()).unwrap()
    }

    #[test]
    fn what_was_put_is_there_after_a_restart_and_says_nothing_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let kept = report(json!({"secret": "diesel"}));
        let spool = open(dir.path(), "a");
        spool.put(&kept).unwrap();
        // Again, as after a commit of unknown fate: it is one.
        spool.put(&kept).unwrap();
        assert_eq!(spool.waiting(), 1);
        fs::write(dir.path().join("x.new"), "half").unwrap();
        let again = open(dir.path(), "a");
        assert_eq!((again.waiting(), again.reports().unwrap()), (1, vec![kept.clone()]));
        for entry in fs::read_dir(dir.path()).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains("diesel"));
        }
        again.remove(&kept).unwrap();
        assert_eq!((again.waiting(), again.reports().unwrap()), (0, Vec::new()));
        again.remove(&kept).unwrap();
    }

    #[test]
    fn what_does_not_open_is_out_of_the_way_and_stays_for_people() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), "a").put(&report(json!(1))).unwrap();
        let other = open(dir.path(), "b");
        assert_eq!((other.reports().unwrap(), other.waiting()), (Vec::new(), 0));
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.len() == 1 && left[0].to_string_lossy().ends_with(UNREADABLE), "{left:?}");
        // One file's content in another one's place.
        let spool = open(dir.path(), "a");
        let (one, two) = (report(json!(1)), report(json!(2)));
        spool.put(&one).unwrap();
        let (from, to) = (name_of(&one).unwrap(), name_of(&two).unwrap());
        fs::rename(dir.path().join(from), dir.path().join(to)).unwrap();
        assert_eq!(spool.reports().unwrap(), Vec::new());
    }
}
