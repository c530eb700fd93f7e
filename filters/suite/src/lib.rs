//! All steps of the request path fused in one module: the default filter. Only wiring; knows no policy.

gatehouse_wasm_host::module!(gatehouse_wasm_host::Parts::Suite);
