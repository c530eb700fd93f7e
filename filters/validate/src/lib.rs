//! Judges the bodies of requests by JSON Schema: a module of its own, since the validator weighs more than all other
//! steps together (design §3.5). Only wiring; knows no policy.

gatehouse_wasm_host::validate_module!();
