//! Calls to addresses that are not ours: an issuer's keys, its discovery document, its token endpoint; a tenant's
//! webhook; what an agent asks through the worker's egress proxy.
//!
//! Everything that leaves for a stranger passes [`Guard`] and [`Client`] (design §3.3): https with verified
//! certificates, the name resolved once and the connection pinned to what was judged, no private or special
//! addresses, no redirects, no proxy, bounds in time and bytes. An operator may name an exception in static
//! configuration by exact scheme, host and port; our own internal listeners are never reached, named or not.
//! Knows nothing of what is fetched.

#![warn(missing_docs)]

mod address;
mod client;
mod guard;
mod target;

pub use address::is_public;
pub use client::{Answer, Bounds, Client, Error, Heard, Resolve, Stream, Trust, TrustError};
pub use guard::{Guard, Refused};
pub use target::{NotAUrl, Origin, Target};
