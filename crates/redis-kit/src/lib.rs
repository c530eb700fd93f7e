//! Redis: the only crate that speaks it. Connections with a deadline on every operation, the queue of
//! executions on Streams, and the decision of a rate limit as a Redis function.
//! Knows neither HTTP nor PostgreSQL; what is in Redis is an index or a window, never the truth.

#![warn(missing_docs)]

pub mod limiter;
pub mod link;
pub mod queue;

pub use gatehouse_contract::acl;
pub use limiter::{Decided, Limiter};
pub use link::{Address, Error, Link};
