//! The acceptance lines through the compiled module in real Envoy, each under its id. Beside every allow stands its
//! nearest deny. `cargo xtask test` counts the ids that ran (xtask/src/test/acceptance.rs).

mod cache;
mod callers;
mod chain;
mod challenges;
mod claims;
mod clock;
mod compact;
mod cors;
mod crossing;
mod envelope;
mod gate;
mod grpc;
mod handover;
mod interleaved;
mod keys;
mod leavers;
mod limits;
mod logs;
mod methods;
mod paths;
mod reload;
mod replies;
mod robust;
mod scopes;
mod soak;
mod sources;
mod tenant;
mod transforms;
mod validate;
mod vectors;
mod versions;
mod workers;
