//! gatehouse: lint, explain, convert, verify.

fn main() {}
