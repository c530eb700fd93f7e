//! How much a caller may: behind `auth` in chains of single filters, which hands the caller over.
//! Only wiring; knows no policy.

gatehouse_wasm_host::module!(gatehouse_wasm_host::Parts::RateLimit);
