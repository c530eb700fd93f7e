//! runsc's command line, of both versions that Debian has. Every call is bounded in time. Knows nothing of agents.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{process::Child, time::timeout};
use tracing::warn;

use crate::{egress::Network, process::Children};

/// How long runsc may take to say its version.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a call that asks something of a sandbox may take.
const CALL: Duration = Duration::from_secs(5);
/// How long the program of a sandbox that is there may take to be started: fifty times what it takes.
const START: Duration = Duration::from_secs(2);

/// runsc cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{runsc} cannot be run: {cause}")]
pub struct Unusable {
    runsc: PathBuf,
    cause: String,
}

/// Versions from this day on (as a number) have the platform systrap and the flag `--overlay2`; those before run on
/// ptrace and make no overlay unless told to.
const SYSTRAP_SINCE: u32 = 20_230_501;

/// The binary and where it keeps its state.
#[derive(Debug)]
pub struct Runtime {
    runsc: PathBuf,
    root: PathBuf,
    children: Children,
    version: String,
    has_systrap: bool,
}

/// A program's file, as it was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp([u64; 5]);

/// The part of runsc's own record of a sandbox that is looked at.
#[derive(serde::Deserialize)]
struct State {
    status: String,
}

impl Runtime {
    /// Asks `runsc` which version it is. State goes below `root`.
    pub async fn open(runsc: &Path, root: PathBuf) -> Result<(Self, String), Unusable> {
        let version = version(runsc).await?;
        let has_systrap = day_of(&version).is_none_or(|day| day >= SYSTRAP_SINCE);
        let children = Children::default();
        let (runsc, said) = (runsc.to_owned(), version.clone());
        Ok((Self { runsc, root, children, version, has_systrap }, said))
    }

    /// Its version, as it says it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The calls that are waited for.
    pub fn children(&self) -> &Children {
        &self.children
    }

    /// What every call says. No network but `network`, no writable layer over the image, and the platform by name: the
    /// default depends on the version.
    pub fn command(&self, log: Option<&Path>, network: Option<&Network>) -> Command {
        let mut command = Command::new(&self.runsc);
        command.arg("--root").arg(&self.root);
        if let Some(network) = network {
            command.arg("--network=sandbox");
            network.join(&mut command);
        } else {
            command.arg("--network=none");
        }
        if self.has_systrap {
            command.args(["--platform=systrap", "--overlay2=none"]);
        } else {
            command.args(["--platform=ptrace", "--overlay=false"]);
        }
        if let Some(log) = log {
            command.arg("--log").arg(log).arg("--log-format=json");
        }
        // Nothing of the worker's environment (passwords in URLs) is inherited.
        command.env_clear().current_dir("/");
        command
    }

    /// Removes what runsc remembers of the sandbox `id`, of which no process is left. `runsc delete` would do no more, in
    /// 40 ms: the control group and the bundle are not its own.
    pub fn forget(&self, id: &str) {
        for name in self.files_of(id) {
            if let Err(error) = std::fs::remove_file(self.root.join(&name)) {
                warn!(file = name, error = %error, "left a state file of runsc");
            }
        }
    }

    /// The command that makes the sandbox `id` of the bundle at `bundle`, whose program is not started, and writes the
    /// process id of its kernel to `pid_file`.
    pub fn create(
        &self,
        id: &str,
        (bundle, log, pid_file): (&Path, &Path, &Path),
        network: Option<&Network>,
    ) -> Command {
        let mut command = self.command(Some(log), network);
        command.arg("create").arg("--pid-file").arg(pid_file).arg("--bundle").arg(bundle).arg(id);
        command
    }

    /// Starts the program of the sandbox `id`, which [`Runtime::create`] has made.
    pub async fn start(
        &self,
        id: &str,
        log: &Path,
        network: Option<&Network>,
    ) -> Result<(), String> {
        let mut command = self.command(Some(log), network);
        command.args(["start", id]);
        self.ask(command, START).await
    }

    /// Which runsc it is: another file in its place is another runsc, which sandboxes of this one may not understand.
    pub fn stamp(&self) -> Option<Stamp> {
        let meta = std::fs::metadata(&self.runsc).ok()?;
        Some(Stamp([
            meta.dev(),
            meta.ino(),
            meta.len(),
            meta.ctime().cast_unsigned(),
            meta.ctime_nsec().cast_unsigned(),
        ]))
    }

    /// SIGTERM to the program of the sandbox `id`.
    pub async fn terminate(&self, id: &str) {
        let mut command = self.command(None, None);
        command.args(["kill", id, "TERM"]);
        if let Err(cause) = self.ask(command, CALL).await {
            warn!(sandbox = id, cause, "runsc did not ask an agent to end");
        }
    }

    /// A call of which only the success matters. It may hang: where its future is dropped, its process is killed.
    async fn ask(&self, command: Command, within: Duration) -> Result<(), String> {
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child = self.children.spawn(&mut command).map_err(|error| error.to_string())?;
        match timeout(within, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(status.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => {
                kill_group_of(&child);
                Err(format!("no answer within {} s", within.as_secs()))
            }
        }
    }

    /// Whether runsc has started the program of the sandbox `id`.
    pub fn has_started(&self, id: &str) -> bool {
        // Named after the sandbox and its one container.
        let path = self.root.join(format!("{id}_sandbox:{id}.state"));
        let state = std::fs::read(path).unwrap_or_default();
        // Written in turns: what is not whole yet is not started yet.
        serde_json::from_slice::<State>(&state).is_ok_and(|state| state.status == "running")
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

/// The first line of `runsc --version`.
async fn version(runsc: &Path) -> Result<String, Unusable> {
    let mut command = tokio::process::Command::new(runsc);
    command.arg("--version").env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let unusable = |cause: String| Unusable { runsc: runsc.to_owned(), cause };
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

/// The day in a version such as `0.0~20240729.0` or `release-20240729.0`, as a number.
fn day_of(version: &str) -> Option<u32> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .find(|digits| digits.len() == 8)
        .and_then(|digits| digits.parse().ok())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_goes_by_the_versions_day() {
        assert_eq!(day_of("runsc version 0.0~20221219.0"), Some(20_221_219));
        assert_eq!(day_of("runsc version release-20240729.0"), Some(20_240_729));
        assert_eq!(day_of("runsc version VERSION_MISSING"), None);
        assert_eq!(day_of("runsc version 123456789"), None);
    }
}
