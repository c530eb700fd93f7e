//! The worker as a process among others: its mounts are its own, and what a dead runsc leaves behind becomes its
//! child and is reaped. Knows nothing of sandboxes.
//!
//! Both are for the whole process and are switched on by `main` alone.

use std::{
    collections::BTreeSet,
    io,
    ops::{Deref, DerefMut},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::ExitStatus,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    mount::{MountPropagationFlags, mount_change},
    process::{
        Pid, PidfdFlags, WaitId, WaitIdOptions, getpid, pidfd_open, set_child_subreaper, waitid,
    },
    thread::{UnshareFlags, unshare_unsafe},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    process::{Child, Command},
};
use tracing::debug;

static ADOPTS: AtomicBool = AtomicBool::new(false);

/// The children that somebody waits for. Every child of this process must be started here once orphans are
/// adopted: another one could be reaped before whoever started it looks.
#[derive(Debug, Clone, Default)]
pub struct Children(Arc<Mutex<BTreeSet<i32>>>);

/// A started child. Forgotten when dropped.
#[derive(Debug)]
pub struct Started {
    child: Child,
    pid: Option<i32>,
    children: Children,
}

/// An orphan that somebody waits for. Forgotten when dropped.
#[derive(Debug)]
pub struct Adopted {
    fd: AsyncFd<OwnedFd>,
    pid: i32,
    ended: Option<ExitStatus>,
    children: Children,
}

/// Gives the process a mount namespace of its own, in which later mounts of the machine still appear: the mounts
/// of runs end with their last process, even after SIGKILL. A child's own namespace follows this one, so that what is
/// unmounted here is not kept there. Call it before the first thread is started.
pub fn own_mounts() -> io::Result<()> {
    // SAFETY: the flag set is NEWNS alone. What makes unsharing unsafe is a file table that is no longer the one
    // other threads close descriptors in, and NEWNS leaves the file table shared.
    #[expect(
        unsafe_code,
        reason = "rustix offers unsharing as unsafe only, because of another flag"
    )]
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    Ok(mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?)
}

/// Makes orphans of our children our children. They would otherwise go to the machine's first process, which may
/// reap slowly: a sandbox whose processes are not reaped is not gone.
pub fn adopt_orphans() -> io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    ADOPTS.store(true, Ordering::Relaxed);
    Ok(())
}

impl Children {
    /// Starts `command`.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Started> {
        // Held over the start, so that no sweep sees a child that is not known yet.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn()?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        known.extend(pid);
        Ok(Started { child, pid, children: self.clone() })
    }

    /// The orphan `pid`, to be waited for. An error where it is not our child: gone, or orphans are not adopted.
    pub fn adopt(&self, pid: i32) -> io::Result<Adopted> {
        let id = Pid::from_raw(pid).ok_or_else(|| io::Error::other("no process"))?;
        // Held until it is known, so that no sweep reaps it before whoever waits for it.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fd = pidfd_open(id, PidfdFlags::NONBLOCK)?;
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::PidFd(fd.as_fd()), look)?;
        // SAFETY: the descriptor was opened here, the value owns it from now on, and nothing takes it out or closes it
        // before the value is dropped.
        #[expect(unsafe_code, reason = "tokio trusts its caller to leave the descriptor open")]
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
        known.insert(pid);
        Ok(Adopted { fd, pid, ended: None, children: self.clone() })
    }

    /// Reaps dead children that nobody waits for. Does nothing where orphans are not adopted.
    pub fn reap(&self) {
        if !ADOPTS.load(Ordering::Relaxed) {
            return;
        }
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for pid in dead_children() {
            if let Some(id) = Pid::from_raw(pid).filter(|_| !known.contains(&pid)) {
                let reaped = waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
                debug!(pid, ?reaped, "reaped an orphan");
            }
        }
    }
}

impl Adopted {
    /// Its end, where it has come.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            let status = waitid(WaitId::PidFd(self.fd.get_ref().as_fd()), look)?;
            // wait(2): the code lies in the second byte, the signal in the first.
            self.ended = status.and_then(|status| {
                let code = status.exit_status().map(|code| code << 8);
                code.or(status.terminating_signal()).map(ExitStatus::from_raw)
            });
        }
        Ok(self.ended)
    }

    /// Waits for its end. Asked again it says the same.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            self.fd.readable().await?.clear_ready();
        }
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        let mut known = self.children.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&self.pid);
    }
}

/// Processes whose parent we are and that have ended.
fn dead_children() -> Vec<i32> {
    let own = getpid().as_raw_nonzero().get();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // proc(5): pid (comm) state ppid …; the name may hold anything, a parenthesis too.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let (state, parent) = (fields.next()?, fields.next()?.parse::<i32>().ok()?);
            (state == "Z" && parent == own).then_some(pid)
        })
        .collect()
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            let mut known = self.children.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.remove(&pid);
        }
    }
}

impl Deref for Started {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Started {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}
