//! Builds, installs, starts, checks: the commands of this repository.

fn main() {}
