//! Judges the JSON bodies of requests by JSON Schema 2020-12 (design §3.5, acceptance X7).
//!
//! [`Validator::compile`] turns a document of routes and schemas into rules, whole or not at all. A shell shows it the
//! headers of a request ([`Validator::begin`]) and, where a rule waits for it, the whole body ([`Validator::end`]).
//! Services hold a [`Schema`] for each body that they take themselves: the same verdicts, the same words.
//!
//! What comes from outside costs a bounded amount: a body is limited in bytes, in depth and in the steps that judging it
//! takes, patterns are matched in linear time, and nothing is ever fetched.
//! Pure: knows neither hosts nor HTTP libraries.

#![warn(missing_docs)]

mod body;
mod bounds;
mod document;
mod judge;
mod media;
mod meter;
mod node;
mod request;
mod schema;

pub use document::{MAX_BODY_BYTES, Validator};
pub use judge::{Finding, MAX_FINDINGS, Refusal};
pub use request::{Answer, Awaited, Begin, answer};
pub use schema::Schema;
