//! Starts and stops the whole system on this machine.

pub mod child;
pub mod record;
pub mod sweep;
