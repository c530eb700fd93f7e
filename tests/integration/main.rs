//! The integration tests: the compiled filter in a wasmtime host and in real Envoy, and the whole stack.

#[cfg(test)]
mod acceptance;
#[cfg(test)]
mod envoy;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod filter;
#[cfg(test)]
mod host;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod ratelimit;
#[cfg(test)]
mod stack;
