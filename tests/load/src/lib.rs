//! Clients that keep a limiter busy, and the judge of what they saw. A package of its own: benches run it optimised,
//! which the whole harness with its compilers would be slow to build. Knows nothing of how the product decides.

pub mod checker;
pub mod hex;
pub mod load;
pub mod summary;
