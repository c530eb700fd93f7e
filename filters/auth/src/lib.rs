//! Who calls, and what that caller may do: the request path without versions and limits, for chains of single filters.
//! Hands over by filter state (`gatehouse_identity`). Only wiring; knows no policy.

gatehouse_wasm_host::module!(gatehouse_wasm_host::Parts::Auth);
