//! Starts and stops the whole system on this machine.
