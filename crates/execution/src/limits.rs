//! What one run may use. The numbers are the specification's defaults (§3.3) where a plain machine can hold them.
//! Knows nothing of who enforces them.

use std::time::Duration;

/// The limits of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// CPU time per second of wall time, in thousandths of one core.
    pub cpu_millis: u32,
    /// Memory of the whole sandbox, its kernel and its tmpfs contents included.
    pub memory_bytes: u64,
    /// Wall time from the agent's start to its end; fetching the image and making the sandbox do not count.
    pub timeout: Duration,
    /// Wall time in which the agent must have been started: the image fetched, the sandbox made.
    pub start_timeout: Duration,
    /// Between SIGTERM, at the time limit or at a cancellation, and SIGKILL to all that is left.
    pub grace: Duration,
    /// Host tasks of the sandbox. A backstop: the sandbox's own kernel needs 21 to 25 at idle.
    pub host_pids: u32,
    /// Processes within the sandbox (`RLIMIT_NPROC` of its user).
    pub processes: u32,
    /// Open files per process (`RLIMIT_NOFILE`).
    pub open_files: u32,
    /// Largest single file (`RLIMIT_FSIZE`).
    pub file_bytes: u64,
    /// Size of `/tmp`. Its contents count against `memory_bytes`.
    pub scratch_bytes: u64,
    /// Size of `/run/agent`, where the result is written.
    pub exchange_bytes: u64,
    /// Largest result, from the result file or from standard output.
    pub output_bytes: usize,
    /// How much of standard error is kept.
    pub log_bytes: usize,
}

const MIB: u64 = 1 << 20;

impl Limits {
    /// How long the agent runs until it is said that its time comes to an end: 80 % of [`Limits::timeout`] (RES-001).
    pub fn warn_after(&self) -> Duration {
        self.timeout * 4 / 5
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_millis: 1000,
            memory_bytes: 512 * MIB,
            timeout: Duration::from_secs(300),
            start_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            host_pids: 512,
            processes: 64,
            open_files: 1024,
            file_bytes: 256 * MIB,
            scratch_bytes: 256 * MIB,
            exchange_bytes: 16 * MIB,
            output_bytes: 1 << 20,
            log_bytes: 64 << 10,
        }
    }
}
