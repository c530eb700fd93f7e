//! What makes a process of a bundle: gVisor, or for development the machine's own kernel. Both read the same
//! document; what they cannot agree on is here and nowhere else.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Pid, Signal, kill_process};
use tracing::debug;

use super::runtime::Runtime;
use crate::{egress::Network, process::Children};

/// An engine.
#[derive(Debug)]
pub enum Engine {
    /// gVisor.
    Runsc(Runtime),
    /// The machine's own kernel, between the agent and which stand a user without rights, a root of its own and a
    /// control group. For development.
    Process(Entry),
}

/// This program, which enters a bundle as [`crate::enter`] says.
#[derive(Debug)]
pub struct Entry {
    program: PathBuf,
    children: Children,
}

impl Entry {
    /// `program` is the worker's own.
    pub fn new(program: PathBuf) -> Self {
        Self { program, children: Children::default() }
    }
}

impl Engine {
    /// The driver's name in the configuration.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Runsc(_) => "runsc",
            Self::Process(_) => "process",
        }
    }

    /// The version of what makes the processes: runsc's, or the kernel's.
    pub fn version(&self) -> String {
        match self {
            Self::Runsc(runtime) => runtime.version().to_owned(),
            Self::Process(_) => {
                let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
                release.unwrap_or_default().trim().to_owned()
            }
        }
    }

    /// The calls that are waited for.
    pub fn children(&self) -> &Children {
        match self {
            Self::Runsc(runtime) => runtime.children(),
            Self::Process(entry) => &entry.children,
        }
    }

    /// The command that runs the bundle at `bundle` as `id` in the foreground. `tasks` are the files through which a process joins the run's control group.
    /// Within `network`, where it has one.
    pub fn command(
        &self,
        id: &str,
        (bundle, log): (&Path, &Path),
        tasks: &[PathBuf],
        network: Option<&Network>,
    ) -> Command {
        match self {
            Self::Runsc(runtime) => {
                // It joins the group that the document names by itself.
                let mut command = runtime.command(Some(log), network);
                command.args(["run", "--bundle"]).arg(bundle).arg(id);
                command
            }
            Self::Process(entry) => {
                let mut command = Command::new(&entry.program);
                command.arg("enter").arg("--bundle").arg(bundle).arg("--log").arg(log).args(tasks);
                command.env_clear().current_dir("/");
                if let Some(network) = network {
                    network.join(&mut command);
                }
                command
            }
        }
    }

    /// Whether the agent of `id` has been started.
    pub fn has_started(&self, id: &str) -> bool {
        match self {
            Self::Runsc(runtime) => runtime.has_started(id),
            // Nothing that takes time lies before it.
            Self::Process(_) => true,
        }
    }

    /// SIGTERM to the agent of `id`, whose engine runs as the process `pid`. Done when it was sent, or could not be:
    /// who asks does not rely on it.
    pub async fn terminate(&self, id: &str, pid: Option<u32>) {
        match self {
            // To runsc's own process it would end that alone.
            Self::Runsc(runtime) => runtime.terminate(id).await,
            Self::Process(_) => {
                let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
                let sent = pid.map(|pid| kill_process(pid, Signal::TERM));
                debug!(sandbox = id, ?sent, "asked an agent to end");
            }
        }
    }

    /// Removes what the engine remembers of the dead run `id`.
    pub fn forget(&self, id: &str) {
        match self {
            Self::Runsc(runtime) => runtime.forget(id),
            Self::Process(_) => {}
        }
    }

    /// The runs that the engine remembers.
    pub fn remembered(&self) -> Vec<String> {
        match self {
            Self::Runsc(runtime) => runtime.remembered(),
            Self::Process(_) => Vec::new(),
        }
    }
}
