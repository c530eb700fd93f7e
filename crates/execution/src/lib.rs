//! Executions as data: the state machine, image names, the OCI documents that we accept, the sandbox document,
//! what the end of a run means, and what its result came from.
//!
//! Pure: no IO, no clock, no randomness, no async. Knows neither PostgreSQL nor Redis nor runsc's command line.
#![warn(missing_docs)]

pub mod egress;
pub mod fair;
pub mod hooks;
pub mod image;
pub mod json;
pub mod limits;
pub mod oci;
pub mod outcome;
pub mod provenance;
pub mod record;
pub mod sandbox;
pub mod state;

pub use hooks::{Hook, Hooks};
pub use image::{Digest, ImageName, ImageRef};
pub use limits::Limits;
pub use outcome::EndReason;
pub use record::Record;
pub use state::ExecutionState;
