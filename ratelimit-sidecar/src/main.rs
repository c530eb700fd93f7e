//! What the filters ask: limits, key sets, principals.

fn main() {}
