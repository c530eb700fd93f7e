//! What each kind of event says. A payload is stored sealed under its tenant's key, but for what jobs
//! tell, which have no key and nothing to hide. A field is never taken away or given another meaning: a new version of the schema
//! has a new reader beside the old one.
//! Knows nothing of what the events add up to.

use gatehouse_contract::{AgentId, AgentVersionId};
use gatehouse_execution::{Digest, EndReason, ExecutionState};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use time::{OffsetDateTime, serde::rfc3339};

use crate::Kind;

/// A stored payload that this build cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Of a later build.
    #[error("version {version} of {kind}'s schema is not known here")]
    Version {
        /// What happened.
        kind: Kind,
        /// The version that wrote it.
        version: u16,
    },
    /// Not what its kind says.
    #[error("the payload of {kind}: {cause}")]
    Payload {
        /// What happened.
        kind: Kind,
        /// What is wrong with it.
        cause: String,
    },
}

/// An agent was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCreated {
    /// Unique among the tenant's agents.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// When.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
}

/// What an agent is called from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentUpdated {
    /// Unique among the tenant's agents.
    pub name: String,
    /// For people.
    pub description: Option<String>,
}

/// An agent was taken out of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentDeleted {
    /// When.
    #[serde(with = "rfc3339")]
    pub deleted_at: OffsetDateTime,
}

/// A version can be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionPublished {
    /// The version.
    pub version_id: AgentVersionId,
    /// What it is called.
    pub version: String,
    /// `name@sha256:…`.
    pub image: String,
    /// When.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A version runs where none is named; the one before it does no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionPromoted {
    /// The version.
    pub version_id: AgentVersionId,
    /// When.
    #[serde(with = "rfc3339")]
    pub promoted_at: OffsetDateTime,
}

/// A version should be run no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionDeprecated {
    /// The version.
    pub version_id: AgentVersionId,
    /// What to do instead, for people.
    pub message: Option<String>,
    /// When.
    #[serde(with = "rfc3339")]
    pub deprecated_at: OffsetDateTime,
}

/// An execution was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecutionSubmitted {
    /// The agent.
    pub agent_id: AgentId,
    /// What runs.
    pub version_id: AgentVersionId,
    /// What the agent reads. Not published.
    pub input: Value,
    /// When.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
}

/// Nothing but that it happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}

/// A worker has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionStarted {
    /// The worker's incarnation.
    pub worker: String,
    /// The fencing token of the claim.
    pub lease_epoch: u64,
    /// 1 is the first.
    pub attempt: u32,
    /// When.
    #[serde(with = "rfc3339")]
    pub started_at: OffsetDateTime,
}

/// The attempt has used 80 % of its time (RES-001).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionTimeRunsOut {
    /// The fencing token of the claim that runs.
    pub lease_epoch: u64,
    /// 1 is the first.
    pub attempt: u32,
    /// All of its time, in seconds.
    pub timeout_s: u32,
}

/// The worker was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionLost {
    /// What follows: another attempt, or none.
    pub state: ExecutionState,
    /// When it ended, where none follows.
    #[serde(with = "rfc3339::option")]
    pub completed_at: Option<OffsetDateTime>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecutionEnded {
    /// Why.
    pub end_reason: EndReason,
    /// What the agent wrote. Not published.
    pub output: Option<Value>,
    /// The reason for people. Not published.
    pub error: Option<String>,
    /// When the execution ended, where no attempt follows.
    #[serde(with = "rfc3339::option")]
    pub completed_at: Option<OffsetDateTime>,
    /// Of the document that says where the result came from: of one that completed alone, since version 2 of that kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance_hash: Option<Digest>,
}

/// A quota of the tenant has run out so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaThresholdReached {
    /// Which one, e.g. `executions`.
    pub quota: String,
    /// The part that is used: 80 or 100.
    pub percent: u16,
    /// The UTC day of the window, `1970-01-01` for what does not begin anew.
    pub day: String,
    /// How much is used.
    pub used: u64,
    /// Of how much.
    pub limit: u64,
}

/// Something was audited. Published alone; what it says is in the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecorded {
    /// The audit's row.
    pub row: u64,
    /// Its hash in the chain, in hexadecimal digits.
    pub hash: String,
    /// `kind.verb`.
    pub action: String,
    /// What kind of thing it was done to.
    pub target_kind: String,
}

macro_rules! events {
    ($($kind:ident($payload:ty),)+) => {
        /// An event: its kind and what it says.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Event { $(
            #[doc = concat!("[`Kind::", stringify!($kind), "`].")]
            $kind($payload),
        )+ }

        impl Event {
            /// What happened.
            pub const fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind),+ }
            }

            /// What it says, to be stored under the kind's present schema version.
            ///
            /// # Errors
            /// Where a time is none that RFC 3339 can write.
            pub fn payload(&self) -> Result<Value, Unreadable> {
                match self { $(Self::$kind(payload) => write(Kind::$kind, payload)),+ }
            }

            /// Reads what was stored.
            ///
            /// # Errors
            /// [`Unreadable`] where a later build wrote it, or nobody did.
            pub fn read(kind: Kind, version: u16, payload: Value) -> Result<Self, Unreadable> {
                // What a later version adds is absent in an earlier one.
                if !(1..=kind.schema_version()).contains(&version) {
                    return Err(Unreadable::Version { kind, version });
                }
                match kind { $(Kind::$kind => read(kind, payload).map(Self::$kind)),+ }
            }
        }
    };
}

events! {
    AgentCreated(AgentCreated),
    AgentUpdated(AgentUpdated),
    AgentDeleted(AgentDeleted),
    VersionPublished(VersionPublished),
    VersionPromoted(VersionPromoted),
    VersionDeprecated(VersionDeprecated),
    ExecutionSubmitted(ExecutionSubmitted),
    ExecutionQueued(Nothing),
    ExecutionUnqueued(Nothing),
    ExecutionStarted(ExecutionStarted),
    ExecutionReleased(Nothing),
    ExecutionLost(ExecutionLost),
    ExecutionCompleted(ExecutionEnded),
    ExecutionFailed(ExecutionEnded),
    ExecutionTimedOut(ExecutionEnded),
    ExecutionRetried(ExecutionEnded),
    ExecutionGivenUp(ExecutionEnded),
    ExecutionCancelled(ExecutionEnded),
    ExecutionReplayed(Nothing),
    ExecutionTimeRunsOut(ExecutionTimeRunsOut),
    QuotaThresholdReached(QuotaThresholdReached),
    TenantErased(Nothing),
    AuditRecorded(AuditRecorded),
}

// === impl Event ===

impl Event {
    /// How an attempt ended, by the state that follows; `None` where no ending leads there.
    pub fn ended(state: ExecutionState, how: ExecutionEnded) -> Option<Self> {
        match state {
            ExecutionState::Completed => Some(Self::ExecutionCompleted(how)),
            ExecutionState::Failed => Some(Self::ExecutionFailed(how)),
            ExecutionState::Timeout => Some(Self::ExecutionTimedOut(how)),
            ExecutionState::Retry => Some(Self::ExecutionRetried(how)),
            ExecutionState::DeadLetter => Some(Self::ExecutionGivenUp(how)),
            ExecutionState::Cancelled => Some(Self::ExecutionCancelled(how)),
            ExecutionState::Pending | ExecutionState::Queued | ExecutionState::Running => None,
        }
    }
}

fn write(kind: Kind, payload: &impl Serialize) -> Result<Value, Unreadable> {
    serde_json::to_value(payload)
        .map_err(|error| Unreadable::Payload { kind, cause: error.to_string() })
}

fn read<T: DeserializeOwned>(kind: Kind, payload: Value) -> Result<T, Unreadable> {
    serde_json::from_value(payload)
        .map_err(|error| Unreadable::Payload { kind, cause: error.to_string() })
}
