//! Redis: the only crate that speaks it.
