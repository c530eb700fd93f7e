//! Redis: the only crate that speaks it. Connections with a deadline on every operation, the queue of
//! executions on Streams, the decision of a rate limit as a Redis function, the change feed and what is remembered
//! of credentials.
//! Knows neither HTTP nor PostgreSQL; what is in Redis is an index or a window, never the truth.

#![warn(missing_docs)]

pub mod cache;
mod cluster;
pub mod cred;
pub mod feed;
pub mod limiter;
pub mod link;
pub mod logs;
pub mod queue;

pub use gatehouse_contract::acl;
pub use limiter::{Decided, Limiter, Pulse};
pub use link::{Address, Error, Link};
