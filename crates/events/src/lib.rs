//! What happens in a tenant, as data: the closed list of kinds, what each of them says, and the states that the events of
//! an agent or an execution add up to (docs/events.md).
//!
//! Pure: no IO, no clock, no randomness, no async. Knows neither PostgreSQL nor Kafka: who stores or publishes an event
//! brings its number, its time and its id.
#![warn(missing_docs)]

pub mod agent;
pub mod event;
pub mod execution;
pub mod kind;
pub mod published;
pub mod webhook;

pub use agent::Agent;
pub use event::{Event, Unreadable};
pub use execution::Execution;
pub use kind::{Aggregate, Kind, Topic, UnknownKind};

/// An event that cannot follow what came before it: the store was changed past its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind} cannot follow what came before it")]
pub struct Illegal {
    /// The event's kind.
    pub kind: Kind,
}
