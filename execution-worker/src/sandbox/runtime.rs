//! runsc's command line. Every call is bounded in time. Knows nothing of agents.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{process::Child, time::timeout};
use tracing::warn;

use crate::process::Children;

/// How long runsc may take to say its version.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take to forget a sandbox that is dead.
const FORGET: Duration = Duration::from_secs(5);

/// runsc cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{runsc} cannot be run: {cause}")]
pub struct Unusable {
    runsc: PathBuf,
    cause: String,
}

/// The binary and where it keeps its state.
#[derive(Debug)]
pub struct Runtime {
    runsc: PathBuf,
    root: PathBuf,
    children: Children,
}

impl Runtime {
    pub fn new(runsc: &Path, root: PathBuf) -> Self {
        Self { runsc: runsc.to_owned(), root, children: Children::default() }
    }

    /// The calls that are waited for.
    pub fn children(&self) -> &Children {
        &self.children
    }

    /// What every call says. No network, no writable layer over the image, and the platform by name: the default
    /// depends on the version.
    pub fn command(&self, log: Option<&Path>) -> Command {
        let mut command = Command::new(&self.runsc);
        command.arg("--root").arg(&self.root).args([
            "--platform=systrap",
            "--network=none",
            "--overlay2=none",
        ]);
        if let Some(log) = log {
            command.arg("--log").arg(log).arg("--log-format=json");
        }
        // Nothing of the worker's environment (passwords in URLs) is inherited.
        command.env_clear().current_dir("/");
        command
    }

    /// The first line of `runsc --version`.
    pub async fn version(&self) -> Result<String, Unusable> {
        let mut command = tokio::process::Command::new(&self.runsc);
        command.arg("--version").env_clear().stdin(Stdio::null()).kill_on_drop(true);
        let unusable = |cause: String| Unusable { runsc: self.runsc.clone(), cause };
        let output = match timeout(ANSWER, command.output()).await {
            Ok(Ok(output)) if output.status.success() => output,
            Ok(Ok(output)) => return Err(unusable(output.status.to_string())),
            Ok(Err(error)) => return Err(unusable(error.to_string())),
            Err(_) => return Err(unusable(format!("no answer within {} s", ANSWER.as_secs()))),
        };
        let text = String::from_utf8_lossy(&output.stdout);
        match text.lines().next().map(str::trim) {
            Some(line) if line.starts_with("runsc version ") => Ok(line.to_owned()),
            _ => Err(unusable("it does not call itself runsc".to_owned())),
        }
    }

    /// Removes what runsc remembers of the dead sandbox `id`.
    pub async fn forget(&self, id: &str) {
        if self.files_of(id).any(|name| name.ends_with(".state")) {
            self.delete(id).await;
        }
        // runsc leaves its lock and its socket where a sandbox was killed, and all where it cannot read its state.
        for name in self.files_of(id) {
            if let Err(error) = std::fs::remove_file(self.root.join(&name)) {
                warn!(file = name, error = %error, "left a state file of runsc");
            }
        }
    }

    async fn delete(&self, id: &str) {
        let mut command = tokio::process::Command::from(self.command(None));
        command.args(["delete", "--force", id]).stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        match self.children.spawn(&mut command) {
            Ok(mut child) => match timeout(FORGET, child.wait()).await {
                Ok(Ok(status)) if status.success() => {}
                Ok(status) => warn!(sandbox = id, ?status, "runsc did not delete a dead sandbox"),
                Err(_) => {
                    kill_group_of(&child);
                    warn!(sandbox = id, "runsc hung while it deleted a dead sandbox");
                }
            },
            Err(error) => warn!(sandbox = id, error = %error, "runsc could not be started"),
        }
    }

    /// The ids that runsc remembers.
    pub fn remembered(&self) -> Vec<String> {
        let mut ids: Vec<String> = self
            .files()
            .filter_map(|name| Some(name.split_once("_sandbox:")?.1.split_once('.')?.0.to_owned()))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn files(&self) -> impl Iterator<Item = String> {
        std::fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
    }

    fn files_of(&self, id: &str) -> impl Iterator<Item = String> {
        self.files().filter(move |name| name.contains(id))
    }
}

/// SIGKILL to the process group that `child` leads. Nothing where it has been waited for.
pub fn kill_group_of(child: &Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid
        && let Err(error) = kill_process_group(pid, Signal::KILL)
    {
        warn!(pid = pid.as_raw_nonzero().get(), error = %error, "could not kill a process group");
    }
}
