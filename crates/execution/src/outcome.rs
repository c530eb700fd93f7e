//! What the end of a run means: from exit code, counters and output to one typed reason and the next event.
//! Knows nothing of how the sandbox was watched.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{json, provenance, state::Event};

/// The exit code by which an agent asks for another attempt (`EX_TEMPFAIL` of sysexits).
pub const EXIT_RETRY: i32 = 75;
/// Exit code of a guest that passed its file size limit: 128 + SIGXFSZ.
const EXIT_FILE_TOO_LARGE: i32 = 128 + 25;
/// Largest part of the agent's log that becomes the error message.
const MESSAGE_BYTES: usize = 500;

/// Why a run ended. Stored and published; append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Exit code 0 and an acceptable result.
    Completed,
    /// Another exit code.
    Failed,
    /// The agent asked for another attempt.
    RetryAsked,
    /// The time limit.
    Timeout,
    /// The memory limit; known by the control group's counter, never by the exit code.
    OomKilled,
    /// The limit of host tasks.
    Pids,
    /// A file beyond the size limit, or no room left where the agent may write.
    DiskFull,
    /// It failed after the platform refused it a request to the outside.
    EgressDenied,
    /// Exit code 0, but no acceptable result.
    OutputInvalid,
    /// The image is missing, changed, unsupported or cannot be started. The run was not begun.
    ImageError,
    /// The registry of images could not be asked. The run was not begun, and may be later.
    ImageUnavailable,
    /// The sandbox itself failed; no fault of the agent.
    SandboxError,
    /// The caller ended it.
    Cancelled,
    /// The worker was lost.
    Lost,
    /// Worker after worker was lost under it: it is not run again unless somebody says so.
    Poison,
}

/// The text names no reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an end reason")]
pub struct UnknownReason(pub String);

/// How the sandbox's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The agent's exit code (128 + signal where a signal ended it).
    Agent(i32),
    /// The entry point could not be started.
    NotStarted,
    /// It was not started within the time that starting may take.
    StartTimeout,
    /// The sandbox broke.
    Sandbox,
    /// We ended it at its time limit.
    TimeLimit,
    /// We ended it for its caller.
    Cancelled,
}

/// What a run used: what its control group counted, and its egress proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Kills by the memory limit.
    pub oom_kills: u64,
    /// Forks refused by the task limit.
    pub pids_refused: u64,
    /// CPU time of the whole sandbox, in microseconds.
    pub cpu_us: u64,
    /// Peak memory of the whole sandbox, in bytes.
    pub memory_peak_bytes: u64,
    /// Requests to the outside that were let through.
    pub egress_requests: u64,
    /// Tokens that answers from the outside said they cost.
    pub tokens: u64,
}

/// A captured stream: its kept tail, and how much there was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// The kept bytes: the end of the stream, whole where `total_bytes` says so.
    pub bytes: Vec<u8>,
    /// All bytes that were written.
    pub total_bytes: u64,
}

/// Everything known about a run that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// How it ended.
    pub exit: Exit,
    /// What was counted.
    pub usage: Usage,
    /// Whether one of the places in which the agent may write was full when it ended.
    pub disk_full: bool,
    /// Bytes of the files in `/tmp` when it ended, which count as memory.
    pub scratch_bytes: u64,
    /// The last request to the outside that the platform's rules refused, in words.
    pub egress_denied: Option<String>,
    /// The file `/run/agent/output.json`, where there is one.
    pub result_file: Option<Captured>,
    /// Standard output.
    pub stdout: Captured,
    /// Standard error: the agent's log.
    pub stderr: Captured,
}

/// What to store.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Why it ended.
    pub reason: EndReason,
    /// The result, for [`EndReason::Completed`] only.
    pub output: Option<Value>,
    /// For people; present for everything but [`EndReason::Completed`].
    pub message: Option<String>,
}

// === impl EndReason ===

impl EndReason {
    /// Every reason.
    pub const ALL: [Self; 15] = [
        Self::Completed,
        Self::Failed,
        Self::RetryAsked,
        Self::Timeout,
        Self::OomKilled,
        Self::Pids,
        Self::DiskFull,
        Self::EgressDenied,
        Self::OutputInvalid,
        Self::ImageError,
        Self::ImageUnavailable,
        Self::SandboxError,
        Self::Cancelled,
        Self::Lost,
        Self::Poison,
    ];

    /// The stored and published spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::RetryAsked => "retry_asked",
            Self::Timeout => "timeout",
            Self::OomKilled => "oom_killed",
            Self::Pids => "pids",
            Self::DiskFull => "disk_full",
            Self::EgressDenied => "egress_denied",
            Self::OutputInvalid => "output_invalid",
            Self::ImageError => "image_error",
            Self::ImageUnavailable => "image_unavailable",
            Self::SandboxError => "sandbox_error",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::Poison => "poison",
        }
    }

    /// The event for a running execution that ended so in its `attempt` (1 is the first; those whose worker was lost are
    /// not counted) of at most `max_attempts`.
    pub const fn event(self, attempt: u32, max_attempts: u32) -> Event {
        match self {
            Self::Completed => Event::Complete,
            Self::Timeout => Event::TimeOut,
            Self::Cancelled => Event::Cancel,
            Self::Poison => Event::GiveUp,
            Self::RetryAsked | Self::ImageUnavailable | Self::SandboxError | Self::Lost => {
                if attempt < max_attempts {
                    Event::Retry
                } else {
                    Event::GiveUp
                }
            }
            Self::Failed
            | Self::OomKilled
            | Self::Pids
            | Self::DiskFull
            | Self::EgressDenied
            | Self::OutputInvalid
            | Self::ImageError => Event::Fail,
        }
    }

    /// Whether an attempt that ended so counts against its tenant's quotas, and an execution that ended for good so is one of
    /// the day's: not where the run never began, or the platform failed. Who loses worker after worker cannot be told from
    /// one whose workers are lost.
    pub const fn is_charged(self) -> bool {
        match self {
            Self::ImageError
            | Self::ImageUnavailable
            | Self::SandboxError
            | Self::Lost
            | Self::Poison => false,
            Self::Completed
            | Self::Failed
            | Self::RetryAsked
            | Self::Timeout
            | Self::OomKilled
            | Self::Pids
            | Self::DiskFull
            | Self::EgressDenied
            | Self::OutputInvalid
            | Self::Cancelled => true,
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EndReason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

// === impl Run ===

impl Run {
    /// A run of which nothing is known but its end.
    pub fn ended(exit: Exit) -> Self {
        Self {
            exit,
            usage: Usage::default(),
            disk_full: false,
            scratch_bytes: 0,
            egress_denied: None,
            result_file: None,
            stdout: Captured::default(),
            stderr: Captured::default(),
        }
    }

    /// Judges the run.
    pub fn outcome(&self) -> Outcome {
        let (reason, message) = match self.exit {
            Exit::Cancelled => (EndReason::Cancelled, "cancelled".to_owned()),
            Exit::TimeLimit => (EndReason::Timeout, "the time limit was reached".to_owned()),
            Exit::Agent(0) => match self.result() {
                Ok(output) => {
                    let output = Some(output);
                    return Outcome { reason: EndReason::Completed, output, message: None };
                }
                Err(message) => (EndReason::OutputInvalid, message),
            },
            // The kernel may have killed any part of the sandbox: the exit code says nothing then.
            Exit::Agent(_) | Exit::NotStarted | Exit::StartTimeout | Exit::Sandbox
                if self.usage.oom_kills > 0 =>
            {
                (
                    EndReason::OomKilled,
                    format!(
                        "the memory limit was reached (peak {} bytes{})",
                        self.usage.memory_peak_bytes,
                        self.of_scratch()
                    ),
                )
            }
            Exit::Agent(_) | Exit::Sandbox if self.usage.pids_refused > 0 => {
                (EndReason::Pids, "the limit of tasks was reached".to_owned())
            }
            Exit::Agent(EXIT_RETRY) => {
                (EndReason::RetryAsked, self.said("the agent asked for another attempt"))
            }
            Exit::Agent(EXIT_FILE_TOO_LARGE) => {
                (EndReason::DiskFull, "a file grew beyond the size limit".to_owned())
            }
            Exit::Agent(code) if self.disk_full => {
                (EndReason::DiskFull, self.said(&format!("no room was left; exit code {code}")))
            }
            Exit::Agent(code) if let Some(denied) = &self.egress_denied => {
                (EndReason::EgressDenied, self.said(&format!("{denied}; exit code {code}")))
            }
            Exit::Agent(code) => (EndReason::Failed, self.said(&format!("exit code {code}"))),
            Exit::NotStarted => {
                (EndReason::ImageError, "the image's entry point could not be started".to_owned())
            }
            Exit::StartTimeout => {
                (EndReason::SandboxError, "the sandbox was not started in time".to_owned())
            }
            Exit::Sandbox => (EndReason::SandboxError, "the sandbox failed".to_owned()),
        };
        Outcome { reason, output: None, message: Some(message) }
    }

    /// What the files in `/tmp` had of the memory, where it was most: not what somebody expects who looks for a leak.
    fn of_scratch(&self) -> String {
        if self.scratch_bytes > self.usage.memory_peak_bytes / 2 {
            format!(", {} of them files in /tmp", self.scratch_bytes)
        } else {
            String::new()
        }
    }

    /// The result: the file where there is one, else the last line of standard output that is not blank.
    fn result(&self) -> Result<Value, String> {
        let text = match &self.result_file {
            Some(file) if file.is_cut() => {
                let (total, most) = (file.total_bytes, file.bytes.len());
                return Err(format!("the result file has {total} bytes, at most {most} are taken"));
            }
            Some(file) => file.bytes.as_slice(),
            None => {
                let line = last_line(&self.stdout.bytes);
                // A line that begins where the kept part begins may have begun before it.
                if self.stdout.is_cut() && self.stdout.bytes.trim_ascii_end() == line {
                    let most = self.stdout.bytes.len();
                    return Err(format!("the last line of the output has more than {most} bytes"));
                }
                line
            }
        };
        if text.is_empty() {
            return Err("the agent wrote no result".to_owned());
        }
        let result = json::strict(text).map_err(|refused| refused.to_string())?;
        // What has no canonical form has no provenance.
        provenance::judge(&result).map_err(|refused| refused.to_string())?;
        Ok(result)
    }

    /// `cause` and the agent's last words.
    fn said(&self, cause: &str) -> String {
        let line = last_line(&self.stderr.bytes);
        let line = String::from_utf8_lossy(line.get(..MESSAGE_BYTES).unwrap_or(line));
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        if line.is_empty() { cause.to_owned() } else { format!("{cause}: {line}") }
    }
}

impl Captured {
    /// Whether there was more than was kept.
    pub fn is_cut(&self) -> bool {
        self.total_bytes > self.bytes.len() as u64
    }
}

fn last_line(bytes: &[u8]) -> &[u8] {
    bytes
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .rfind(|line| !line.is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
