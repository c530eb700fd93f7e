//! Removes what an instance left behind: processes, cgroups, mounts. Only its own: each is known by the
//! instance's record, mark or directory. Knows nothing of how they came to be.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::{
    mount::{UnmountFlags, unmount},
    process::Signal,
};

use super::{
    instance::worker_dir,
    record::{Process, Run, marked},
};

/// How long leftovers may take to end by themselves, and then after SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// What was found and removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Processes ended.
    pub processes: usize,
    /// Cgroups removed.
    pub cgroups: usize,
    /// Mounts undone.
    pub mounts: usize,
}

impl Swept {
    /// For people; empty when nothing was found.
    pub fn words(&self) -> String {
        [(self.processes, "processes"), (self.cgroups, "cgroups"), (self.mounts, "mounts")]
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// Removes everything that `run`'s instance left.
pub fn sweep(run: &Run) -> anyhow::Result<Swept> {
    let mut swept = Swept::default();
    let recorded: Vec<Process> = run.noted().into_iter().filter(Process::runs).collect();
    swept.processes += recorded.len();
    end(&recorded, Signal::TERM)?;
    // A parent that ends may leave children that were not seen before: look until there are none.
    let until = Instant::now() + GRACE;
    loop {
        let more = marked(run.dir());
        if more.is_empty() {
            break;
        }
        anyhow::ensure!(
            Instant::now() < until,
            "{} leftover processes do not end, the first is {}",
            more.len(),
            more.first().map_or(0, |process| process.pid)
        );
        swept.processes += more.len();
        end(&more, Signal::KILL)?;
    }
    for mount in mounts_below(run.dir()) {
        unmount(&mount, UnmountFlags::DETACH)
            .with_context(|| format!("unmounting {}", mount.display()))?;
        swept.mounts += 1;
    }
    for cgroup in cgroups_of(&worker_dir(run.dir())) {
        swept.cgroups += remove_cgroup(&cgroup)?;
    }
    run.forget()?;
    Ok(swept)
}

/// Ends `processes` with `signal`, after [`GRACE`] with SIGKILL.
pub fn end(processes: &[Process], signal: Signal) -> anyhow::Result<()> {
    for (signal, grace) in [(signal, GRACE), (Signal::KILL, GRACE)] {
        for process in processes {
            process.signal(signal);
        }
        if gone(processes, grace) {
            return Ok(());
        }
    }
    let left: Vec<_> = processes.iter().filter(|process| process.runs()).collect();
    anyhow::bail!("these do not end even by SIGKILL: {left:?}")
}

fn gone(processes: &[Process], within: Duration) -> bool {
    let until = Instant::now() + within;
    loop {
        if !processes.iter().any(Process::runs) {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Mount points below `dir`, the innermost first.
fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .filter(|path| path.starts_with(dir) && path != dir)
        .collect();
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    found
}

/// The cgroup folders of the worker that owns `dir`, in every hierarchy (version 1 has one per controller). They
/// carry the name that the worker gave its folder, which no other folder has.
fn cgroups_of(dir: &Path) -> Vec<PathBuf> {
    let Ok(name) = fs::read_to_string(dir.join("worker")) else { return Vec::new() };
    let Ok(name) = name.trim().parse::<uuid::Uuid>() else { return Vec::new() };
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.path());
    std::iter::once(top.to_owned())
        .chain(hierarchies)
        .map(|hierarchy| hierarchy.join("gatehouse").join(name.to_string()))
        .filter(|folder| folder.is_dir())
        .collect()
}

/// Removes a cgroup and those below it; how many.
fn remove_cgroup(folder: &Path) -> anyhow::Result<usize> {
    let mut removed = 0;
    let below = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in below.flatten().filter(|entry| entry.path().is_dir()) {
        removed += remove_cgroup(&entry.path())?;
    }
    let until = Instant::now() + GRACE;
    loop {
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(removed + 1),
            // Its last process was killed a moment ago.
            Err(error)
                if error.kind() == std::io::ErrorKind::ResourceBusy && Instant::now() < until =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => {
                return Err(error).with_context(|| format!("removing {}", folder.display()));
            }
        }
    }
}
