//! Which API version answers, and how it ends: before `auth` in chains of single filters.
//! Only wiring; knows no policy.

gatehouse_wasm_host::module!(gatehouse_wasm_host::Parts::Version);
