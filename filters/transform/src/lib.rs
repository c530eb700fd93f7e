//! What is changed of requests and responses: behind the other modules in chains of single filters.
//! Only wiring; knows no policy.

gatehouse_wasm_host::module!(gatehouse_wasm_host::Parts::Transform);
