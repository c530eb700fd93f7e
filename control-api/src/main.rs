//! The control API: tenants, agents, executions, tokens.

fn main() {}
