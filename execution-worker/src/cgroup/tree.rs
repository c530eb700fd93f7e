//! The two versions of the kernel's interface: which files mean what.
//! Knows nothing of whose groups they are.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use gatehouse_execution::{Limits, outcome::Usage};
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};

use super::{Error, files};

/// The window of the CPU quota, in microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;
/// The trees of version 1 that we use.
const CONTROLLERS: [&str; 4] = ["memory", "cpu", "cpuacct", "pids"];

/// Where the groups are, by version.
#[derive(Debug, Clone)]
pub enum Tree {
    /// One tree per controller below this folder.
    V1(PathBuf),
    /// One tree at this folder.
    V2(PathBuf),
}

fn quota_us(limits: &Limits) -> u64 {
    // The kernel refuses less than 1 ms.
    (u64::from(limits.cpu_millis) * PERIOD_US / 1000).max(1000)
}

impl Tree {
    pub fn detect(root: &Path) -> Result<Self, Error> {
        if root.join("cgroup.controllers").exists() {
            let offered = files::read(root, "cgroup.controllers");
            let offered: BTreeSet<&str> = offered.split_whitespace().collect();
            if ["memory", "cpu", "pids"].iter().all(|wanted| offered.contains(wanted)) {
                return Ok(Self::V2(root.to_owned()));
            }
        } else if CONTROLLERS.iter().all(|name| root.join(name).join("cgroup.procs").exists()) {
            return Ok(Self::V1(root.to_owned()));
        }
        Err(Error::Unsupported(root.to_owned()))
    }

    pub const fn version(&self) -> u8 {
        match self {
            Self::V1(_) => 1,
            Self::V2(_) => 2,
        }
    }

    /// The folders of the group `path`.
    pub fn folders(&self, path: &str) -> Vec<PathBuf> {
        match self {
            Self::V1(root) => CONTROLLERS.iter().map(|name| root.join(name).join(path)).collect(),
            Self::V2(root) => vec![root.join(path)],
        }
    }

    /// Makes the groups `parts`, one within the other, such that the innermost can have limited children.
    pub fn prepare(&self, parts: &[&str]) -> Result<(), Error> {
        let mut path = String::new();
        self.hand_down(&path)?;
        for part in parts {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(part);
            self.make(&path)?;
            self.hand_down(&path)?;
        }
        Ok(())
    }

    /// Version 2 offers a controller to a group's children only where the group says so.
    fn hand_down(&self, path: &str) -> Result<(), Error> {
        match self {
            Self::V1(_) => Ok(()),
            Self::V2(root) => {
                files::write(&root.join(path), "cgroup.subtree_control", "+memory +cpu +pids")
            }
        }
    }

    pub fn make(&self, path: &str) -> Result<(), Error> {
        self.folders(path).iter().try_for_each(|folder| files::make(folder))
    }

    pub fn remove(&self, path: &str) -> Result<(), Error> {
        // In version 1 the runtime joins the trees that we do not use, too, and may leave a group there.
        let mut folders = self.folders(path);
        if let Self::V1(root) = self {
            for name in files::children(root)? {
                let folder = root.join(name).join(path);
                if folder.exists() && !folders.contains(&folder) {
                    folders.push(folder);
                }
            }
        }
        folders.iter().try_for_each(|folder| files::remove(folder))
    }

    pub fn children(&self, path: &str) -> Result<Vec<String>, Error> {
        let mut names = BTreeSet::new();
        for folder in self.folders(path) {
            names.extend(files::children(&folder)?);
        }
        Ok(names.into_iter().collect())
    }

    pub fn limit(&self, path: &str, limits: &Limits) -> Result<(), Error> {
        match self {
            Self::V1(root) => {
                let folder = |name: &str| root.join(name).join(path);
                let memory = folder("memory");
                files::write(&memory, "memory.limit_in_bytes", limits.memory_bytes)?;
                // Only where swap is accounted; it may not be below the memory limit.
                let swap = "memory.memsw.limit_in_bytes";
                files::write_where_offered(&memory, swap, limits.memory_bytes)?;
                files::write(&folder("cpu"), "cpu.cfs_period_us", PERIOD_US)?;
                files::write(&folder("cpu"), "cpu.cfs_quota_us", quota_us(limits))?;
                files::write(&folder("pids"), "pids.max", limits.host_pids)
            }
            Self::V2(root) => {
                let group = root.join(path);
                files::write(&group, "memory.max", limits.memory_bytes)?;
                files::write_where_offered(&group, "memory.swap.max", 0)?;
                // A sandbox without one of its processes is of no use.
                files::write_where_offered(&group, "memory.oom.group", 1)?;
                files::write(&group, "cpu.max", format!("{} {PERIOD_US}", quota_us(limits)))?;
                files::write(&group, "pids.max", limits.host_pids)
            }
        }
    }

    pub fn usage(&self, path: &str) -> Usage {
        match self {
            Self::V1(root) => {
                let folder = |name: &str| root.join(name).join(path);
                Usage {
                    oom_kills: files::field(&folder("memory"), "memory.oom_control", "oom_kill"),
                    pids_refused: files::field(&folder("pids"), "pids.events", "max"),
                    cpu_us: files::number(&folder("cpuacct"), "cpuacct.usage") / 1000,
                    memory_peak_bytes: files::number(
                        &folder("memory"),
                        "memory.max_usage_in_bytes",
                    ),
                    ..Usage::default()
                }
            }
            Self::V2(root) => {
                let group = root.join(path);
                Usage {
                    oom_kills: files::field(&group, "memory.events", "oom_kill"),
                    pids_refused: files::field(&group, "pids.events", "max"),
                    cpu_us: files::field(&group, "cpu.stat", "usage_usec"),
                    memory_peak_bytes: files::number(&group, "memory.peak"),
                    ..Usage::default()
                }
            }
        }
    }

    /// Sends SIGKILL to every process of the group and returns how many there were.
    pub fn kill(&self, path: &str) -> Result<usize, Error> {
        let mut pids = BTreeSet::new();
        for folder in self.folders(path) {
            let listed = files::read(&folder, "cgroup.procs");
            pids.extend(listed.lines().filter_map(|line| line.trim().parse::<i32>().ok()));
        }
        for pid in &pids {
            // 0 stands for a process of another pid namespace: not ours to reach.
            if let Some(pid) = Pid::from_raw(*pid) {
                match kill_process(pid, Signal::KILL) {
                    // One that is gone already is what is wanted.
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(error) => {
                        let path = PathBuf::from(format!("process {}", pid.as_raw_nonzero()));
                        return Err(Error::Io { what: "killing", path, source: error.into() });
                    }
                }
            }
        }
        Ok(pids.len())
    }
}
