//! The closed list of kinds: what each is about, where it is published, and which version of its schema is written.
//! Knows nothing of what an event says.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    /// An agent with its versions. Its state is rebuilt from its events.
    Agent,
    /// An execution. Its state is rebuilt from its events.
    Execution,
    /// The tenant itself, whose record is no sum of events.
    Tenant,
}

/// Where events are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Agents, versions and the end of a tenant; compacted.
    Lifecycle,
    /// Executions; compacted.
    Execution,
    /// What was audited: names of actions and hashes. Never compacted, so that it has nothing personal in it.
    Audit,
    /// What was used; kept for an hour.
    Metrics,
}

/// The text names no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no kind of event")]
pub struct UnknownKind(pub String);

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $aggregate:ident, $topic:ident, $version:literal;)+) => {
        /// What happened. Stored and published; append only.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $($(#[$doc])* $kind,)+ }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// Its name, stored and published (`ce_type`).
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name),+ }
            }

            /// What it is about.
            pub const fn aggregate(self) -> Aggregate {
                match self { $(Self::$kind => Aggregate::$aggregate),+ }
            }

            /// Where it is published.
            pub const fn topic(self) -> Topic {
                match self { $(Self::$kind => Topic::$topic),+ }
            }

            /// Of the schema that is written now; what was written under an older one can still be read.
            pub const fn schema_version(self) -> u16 {
                match self { $(Self::$kind => $version),+ }
            }

            /// The Avro schema of that version, of what is published.
            pub const fn schema(self) -> &'static str {
                match self {
                    $(Self::$kind => include_str!(concat!("../schemas/", $name, ".", $version, ".avsc"))),+
                }
            }
        }
    };
}

kinds! {
    /// An agent was registered.
    AgentCreated = "agent.created", Agent, Lifecycle, 1;
    /// Its name or description is another.
    AgentUpdated = "agent.updated", Agent, Lifecycle, 1;
    /// It was taken out of the registry.
    AgentDeleted = "agent.deleted", Agent, Lifecycle, 1;
    /// A version of it can be run.
    VersionPublished = "version.published", Agent, Lifecycle, 1;
    /// A version is the one that runs where none is named.
    VersionPromoted = "version.promoted", Agent, Lifecycle, 1;
    /// A version should be run no longer; it can be.
    VersionDeprecated = "version.deprecated", Agent, Lifecycle, 1;
    /// An execution was asked for.
    ExecutionSubmitted = "execution.submitted", Execution, Execution, 1;
    /// It was offered to the workers.
    ExecutionQueued = "execution.queued", Execution, Execution, 1;
    /// Nobody took it: it will be offered again.
    ExecutionUnqueued = "execution.unqueued", Execution, Execution, 1;
    /// A worker has it.
    ExecutionStarted = "execution.started", Execution, Execution, 1;
    /// The worker gave it back unrun.
    ExecutionReleased = "execution.released", Execution, Execution, 1;
    /// The worker was lost.
    ExecutionLost = "execution.lost", Execution, Execution, 1;
    /// It ended with a result.
    ExecutionCompleted = "execution.completed", Execution, Execution, 2;
    /// It ended without one.
    ExecutionFailed = "execution.failed", Execution, Execution, 1;
    /// It ran into its time limit.
    ExecutionTimedOut = "execution.timed_out", Execution, Execution, 1;
    /// The attempt failed; another will be made.
    ExecutionRetried = "execution.retried", Execution, Execution, 1;
    /// No further attempt will be made.
    ExecutionGivenUp = "execution.given_up", Execution, Execution, 1;
    /// The caller ended it.
    ExecutionCancelled = "execution.cancelled", Execution, Execution, 1;
    /// Given up, and started anew by a person.
    ExecutionReplayed = "execution.replayed", Execution, Execution, 1;
    /// The attempt has used 80 % of its time.
    ExecutionTimeRunsOut = "execution.time_runs_out", Execution, Execution, 1;
    /// A quota of the tenant has run out so far.
    QuotaThresholdReached = "quota.threshold_reached", Tenant, Metrics, 1;
    /// All that the tenant had is gone.
    TenantErased = "tenant.erased", Tenant, Lifecycle, 1;
    /// Something was audited.
    AuditRecorded = "audit.recorded", Tenant, Audit, 1;
}

// === impl Kind ===

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let found = Self::ALL.iter().copied().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

// === impl Aggregate ===

impl Aggregate {
    /// Its name, stored and published.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Execution => "execution",
            Self::Tenant => "tenant",
        }
    }
}

// === impl Topic ===

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 4] = [Self::Lifecycle, Self::Execution, Self::Audit, Self::Metrics];

    /// Its name in Kafka, behind the prefix of the configuration (specification ADR-002).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lifecycle => "agent_lifecycle",
            Self::Execution => "agent_execution",
            Self::Audit => "audit_log",
            Self::Metrics => "agent_metrics",
        }
    }

    /// Whether the newest message of a key stays for ever, so that an erased tenant's keys need tombstones.
    pub const fn is_compacted(self) -> bool {
        match self {
            Self::Lifecycle | Self::Execution => true,
            Self::Audit | Self::Metrics => false,
        }
    }
}

impl FromStr for Topic {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let found = Self::ALL.into_iter().find(|topic| topic.as_str() == text);
        found.ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_back_from_its_own_name_alone() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(*kind));
            assert!(kind.schema_version() >= 1);
        }
        for bad in ["", "agent", "Agent.created", "agent.created "] {
            assert!(bad.parse::<Kind>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_rebuilt_is_published_where_the_newest_stays() {
        for kind in Kind::ALL {
            if kind.aggregate() != Aggregate::Tenant {
                assert!(kind.topic().is_compacted(), "{kind}");
            }
        }
    }
}
