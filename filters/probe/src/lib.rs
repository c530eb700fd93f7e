//! A filter that asks its host what the host does, and answers requests with what it found, a line each: the same
//! questions to the wasmtime host of the tests and to a real Envoy must get the same answers. For tests only.
//! No addresses, times or sizes stand in a line. Knows nothing of the product.

#[cfg(target_family = "wasm")]
mod abi;
#[cfg(target_family = "wasm")]
mod callbacks;
#[cfg(target_family = "wasm")]
mod scenes;
