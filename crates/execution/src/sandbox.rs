//! The sandbox as a document: from an image's start line, limits, an id and places to the OCI runtime
//! configuration that runsc is given. Nothing in it comes from the tenant but the start line.
//! Knows neither runsc's flags nor how the limits of the control group are written.

use std::{fmt, str::FromStr};

use gatehouse_contract::ExecutionId;
use serde_json::{Value, json};

use crate::{limits::Limits, oci::Start};

/// User and group of every agent, whatever its image says.
pub const UID: u32 = 1000;
/// Where the agent finds its input and leaves its result.
pub const EXCHANGE_DIR: &str = "/run/agent";
/// The agent's scratch space.
pub const SCRATCH_DIR: &str = "/tmp";
/// The input within [`EXCHANGE_DIR`].
pub const INPUT_FILE: &str = "input.json";
/// The result within [`EXCHANGE_DIR`].
pub const OUTPUT_FILE: &str = "output.json";
/// Directories that the root file system must have, because something is mounted there.
pub const MOUNT_POINTS: [&str; 5] = ["proc", "dev", "sys", "tmp", "run/agent"];

/// Names one attempt's sandbox, its control group and its bundle: the execution and the lease epoch that fences
/// it. Always 45 characters, since runsc takes a prefix of an id for the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxId {
    /// The execution that runs.
    pub execution: ExecutionId,
    /// Of the lease under which it runs.
    pub epoch: u32,
}

/// The text is not the id of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a sandbox id")]
pub struct NotASandboxId;

/// Where the parts of one run lie on the host.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The unpacked image.
    pub rootfs: &'a str,
    /// A small file system of this run alone: becomes [`EXCHANGE_DIR`].
    pub exchange: &'a str,
    /// A file system of this run alone, as large as the limit says: becomes [`SCRATCH_DIR`].
    pub scratch: &'a str,
    /// The control group that the worker has made, from the hierarchy's root.
    pub cgroup: &'a str,
    /// The variables that lead to the run's egress proxy. With them the sandbox is in the network namespace of whoever starts
    /// it; without, it has no network.
    pub egress: Option<&'a [String]>,
}

/// Why an image cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A start line with a NUL, an empty program, or a variable without a name.
    #[error("the image's {0} is not usable")]
    Start(&'static str),
}

/// Makes the OCI runtime configuration (runtime specification 1.0).
///
/// # Errors
/// [`Error::Start`] where the image's own start line cannot be used.
pub fn document(
    id: SandboxId,
    start: &Start,
    limits: &Limits,
    places: &Places<'_>,
) -> Result<Value, Error> {
    let args: Vec<&str> = start.command_line().collect();
    if args.first().is_none_or(|program| program.is_empty()) || args.iter().any(|a| has_nul(a)) {
        return Err(Error::Start("entry point"));
    }
    let env = environment(start, places.egress.unwrap_or_default())?;
    let cwd = start.working_dir.as_deref().filter(|dir| !dir.is_empty()).unwrap_or("/");
    if !cwd.starts_with('/') || has_nul(cwd) {
        return Err(Error::Start("working directory"));
    }
    let none: [&str; 0] = [];
    let network = match places.egress {
        None => json!({"type": "network"}),
        // runsc keeps none that it is not told by a path.
        Some(_) => json!({"type": "network", "path": "/proc/self/ns/net"}),
    };
    let rlimit = |kind: &str, most: u64| json!({"type": kind, "hard": most, "soft": most});
    let tmpfs = |to: &str, options: &[&str]| json!({"destination": to, "type": "tmpfs", "source": "tmpfs", "options": options});
    let bind = |to: &str, from: &str, exec: &str| json!({"destination": to, "type": "bind", "source": from, "options": ["bind", "rw", "nosuid", "nodev", exec]});
    Ok(json!({
        "ociVersion": "1.0.2",
        "hostname": "agent",
        "root": {"path": places.rootfs, "readonly": true},
        "process": {
            "terminal": false,
            "user": {"uid": UID, "gid": UID, "umask": 0o077},
            "args": args,
            "env": env,
            "cwd": cwd,
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": none, "effective": none, "inheritable": none, "permitted": none,
                "ambient": none,
            },
            "rlimits": [
                rlimit("RLIMIT_NOFILE", limits.open_files.into()),
                rlimit("RLIMIT_NPROC", limits.processes.into()),
                rlimit("RLIMIT_FSIZE", limits.file_bytes),
                rlimit("RLIMIT_CORE", 0),
            ],
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc",
                "options": ["nosuid", "noexec", "nodev", "ro"]},
            tmpfs("/dev", &["nosuid", "noexec", "mode=755", "size=65536"]),
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"]},
            bind(SCRATCH_DIR, places.scratch, "exec"),
            bind(EXCHANGE_DIR, places.exchange, "noexec"),
        ],
        "linux": {
            "cgroupsPath": places.cgroup,
            "namespaces": [
                {"type": "pid"}, network, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"},
            ],
        },
        "annotations": {"gatehouse.sandbox": id.to_string()},
    }))
}

/// The image's variables between a default path and what must not be overridden.
fn environment(start: &Start, egress: &[String]) -> Result<Vec<String>, Error> {
    let mut env = Vec::new();
    let given = start.env.as_deref().unwrap_or_default();
    for pair in given {
        match pair.split_once('=') {
            Some((name, _)) if !name.is_empty() && !has_nul(pair) => {
                let is_ours = |ours: &String| ours.split_once('=').is_some_and(|(n, _)| n == name);
                if name != "HOME" && !egress.iter().any(is_ours) {
                    env.push(pair.clone());
                }
            }
            _ => return Err(Error::Start("environment")),
        }
    }
    if !env.iter().any(|pair| pair.starts_with("PATH=")) {
        env.push("PATH=/usr/local/bin:/usr/bin:/bin".to_owned());
    }
    // The only writable place of the agent's user.
    env.push("HOME=/tmp".to_owned());
    env.extend(egress.iter().cloned());
    Ok(env)
}

fn has_nul(text: &str) -> bool {
    text.contains('\0')
}

// === impl SandboxId ===

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.execution, self.epoch)
    }
}

impl FromStr for SandboxId {
    type Err = NotASandboxId;

    fn from_str(text: &str) -> Result<Self, NotASandboxId> {
        let (execution, epoch) = text.rsplit_once('-').ok_or(NotASandboxId)?;
        let execution = execution.parse().map_err(|_| NotASandboxId)?;
        let epoch = u32::from_str_radix(epoch, 16).map_err(|_| NotASandboxId)?;
        let id = Self { execution, epoch };
        // One spelling per id: refuses `+1`, upper case and short forms.
        if id.to_string() == text { Ok(id) } else { Err(NotASandboxId) }
    }
}

#[cfg(test)]
mod tests;
