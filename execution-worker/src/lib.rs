//! The execution worker: claims executions, runs each in a gVisor sandbox of its own, reports the end.
//! A library so that its tests drive the parts; the binary is `main.rs`.
//! Has no client route: what it listens on are liveness, readiness and metrics.

pub mod capture;
pub mod cgroup;
pub mod config;
pub mod consume;
pub mod driver;
pub mod egress;
pub mod enter;
pub mod execute;
pub mod feeder;
pub mod ghosts;
pub mod hooks;
pub mod image;
pub mod leases;
pub mod left;
pub mod live;
pub mod metrics;
pub mod output;
pub mod process;
pub mod provenance;
pub mod pulse;
pub mod recompute;
pub mod reload;
pub mod report;
pub mod sandbox;
pub mod selftest;
pub mod spool;
pub mod state_dir;
pub mod worker;
