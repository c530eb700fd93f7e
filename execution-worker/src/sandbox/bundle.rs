//! The folder of one run: the runtime configuration, the engine's log, and the small file systems for scratch and for
//! what passes in and out. What the agent leaves there is a stranger's: no link is followed, no more than asked for is read.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use gatehouse_execution::{
    outcome::{Captured, Exit},
    sandbox::{self, INPUT_FILE, OUTPUT_FILE, Places},
};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, unmount},
};
use serde_json::Value;

use super::{Error, Plan, io_error};

const LOG: &str = "engine.log";
const EXCHANGE: &str = "agent";
const SCRATCH: &str = "scratch";
/// The document that says how to run it.
pub const DOCUMENT: &str = "config.json";
/// Files and folders that the agent may make, in each of its places.
const INODES: u64 = 65_536;
/// More is not read of what the engine logged.
const MAX_LOG_BYTES: u64 = 64 << 10;

/// The folder, mounted and filled.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
}

impl Bundle {
    /// Makes the bundle of `plan` below `home`, without its input; `egress` are the variables of its way out, if any. On an error nothing is left.
    pub fn create(
        home: &Path,
        plan: &Plan<'_>,
        cgroup: &str,
        egress: Option<&[String]>,
    ) -> Result<Self, Error> {
        let bundle = Self { path: home.join(plan.id.to_string()) };
        match bundle.fill(plan, cgroup, egress) {
            Ok(()) => Ok(bundle),
            Err(error) => {
                remove(&bundle.path)?;
                Err(error)
            }
        }
    }

    fn fill(&self, plan: &Plan<'_>, cgroup: &str, egress: Option<&[String]>) -> Result<(), Error> {
        let failed = || io_error(format!("making the bundle {}", self.path.display()));
        let (exchange, scratch) = (self.exchange(), self.path.join(SCRATCH));
        fs::create_dir(&self.path).map_err(failed())?;
        // File systems of their own, since nothing else bounds what the agent can fill. Sticky: the agent's user
        // may write here, but neither change nor remove the input, which is root's.
        let noexec = MountFlags::NOEXEC;
        for (place, bytes, flags) in [
            (&exchange, plan.limits.exchange_bytes, noexec),
            (&scratch, plan.limits.scratch_bytes, MountFlags::empty()),
        ] {
            fs::create_dir(place).map_err(failed())?;
            let options = format!("size={bytes},nr_inodes={INODES},mode=1777");
            let options = CString::new(options).map_err(|error| failed()(error.into()))?;
            let flags = flags | MountFlags::NOSUID | MountFlags::NODEV;
            mount("gatehouse-agent", place, "tmpfs", flags, options.as_c_str())
                .map_err(|error| io_error("mounting an agent's place")(error.into()))?;
        }
        let text = |path: &Path| path.to_str().map(str::to_owned);
        let (Some(rootfs), Some(exchange), Some(scratch)) =
            (text(plan.rootfs), text(&exchange), text(&scratch))
        else {
            return Err(failed()(io::Error::other("a path that is not UTF-8")));
        };
        let places =
            Places { rootfs: &rootfs, exchange: &exchange, scratch: &scratch, cgroup, egress };
        let document = sandbox::document(plan.id, plan.start, plan.limits, &places)?;
        fs::write(self.path.join(DOCUMENT), document.to_string()).map_err(failed())
    }

    /// Puts what the agent reads into its place. Once, before the agent is started.
    pub fn put_input(&self, input: &Value) -> Result<(), Error> {
        let path = self.exchange().join(INPUT_FILE);
        let opened = File::options().write(true).create_new(true).mode(0o444).open(path);
        opened
            .and_then(|mut file| file.write_all(input.to_string().as_bytes()))
            .map_err(io_error("writing an agent's input"))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    fn exchange(&self) -> PathBuf {
        self.path.join(EXCHANGE)
    }

    /// Whether a place of the agent has no room left, in bytes or in files.
    pub fn is_full(&self) -> bool {
        [self.exchange(), self.path.join(SCRATCH)].iter().any(|place| {
            rustix::fs::statvfs(place)
                .is_ok_and(|stat| (stat.f_blocks > 0 && stat.f_bfree == 0) || stat.f_ffree == 0)
        })
    }

    /// Bytes of the files in the agent's scratch space.
    pub fn scratch_bytes(&self) -> u64 {
        rustix::fs::statvfs(self.path.join(SCRATCH)).map_or(0, |stat| {
            stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize)
        })
    }

    /// The result file, where the agent has left one: at most `most` bytes of it.
    pub fn result(&self, most: usize) -> Result<Option<Captured>, Error> {
        let path = self.exchange().join(OUTPUT_FILE);
        // Not blocking: it may be a pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(CWD, &path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            // A link, a socket, or something else that is no result.
            Err(_) => return Ok(Some(Captured::default())),
        };
        let failed = || io_error("reading the result file");
        let meta = file.metadata().map_err(failed())?;
        let mut captured = Captured { bytes: Vec::new(), total_bytes: meta.size() };
        if meta.is_file() {
            file.take(most as u64).read_to_end(&mut captured.bytes).map_err(failed())?;
        }
        Ok(Some(captured))
    }

    /// What the engine's exit code 128 means. The agent can end with it, too, but cannot write into this log.
    pub fn why_the_engine_failed(&self) -> Exit {
        let mut log = String::new();
        let read = File::open(self.log())
            .and_then(|file| file.take(MAX_LOG_BYTES).read_to_string(&mut log));
        if read.is_err() {
            return Exit::Sandbox;
        }
        match log.lines().rfind(|line| line.contains("\"level\":\"error\"")) {
            None => Exit::Agent(super::ENGINE_FAILED),
            Some(line) if line.contains("starting container") => Exit::NotStarted,
            Some(_) => Exit::Sandbox,
        }
    }

    /// Unmounts and removes everything.
    pub fn remove(self) -> Result<(), Error> {
        remove(&self.path)
    }
}

/// Removes the bundle at `path`, whatever state it is in.
pub fn remove(path: &Path) -> Result<(), Error> {
    for place in [EXCHANGE, SCRATCH] {
        match unmount(path.join(place), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Not mounted, or not there.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(io_error("unmounting an agent's place")(error.into())),
        }
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error(format!("removing {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}
