//! Claims executions and runs them in gVisor.

fn main() {}
