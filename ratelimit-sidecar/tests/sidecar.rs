//! The sidecar's binary over its real sockets, with a real Redis and real HTTP servers as issuer and control API.

#![cfg(test)]

#[path = "sidecar/checks.rs"]
mod checks;
#[path = "sidecar/keys.rs"]
mod keys;
#[path = "sidecar/principals.rs"]
mod principals;
#[path = "sidecar/process.rs"]
mod process;
#[path = "sidecar/start.rs"]
mod start;
