//! The request path at the edge as a sans-IO policy (design §3).
//!
//! [`Suite::compile`] turns the edge document into a policy, whole or not at all. A shell hands each request's
//! headers to [`Suite::on_request`], does what the [`Step`] says, feeds the sidecar's answers to
//! [`Suite::on_answer`], and asks [`Suite::on_response`] for the changes to every response.
//!
//! Pure: runs inside a Wasm VM, where a panic is an outage. Knows neither hosts' functions, clocks nor randomness;
//! all three come by argument.

#![warn(missing_docs)]

mod access_log;
mod authority;
mod baggage;
mod client;
mod config;
mod cors;
mod credential;
mod decision;
mod envelope;
mod feed;
mod flow;
mod handover;
mod limits;
mod local;
mod matrix;
mod parts;
pub mod path;
mod prepared;
mod remote_keys;
mod reply;
mod request_id;
mod sizes;
mod state;
mod step;
mod text;
mod transform;
mod vary;
mod version;
mod view;

pub use config::{Environment, Host, Rbac, Sidecar, Signatures, Suite, Target, Warning};
pub use decision::{Decision, Rule, Ruling, Unruled};
pub use envelope::{Wrapped, Wrapping};
pub use feed::{Purpose, RootAnswer, RootCall};
pub use flow::Pending;
pub use limits::{Clock, Standing};
pub use parts::Parts;
pub use remote_keys::{Shared, Unshared};
pub use state::VmState;
pub use step::{Answer, Call, Edit, GrpcStatus, Name, Reply, RequestRecord, Step};
pub use text::{Digits, Text};
pub use version::VersionSource;
pub use view::{RequestView, protected_names};
