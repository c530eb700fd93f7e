//! The process driver's other half: a process that becomes the agent of a bundle, on the machine's own kernel.
//! Reads the document that runsc would read, and does the part of it that needs no kernel of its own: a root file
//! system, mounts, no network, rlimits, a user without rights. For development.
//!
//! Runs before there is any other thread. Ends with 128 and a line in the log where it cannot begin, as runsc does.

use std::{
    fs,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount},
    process::{Resource, Rlimit, setrlimit},
    thread::{UnshareFlags, set_no_new_privs, unshare_unsafe},
};
use serde::Deserialize;

use gatehouse_execution::sandbox::{EXCHANGE_DIR, SCRATCH_DIR};

/// Devices that every program may expect.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

#[derive(Deserialize)]
struct Document {
    root: Root,
    process: Process,
    mounts: Vec<Mount>,
    linux: Linux,
}

#[derive(Deserialize)]
struct Linux {
    namespaces: Vec<Namespace>,
}

#[derive(Deserialize)]
struct Namespace {
    /// Of one that exists: the one that we are in.
    path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Root {
    path: PathBuf,
}

#[derive(Deserialize)]
struct Process {
    user: User,
    args: Vec<String>,
    env: Vec<String>,
    cwd: PathBuf,
    rlimits: Vec<Limit>,
}

#[derive(Deserialize)]
struct User {
    uid: u32,
    gid: u32,
}

#[derive(Deserialize)]
struct Limit {
    #[serde(rename = "type")]
    kind: String,
    hard: u64,
}

#[derive(Deserialize)]
struct Mount {
    destination: PathBuf,
    source: PathBuf,
}

/// Becomes the agent of `bundle`, a member of the control groups whose files are `tasks`. Comes back with the exit
/// code of a beginning that failed.
pub fn enter(bundle: &Path, log: &Path, tasks: &[PathBuf]) -> u8 {
    let Err(error) = try_to(bundle, tasks);
    let line = serde_json::json!({"level": "error", "msg": format!("starting container: {error}")});
    // Where the log cannot be written, the exit code is all there is to say.
    drop(fs::File::create(log).and_then(|mut log| writeln!(log, "{line}")));
    128
}

fn try_to(bundle: &Path, tasks: &[PathBuf]) -> io::Result<std::convert::Infallible> {
    let text = fs::read(bundle.join(crate::sandbox::DOCUMENT))?;
    let document: Document = serde_json::from_slice(&text)?;
    // First: whatever is done from here on is counted, and killed with the group.
    for file in tasks {
        fs::write(file, "0")?;
    }
    let mut unshared = UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    // Only the network's may be named.
    if document.linux.namespaces.iter().all(|namespace| namespace.path.is_none()) {
        unshared |= UnshareFlags::NEWNET;
    }
    // SAFETY: no flag of the set un-shares the file table, which is what makes unsharing unsafe.
    #[expect(
        unsafe_code,
        reason = "rustix offers unsharing as unsafe only, because of another flag"
    )]
    unsafe {
        unshare_unsafe(unshared)?;
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let root = &document.root.path;
    mount_places(root, &document.mounts)?;
    rustix::process::chroot(root)?;
    std::env::set_current_dir(&document.process.cwd)?;
    for limit in &document.process.rlimits {
        let resource = match limit.kind.as_str() {
            "RLIMIT_NOFILE" => Resource::Nofile,
            "RLIMIT_FSIZE" => Resource::Fsize,
            "RLIMIT_CORE" => Resource::Core,
            // The machine's kernel counts all processes of a user, those of other runs too: the group counts here.
            _ => continue,
        };
        setrlimit(resource, Rlimit { current: Some(limit.hard), maximum: Some(limit.hard) })?;
    }
    set_no_new_privs(true)?;
    let Some((program, args)) = document.process.args.split_first() else {
        return Err(io::Error::other("no program"));
    };
    let mut agent = Command::new(program);
    agent.args(args).env_clear().gid(document.process.user.gid).uid(document.process.user.uid);
    agent.envs(document.process.env.iter().filter_map(|pair| pair.split_once('=')));
    Err(agent.exec())
}

/// The image read-only, and what an agent finds in it.
fn mount_places(root: &Path, mounts: &[Mount]) -> io::Result<()> {
    mount_bind(root, root)?;
    let read_only = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount(root, read_only, c"")?;
    let closed = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", root.join("proc"), "proc", closed | MountFlags::RDONLY, c"")?;
    let dev = root.join("dev");
    mount("tmpfs", &dev, "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, c"mode=755,size=65536")?;
    for device in DEVICES {
        let place = dev.join(device);
        fs::File::create(&place)?;
        mount_bind(Path::new("/dev").join(device), &place)?;
    }
    for wanted in [SCRATCH_DIR, EXCHANGE_DIR] {
        let found = mounts.iter().find(|mount| mount.destination == Path::new(wanted));
        let from = found.ok_or_else(|| io::Error::other(format!("no mount for {wanted}")))?;
        let place = root.join(wanted.trim_start_matches('/'));
        mount_bind(&from.source, &place)?;
    }
    Ok(())
}
