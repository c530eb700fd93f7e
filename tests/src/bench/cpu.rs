//! Processors: who runs where, and how much time a process has spent on them. Knows no processes.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Runs `work` with this thread on `core`, so that whatever it starts stays there, and the thread comes back to
/// `back`.
pub fn on<T>(core: usize, back: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    pin(core)?;
    let result = work();
    pin(back)?;
    result
}

/// Keeps this thread, and whatever it starts, on `core`.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("pinning to core {core}"))
}

/// The time that all threads of a process have spent on processors (finer than user and system time, which count
/// ticks).
pub fn spent(process: u32) -> Result<Duration> {
    let tasks = format!("/proc/{process}/task");
    let mut nanoseconds = 0;
    for task in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
        let schedstat = task?.path().join("schedstat");
        // A thread that ended between the two calls has spent its time before.
        let Ok(text) = fs::read_to_string(&schedstat) else { continue };
        let first = text.split(' ').next().unwrap_or_default();
        nanoseconds += first.parse::<u64>().with_context(|| format!("{schedstat:?}: {text:?}"))?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}
