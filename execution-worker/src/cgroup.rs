//! The control groups of this worker: made, limited, read and removed by the worker itself, since runsc applies no
//! limits to a group that exists and takes the counters away with one that it makes.
//!
//! Version 1 (one tree per controller) and version 2 (one tree). Knows neither runsc nor executions.

mod files;
mod tree;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use gatehouse_execution::{Limits, outcome::Usage};

use tree::Tree;

/// The folder above all workers' groups.
const FAMILY: &str = "gatehouse";
/// How often a group that is still in use is looked at again.
const AGAIN: Duration = Duration::from_millis(1);
/// Where the kernel's trees are.
pub const ROOT: &str = "/sys/fs/cgroup";

/// Why a control group could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither version offers memory, cpu and pids.
    #[error("{0} has no control groups with memory, cpu and pids")]
    Unsupported(PathBuf),
    /// A file or folder could not be made, read, written or removed.
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
    /// Processes survived SIGKILL until the deadline.
    #[error("processes of {0} did not die")]
    Alive(String),
}

/// The groups of one worker.
#[derive(Debug, Clone)]
pub struct Groups {
    tree: Tree,
    worker: String,
}

/// One run's group. Not removed by dropping: the counters are read first.
#[derive(Debug)]
pub struct Group {
    tree: Tree,
    path: String,
}

// === impl Groups ===

impl Groups {
    /// The groups of the worker called `worker` (one folder name), in the trees below `root` ([`ROOT`]).
    /// Makes the worker's own group, and with it proves that groups can be written here.
    pub fn open(root: &Path, worker: &str) -> Result<Self, Error> {
        let groups = Self { tree: Tree::detect(root)?, worker: worker.to_owned() };
        groups.tree.prepare(&[FAMILY, worker])?;
        Ok(groups)
    }

    /// The version of the trees: 1 or 2.
    pub fn version(&self) -> u8 {
        self.tree.version()
    }

    /// Makes a group with `limits`.
    pub fn create(&self, name: &str, limits: &Limits) -> Result<Group, Error> {
        let group = self.group(name);
        group.tree.make(&group.path)?;
        if let Err(error) = group.tree.limit(&group.path, limits) {
            drop(group.tree.remove(&group.path));
            return Err(error);
        }
        Ok(group)
    }

    /// The names of the groups that exist, such as those that an earlier start of this worker left.
    pub fn left(&self) -> Result<Vec<String>, Error> {
        self.tree.children(&format!("{FAMILY}/{}", self.worker))
    }

    /// The group called `name`, whether it exists or not.
    pub fn group(&self, name: &str) -> Group {
        Group { tree: self.tree.clone(), path: format!("{FAMILY}/{}/{name}", self.worker) }
    }

    /// Removes the worker's own group, at its end.
    pub fn close(&self) -> Result<(), Error> {
        self.tree.remove(&format!("{FAMILY}/{}", self.worker))
    }
}

// === impl Group ===

impl Group {
    /// As the OCI runtime configuration names it: from the root of the hierarchy.
    pub fn runtime_path(&self) -> String {
        format!("/{}", self.path)
    }

    /// The files through which a process joins the group: one per tree.
    pub fn tasks(&self) -> Vec<PathBuf> {
        self.tree.folders(&self.path).iter().map(|folder| folder.join("cgroup.procs")).collect()
    }

    /// Whether the process `pid` is in it.
    pub fn holds(&self, pid: i32) -> bool {
        let pid = pid.to_string();
        let held = |file: &PathBuf| {
            let listed = std::fs::read_to_string(file).unwrap_or_default();
            listed.lines().any(|line| line.trim() == pid)
        };
        self.tasks().iter().all(held)
    }

    /// What was counted so far. Missing counters are zero.
    pub fn usage(&self) -> Usage {
        self.tree.usage(&self.path)
    }

    /// Kills every process of the group until none is left.
    pub async fn kill(&self, within: Duration) -> Result<(), Error> {
        let until = tokio::time::Instant::now() + within;
        loop {
            if self.tree.kill(&self.path)? == 0 {
                return Ok(());
            }
            if tokio::time::Instant::now() >= until {
                return Err(Error::Alive(self.path.clone()));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Removes the group. Waits for the kernel, which keeps a group busy for a moment after its last process.
    pub async fn remove(self, within: Duration) -> Result<(), Error> {
        let until = tokio::time::Instant::now() + within;
        loop {
            match self.tree.remove(&self.path) {
                Ok(()) => return Ok(()),
                Err(error) if tokio::time::Instant::now() >= until => return Err(error),
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }
}

#[cfg(test)]
mod tests;
