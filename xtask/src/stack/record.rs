//! What an instance has started, written down before it matters: so that after a SIGKILL of xtask the next
//! start finds exactly those processes again, and no stranger that got one of their numbers.
//! Knows nothing of what the processes are.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal},
};
use serde::{Deserialize, Serialize};

use super::{instance::worker_dir, user::data_elsewhere};
use crate::command::signal_group;

/// Set for every process of an instance, to the instance's directory: their children carry it too, so that
/// even one that was started and not yet written down is found.
pub const MARK: &str = "GATEHOUSE_INSTANCE";

/// A process that cannot be mistaken: its number, and when it started (in ticks since this boot).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// For people.
    pub name: String,
    /// Its number; it leads a process group of the same number.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`.
    pub started: u64,
    /// Which boot the ticks count from.
    pub boot: String,
}

impl Process {
    /// Reads the identity of a running process.
    pub fn of(name: &str, pid: u32) -> anyhow::Result<Self> {
        let pid = i32::try_from(pid).context("a process number beyond 31 bits")?;
        let started = started(pid).with_context(|| format!("{name} is gone already"))?;
        Ok(Self { name: name.to_owned(), pid, started, boot: boot() })
    }

    /// Whether it runs still (a zombie does not).
    pub fn runs(&self) -> bool {
        self.boot == boot() && started(self.pid) == Some(self.started)
    }

    /// Sends `signal` to it and its process group, if it is still the same one; whether it was reached.
    pub fn signal(&self, signal: Signal) -> bool {
        match Pid::from_raw(self.pid).filter(|_| self.runs()) {
            // A leftover found by its mark may lead no group.
            Some(pid) => {
                signal_group(pid, signal) || rustix::process::kill_process(pid, signal).is_ok()
            }
            None => false,
        }
    }
}

/// When `pid` started, in ticks since boot. `None`: no such process, or one that has ended.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and parentheses: the fields begin after the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    // `state` is field 3.
    fields.nth(22 - 4)?.parse().ok()
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The directory of one instance, held by a lock for as long as xtask lives.
#[derive(Debug)]
pub struct Run {
    dir: PathBuf,
    _lock: File,
}

/// Whether a run directory could be had.
#[derive(Debug)]
pub enum Claim {
    /// It is ours now.
    Ours(Run),
    /// Another xtask runs this instance.
    Taken,
}

impl Run {
    /// Makes `dir` and takes its lock.
    pub fn claim(dir: &Path) -> anyhow::Result<Claim> {
        fs::create_dir_all(dir.join("log")).with_context(|| format!("making {}", dir.display()))?;
        let file = dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&file)
            .with_context(|| format!("opening {}", file.display()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Claim::Ours(Self { dir: dir.to_owned(), _lock: lock })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(Claim::Taken),
            Err(error) => Err(error).with_context(|| format!("locking {}", file.display())),
        }
    }

    /// The instance's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn file(&self) -> PathBuf {
        self.dir.join("processes.jsonl")
    }

    /// Notes a process that was just started.
    pub fn note(&self, process: &Process) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(process)?;
        line.push('\n');
        let file = self.file();
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&file)
            .and_then(|mut open| open.write_all(line.as_bytes()))
            .with_context(|| format!("writing {}", file.display()))
    }

    /// Every process noted since the last [`Self::forget`]. A line cut short by a crash is left out.
    pub fn noted(&self) -> Vec<Process> {
        fs::read_to_string(self.file())
            .unwrap_or_default()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Forgets them: nothing of the instance runs any more.
    pub fn forget(&self) -> anyhow::Result<()> {
        match fs::remove_file(self.file()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("removing the list of processes")
            }
            _ => Ok(()),
        }
    }
}

/// Processes that carry the mark of the instance at `dir`, or are its databases or its worker's sandboxes.
pub fn marked(dir: &Path) -> Vec<Process> {
    let mark = format!("{MARK}={}", dir.display()).into_bytes();
    let sandbox_root = worker_dir(dir).display().to_string();
    let own = std::process::id();
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    all.flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            has_mark(*pid, &mark) || is_database(*pid, dir) || is_sandbox(*pid, &sandbox_root)
        })
        .filter_map(|pid| Process::of("leftover", pid).ok())
        .collect()
}

fn has_mark(pid: u32, mark: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|all| all.split(|byte| *byte == 0).any(|variable| variable == mark))
}

/// PostgreSQL and Redis write their state over their environment; they live in the instance's data directory.
fn is_database(pid: u32, dir: &Path) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let Ok(place) = fs::read_link(format!("/proc/{pid}/cwd")) else { return false };
    matches!(name.trim(), "postgres" | "redis-server")
        && (place.starts_with(dir) || place.starts_with(data_elsewhere(dir)))
}

/// runsc clears the environment of its sandboxes; they name the worker's directory as their `--root`.
fn is_sandbox(pid: u32, root: &str) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split('\0');
    let program = words.next().unwrap_or_default();
    let inside = |path: &str| {
        path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    program.rsplit('/').next().is_some_and(|name| name.starts_with("runsc"))
        && words.any(|word| inside(word.strip_prefix("--root=").unwrap_or(word)))
}

#[cfg(test)]
mod tests {
    use std::{
        process::Command,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn a_process_is_known_by_number_and_start() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let real = Process::of("sleep", child.id()).unwrap();
        assert!(real.runs());
        // The same number, but another life: never signalled.
        let stranger = Process { started: real.started + 1, ..real.clone() };
        assert!(!stranger.runs());
        assert!(!stranger.signal(Signal::KILL));
        assert!(real.runs());
        let before_boot = Process { boot: "another".to_owned(), ..real.clone() };
        assert!(!before_boot.signal(Signal::KILL));
        assert!(real.runs());
        real.signal(Signal::KILL);
        child.wait().unwrap();
        assert!(!real.runs());
    }

    #[test]
    fn a_directory_has_one_holder_and_keeps_its_list() {
        let dir = std::env::temp_dir().join(format!("gatehouse-record-{}", std::process::id()));
        let Claim::Ours(run) = Run::claim(&dir).unwrap() else { panic!("taken") };
        assert!(matches!(Run::claim(&dir).unwrap(), Claim::Taken));
        let mut child = Command::new("sleep").arg("60").env(MARK, &dir).spawn().unwrap();
        let process = Process::of("sleep", child.id()).unwrap();
        run.note(&process).unwrap();
        drop(run);
        let Claim::Ours(run) = Run::claim(&dir).unwrap() else { panic!("still taken") };
        assert_eq!(run.noted(), std::slice::from_ref(&process));
        // The kernel lets the parent go on a moment before the child's new environment can be read.
        let until = Instant::now() + Duration::from_secs(10);
        while !marked(&dir).iter().any(|found| found.pid == process.pid) {
            assert!(Instant::now() < until, "not found by its mark");
        }
        assert!(marked(&dir.join("other")).is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
        run.forget().unwrap();
        assert!(run.noted().is_empty());
        drop(run);
        fs::remove_dir_all(dir).unwrap();
    }
}
