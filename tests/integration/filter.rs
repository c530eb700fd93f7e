//! The compiled filter, as the bytes that ship, in the wasmtime host.

mod auth;
mod configure;
mod cors;
mod cost;
mod envelope;
mod feed;
pub(crate) mod gate;
mod headers;
mod limits;
mod logs;
mod path;
mod remote_keys;
mod robust;
mod tokens;
mod transforms;
mod unavailable;
mod validate;
mod versions;
