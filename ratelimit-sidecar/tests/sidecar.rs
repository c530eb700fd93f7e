//! The sidecar's binary over its real sockets, with a real Redis and real HTTP servers as issuer and control API.

#![cfg(test)]

#[path = "sidecar/changes.rs"]
mod changes;
#[path = "sidecar/checks.rs"]
mod checks;
#[path = "sidecar/clusters.rs"]
mod clusters;
#[path = "sidecar/credentials.rs"]
mod credentials;
#[path = "sidecar/discovery.rs"]
mod discovery;
#[path = "sidecar/grpc.rs"]
mod grpc;
#[path = "sidecar/keys.rs"]
mod keys;
#[path = "sidecar/leases.rs"]
mod leases;
#[path = "sidecar/outages.rs"]
mod outages;
#[path = "sidecar/principals.rs"]
mod principals;
#[path = "sidecar/process.rs"]
mod process;
#[path = "sidecar/start.rs"]
mod start;
#[path = "sidecar/surfaces.rs"]
mod surfaces;
