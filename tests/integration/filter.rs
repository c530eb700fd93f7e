//! The compiled filter, as the bytes that ship, in the wasmtime host.

mod configure;
mod cost;
mod gate;
mod headers;
mod path;
mod robust;
mod tokens;
mod unavailable;
