//! The worker on real parts: runsc, and for the whole worker PostgreSQL and Redis.
//! What a test needs comes from the environment that `cargo xtask test` sets; a missing part fails the test.

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod control;
#[cfg(test)]
mod driver;
#[cfg(test)]
mod egress;
#[cfg(test)]
mod escape;
#[cfg(test)]
mod hooks;
#[cfg(test)]
mod images;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod metering;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod prepared;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod pulls;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod selftest;
#[cfg(test)]
mod support;
#[cfg(test)]
mod system;
#[cfg(test)]
mod terms;
#[cfg(test)]
mod warm;
#[cfg(test)]
mod whole;
