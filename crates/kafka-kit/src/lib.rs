//! Kafka: the only crate that speaks it. Publishes events as Avro under CloudEvents headers, in the order in which they are
//! given, and reads them back as a consumer must: refusing what is not whose it says it is (docs/events.md).
//! Knows nothing of where events come from.
#![warn(missing_docs)]

pub mod avro;
pub mod header;
pub mod publish;
pub mod received;

pub use avro::Schemas;
pub use publish::{Outgoing, Publisher, What};
pub use received::{Received, Refused};
