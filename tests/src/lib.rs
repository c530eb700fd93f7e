//! The harness: what the integration tests start and look through.
//! A wasmtime host for the compiled filter, real processes, HTTP down to the byte, test tokens.
//! Knows nothing of how the product decides: it sees bytes in and bytes out.

pub mod bench;
pub mod chaos;
pub mod cluster;
pub mod engine;
pub mod env;
pub mod envoy;
pub mod faults;
pub mod fleet;
pub mod front;
pub mod h2;
pub mod history;
pub mod http;
pub mod pki;
pub mod process;
pub mod tap;
pub mod tiny;
pub mod token;
pub mod vm;
pub mod wait;
pub mod walk;
pub mod world;

pub use gatehouse_load::{checker, load, summary};
