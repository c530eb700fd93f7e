//! The control API as its clients, its sidecars and its operators see it: the real binary over real sockets on a
//! real PostgreSQL. Every test has a database, a service and an image store of its own.

#[cfg(test)]
mod access;
#[cfg(test)]
mod api_keys;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod cache;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod conventions;
#[cfg(test)]
mod database;
#[cfg(test)]
mod described;
#[cfg(test)]
mod events;
#[cfg(test)]
mod executions;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fuzzed;
#[cfg(test)]
mod history;
#[cfg(test)]
mod http;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod members;
#[cfg(test)]
mod months;
#[cfg(test)]
mod oidc;
#[cfg(test)]
mod problems;
#[cfg(test)]
mod provenance;
#[cfg(test)]
mod redis;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod revocation;
#[cfg(test)]
mod runbooks;
#[cfg(test)]
mod starts;
#[cfg(test)]
mod tenancy;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod version_pins;
#[cfg(test)]
mod watching;
#[cfg(test)]
mod webhooks;
#[cfg(test)]
mod world;
