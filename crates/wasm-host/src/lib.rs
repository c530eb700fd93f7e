//! The proxy-wasm adapter: the only crate that speaks the ABI.
