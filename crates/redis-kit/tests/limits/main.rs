//! One suite over every store of limits: memory, one Redis, a Redis Cluster. What it holds is the contract of
//! `ratelimit::take`, by the model of `ratelimit::model`.

#![cfg(test)]

mod contract;
mod faults;
mod kit;
mod runs;
mod traces;
