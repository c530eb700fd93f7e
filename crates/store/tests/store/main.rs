//! The store against a real PostgreSQL: what the roles can see, what the doors do, what starts are refused.
//! Every test has a database of its own, made from the migrations and dropped afterwards.

#[cfg(test)]
mod catalog;
#[cfg(test)]
mod credentials;
#[cfg(test)]
mod dead_letters;
#[cfg(test)]
mod deliveries;
#[cfg(test)]
mod doors;
#[cfg(test)]
mod entitlements;
#[cfg(test)]
mod erasure;
#[cfg(test)]
mod events;
#[cfg(test)]
mod executions;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hooks;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod leaks;
#[cfg(test)]
mod members;
#[cfg(test)]
mod metering;
#[cfg(test)]
mod migrations;
#[cfg(test)]
mod partitions;
#[cfg(test)]
mod pgtap;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod proof;
#[cfg(test)]
mod publisher;
#[cfg(test)]
mod quotas;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod sandboxes;
#[cfg(test)]
mod seals;
#[cfg(test)]
mod sign_in;
#[cfg(test)]
mod slots;
#[cfg(test)]
mod tenancy;
#[cfg(test)]
mod version_pins;
#[cfg(test)]
mod watching;
