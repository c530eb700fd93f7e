//! Any bytes at all for every reader of bytes that came from outside (acceptance J30). A target is a plain function
//! that panics where something does not hold; it runs here over mutations of committed seeds, bounded in the tests
//! and longer by `cargo xtask fuzz`, and any other fuzzer can call it too.
//! Knows how to make inputs; what must hold is said by the targets.

mod abi;
mod corpus;
mod export;
mod judged;
mod mutate;
mod request;
mod run;
mod targets;

pub use corpus::seeds;
pub use run::{Bound, Report, run};
pub use targets::{TARGETS, Target};
