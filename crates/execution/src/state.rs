//! The states of an execution and the one table of its transitions (specification AEX-003).
//! Knows nothing of how a state is stored or who may ask for a change.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Where an execution stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionState {
    /// Accepted and stored; no worker can see it yet.
    Pending,
    /// Offered to the workers.
    Queued,
    /// Held by one worker under a lease epoch.
    Running,
    /// Ended with a result. Terminal.
    Completed,
    /// Ended without a result.
    Failed,
    /// Ended by its time limit.
    Timeout,
    /// Waits for its next attempt.
    Retry,
    /// Ended by the caller. Terminal.
    Cancelled,
    /// All attempts used up; kept for inspection and replay.
    DeadLetter,
}

/// What can happen to an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The feeder offers it to the workers.
    Enqueue,
    /// A worker takes it.
    Claim,
    /// Its queue entry was lost (Redis wiped): the feeder must offer it again.
    Unqueue,
    /// The worker gave it back, or its lease died: offer it again.
    Release,
    /// It ended with a result.
    Complete,
    /// It ended without a result.
    Fail,
    /// It ran into its time limit.
    TimeOut,
    /// Another attempt shall be made.
    Retry,
    /// No further attempt is allowed.
    GiveUp,
    /// The caller ends it.
    Cancel,
    /// An operator starts a given-up execution anew.
    Replay,
}

/// The table has no such transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} is not possible for a {from} execution")]
pub struct Illegal {
    /// The state that the execution is in.
    pub from: ExecutionState,
    /// What was tried.
    pub event: Event,
}

/// The text names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an execution state")]
pub struct UnknownState(pub String);

// === impl ExecutionState ===

impl ExecutionState {
    /// Every state, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Queued,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Timeout,
        Self::Retry,
        Self::Cancelled,
        Self::DeadLetter,
    ];

    /// The stored and published spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Retry => "retry",
            Self::Cancelled => "cancelled",
            Self::DeadLetter => "dead_letter",
        }
    }

    /// Whether a poller may stop: nothing happens any more unless a person asks for it.
    pub const fn is_settled(self) -> bool {
        match self {
            Self::Pending | Self::Queued | Self::Running | Self::Retry => false,
            Self::Completed | Self::Failed | Self::Timeout | Self::Cancelled | Self::DeadLetter => {
                true
            }
        }
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// [`Illegal`] where the table has no entry.
    pub const fn after(self, event: Event) -> Result<Self, Illegal> {
        // One arm per pair and no wildcard: a new state or event does not compile until it is decided here.
        let to = match self {
            Self::Pending => match event {
                Event::Enqueue => Some(Self::Queued),
                Event::Cancel => Some(Self::Cancelled),
                Event::Claim
                | Event::Unqueue
                | Event::Release
                | Event::Complete
                | Event::Fail
                | Event::TimeOut
                | Event::Retry
                | Event::GiveUp
                | Event::Replay => None,
            },
            Self::Queued => match event {
                Event::Claim => Some(Self::Running),
                Event::Unqueue => Some(Self::Pending),
                Event::Cancel => Some(Self::Cancelled),
                Event::Enqueue
                | Event::Release
                | Event::Complete
                | Event::Fail
                | Event::TimeOut
                | Event::Retry
                | Event::GiveUp
                | Event::Replay => None,
            },
            Self::Running => match event {
                Event::Release => Some(Self::Queued),
                Event::Complete => Some(Self::Completed),
                Event::Fail => Some(Self::Failed),
                Event::TimeOut => Some(Self::Timeout),
                Event::Retry => Some(Self::Retry),
                Event::GiveUp => Some(Self::DeadLetter),
                Event::Cancel => Some(Self::Cancelled),
                Event::Enqueue | Event::Claim | Event::Unqueue | Event::Replay => None,
            },
            Self::Failed | Self::Timeout => match event {
                Event::Retry => Some(Self::Retry),
                Event::Enqueue
                | Event::Claim
                | Event::Unqueue
                | Event::Release
                | Event::Complete
                | Event::Fail
                | Event::TimeOut
                | Event::GiveUp
                | Event::Cancel
                | Event::Replay => None,
            },
            Self::Retry => match event {
                Event::Enqueue => Some(Self::Queued),
                Event::GiveUp => Some(Self::DeadLetter),
                Event::Cancel => Some(Self::Cancelled),
                Event::Claim
                | Event::Unqueue
                | Event::Release
                | Event::Complete
                | Event::Fail
                | Event::TimeOut
                | Event::Retry
                | Event::Replay => None,
            },
            Self::DeadLetter => match event {
                Event::Replay => Some(Self::Pending),
                Event::Enqueue
                | Event::Claim
                | Event::Unqueue
                | Event::Release
                | Event::Complete
                | Event::Fail
                | Event::TimeOut
                | Event::Retry
                | Event::GiveUp
                | Event::Cancel => None,
            },
            Self::Completed | Self::Cancelled => match event {
                Event::Enqueue
                | Event::Claim
                | Event::Unqueue
                | Event::Release
                | Event::Complete
                | Event::Fail
                | Event::TimeOut
                | Event::Retry
                | Event::GiveUp
                | Event::Cancel
                | Event::Replay => None,
            },
        };
        match to {
            Some(state) => Ok(state),
            None => Err(Illegal { from: self, event }),
        }
    }
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 11] = [
        Self::Enqueue,
        Self::Claim,
        Self::Unqueue,
        Self::Release,
        Self::Complete,
        Self::Fail,
        Self::TimeOut,
        Self::Retry,
        Self::GiveUp,
        Self::Cancel,
        Self::Replay,
    ];
}

impl fmt::Display for ExecutionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ExecutionState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table as text; read it in review, it is what the documentation shows.
    const TABLE: &str = "\
pending: Enqueue>queued Cancel>cancelled
queued: Claim>running Unqueue>pending Cancel>cancelled
running: Release>queued Complete>completed Fail>failed TimeOut>timeout Retry>retry GiveUp>dead_letter Cancel>cancelled
completed:
failed: Retry>retry
timeout: Retry>retry
retry: Enqueue>queued GiveUp>dead_letter Cancel>cancelled
cancelled:
dead_letter: Replay>pending
";

    #[test]
    fn the_table_is_this_one() {
        let mut table = String::new();
        for state in ExecutionState::ALL {
            table += state.as_str();
            table += ":";
            for event in Event::ALL {
                match state.after(event) {
                    Ok(to) => table += &format!(" {event:?}>{to}"),
                    Err(illegal) => assert_eq!(illegal, Illegal { from: state, event }),
                }
            }
            table += "\n";
        }
        assert_eq!(table, TABLE);
    }

    #[test]
    fn every_unsettled_state_can_still_end_and_every_state_is_reached() {
        for state in ExecutionState::ALL {
            let cancels = state.after(Event::Cancel).is_ok();
            assert_eq!(cancels, !state.is_settled(), "{state}");
            let reached = ExecutionState::ALL
                .into_iter()
                .any(|from| Event::ALL.into_iter().any(|event| from.after(event) == Ok(state)));
            assert!(reached, "{state} is never reached");
        }
    }

    #[test]
    fn a_state_is_read_back_from_its_own_spelling_alone() {
        for state in ExecutionState::ALL {
            assert_eq!(state.to_string().parse(), Ok(state));
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
        for bad in ["", "Running", "deadletter", "dead-letter", "running "] {
            assert_eq!(bad.parse::<ExecutionState>(), Err(UnknownState(bad.to_owned())));
        }
    }
}
