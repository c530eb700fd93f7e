//! What every service needs around axum: problems, listeners, logs, shutdown, configuration from a file.
//!
//! A service's `main` is `service::exit::run("control-api", …)`; its routers pass through [`app::finish`],
//! which makes every refusal a problem (RFC 9457), gives every request an id and a log line, and bounds its
//! time and body. Knows no database, no Redis and no route of any service.
#![warn(missing_docs)]

pub mod admin;
pub mod app;
pub mod body;
pub mod config;
pub mod exit;
pub mod listen;
pub mod metrics;
pub mod peppers;
pub mod problem;
pub mod request;
pub mod shutdown;
pub mod telemetry;

pub use exit::Stop;
pub use problem::Reply;
pub use request::{RequestId, Trace};
pub use shutdown::Shutdown;
