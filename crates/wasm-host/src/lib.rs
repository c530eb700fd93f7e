//! The proxy-wasm adapter: the only crate that speaks the ABI. It performs what the policy's steps say and hands
//! back what the host answers; it decides nothing.
//!
//! The rules it keeps (measured in Envoy 1.40 and Kong 3.9): only getters of bytes; the request's header map is
//! read once; every branch of a callback resumes or replies, never both; the root context cannot trap; what a host
//! cannot do is decided by configuration, never by probing.
//!
//! Host calls of a request whose token and principal are remembered: time and header map; the call-out; time,
//! header map and body of its answer; one per changed header (six of context and baggage); resume. On the
//! response: its header map, one per header that is set (at most six) or removed.

#![warn(missing_docs)]

mod abi;
mod callbacks;
mod envoy;
mod host;
mod root;
mod stream;
#[cfg(feature = "validate")]
mod validate;

pub use callbacks::root;
pub use gatehouse_edge::Parts;
#[doc(hidden)]
pub use proxy_wasm;
#[cfg(feature = "validate")]
pub use validate::validate_root;

/// Makes the crate a module that takes these [`Parts`] of the request path.
#[macro_export]
macro_rules! module {
    ($parts:expr) => {
        const _: () = assert!($crate::Parts::are_built($parts), "a feature is missing");
        $crate::proxy_wasm::main! {{
            $crate::proxy_wasm::set_root_context(|_context| $crate::root($parts));
        }}
    };
}
