//! The model of a rate limit: which limits weigh on a request, the sliding window, the verdict, the keys and
//! the header values. The Redis function of `redis-kit` does the same sums; both are compared on random traces.
//!
//! Pure: callers bring `now` and the stored windows. Knows neither Redis nor HTTP.

#![warn(missing_docs)]

pub mod day;
pub mod decision;
pub mod gcra;
pub mod header;
pub mod keys;
pub mod log;
pub mod memory;
pub mod model;
pub mod policy;
pub mod state;
pub mod take;
pub mod window;

pub use decision::{Decision, Standing};
pub use memory::Memory;
pub use policy::{Algorithm, Asked, Name, Policy, Rule};
pub use take::{Declaration, Refused, Return, Run, Take, Taken};
pub use window::{Span, Timestamp, Window};
