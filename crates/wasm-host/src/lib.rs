//! The proxy-wasm adapter: the only crate that speaks the ABI. It performs what the policy's steps say and hands
//! back what the host answers; it decides nothing.
//!
//! The rules it keeps (measured in Envoy 1.40 and Kong 3.9): only getters of bytes; the request's header map is
//! read once; every branch of a callback resumes or replies, never both; the root context cannot trap; what a host
//! cannot do is decided by configuration, never by probing. It uses functions of `proxy_wasm::hostcalls` alone:
//! the SDK's trait methods unwrap what hosts send (`clippy.toml` bans them), and header maps are read by `abi`.
//!
//! Host calls of a request whose token and principal are remembered: time and header map; the call-out; time,
//! header map and body of its answer; one per changed header (six of context and baggage); resume. On the
//! response: its status, one per header that is set (at most six) or removed (six).

#![warn(missing_docs)]

mod abi;
mod envoy;
mod host;
mod root;
mod stream;

#[doc(hidden)]
pub use proxy_wasm;

/// Registers the fused suite with the host. Called once, by [`module!`].
pub fn start_suite() {
    proxy_wasm::set_log_level(proxy_wasm::types::LogLevel::Warn);
    proxy_wasm::set_root_context(root::create);
}

/// Makes the crate a module: the host's entry point calls `$start`.
#[macro_export]
macro_rules! module {
    ($start:path) => {
        $crate::proxy_wasm::main! {{ $start(); }}
    };
}
