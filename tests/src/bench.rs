//! What the benches measure with: processors, load, keys, tokens. Figures and tables are xtask's.
//! Knows nothing of how the product decides.

pub mod control;
pub mod cpu;
pub mod edge;
pub mod execution;
pub mod load;
mod measured;
pub mod memory;
pub mod pairs;
pub mod ratelimit;
pub mod revocation;
pub mod signer;
