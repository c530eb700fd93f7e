//! Tokens, key sets and claims: parsing and judging, without IO.
//!
//! The order of use: [`bearer::token`], [`cookie::find`] or [`query::find`] takes the token out of a request,
//! [`jws::parse`] reads it strictly, [`jws::verify_with`] checks its signature with a key of a [`jwks::KeySet`] through a [`Verifier`], and
//! [`claims::judge`] weighs what it claims against an issuer's [`claims::Rules`] at a given time. What passed
//! may be remembered in a [`cache::Cache`], and upstreams are told in a signed [`context`].
//!
//! Pure: runs inside a Wasm VM, where a panic is an outage. Knows neither hosts, clocks nor where keys come from.

#![warn(missing_docs)]

pub mod algorithm;
pub mod api_key;
pub mod bearer;
pub mod cache;
pub mod claims;
pub mod context;
pub mod cookie;
pub mod jwks;
pub mod jws;
pub mod octets;
pub mod portable;
pub mod probe;
pub mod query;
pub mod refusal;
pub mod revocation;

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
#[cfg(any(test, feature = "fuzzing"))]
pub mod vectors;

mod der;
mod strict;

#[cfg(test)]
mod testing;

pub use algorithm::Algorithm;
pub use claims::{Claims, Rules};
pub use jwks::{Key, KeySet};
pub use jws::{Unavailable, Verifier};
pub use portable::Portable;
pub use refusal::Refusal;
