//! What `cargo xtask test` installs, builds or starts, and hands to the tests through the environment.
//! Nothing is searched for: a missing part fails the test and names the mend.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// The superuser's URL of a private PostgreSQL that has `roles.sql` applied.
pub const POSTGRES: &str = "GATEHOUSE_TEST_POSTGRES";
/// The program `redis-server`.
pub const REDIS_SERVER: &str = "GATEHOUSE_TEST_REDIS_SERVER";
/// gVisor's `runsc`.
pub const RUNSC: &str = "GATEHOUSE_TEST_RUNSC";
/// The OCI layout of the sample agent.
pub const AGENT: &str = "GATEHOUSE_TEST_AGENT";
/// Envoy's binary.
pub const ENVOY: &str = "GATEHOUSE_TEST_ENVOY";
/// The stripped `suite.wasm`.
pub const SUITE: &str = "GATEHOUSE_TEST_SUITE";
/// The module that asks hosts what they do.
pub const PROBE: &str = "GATEHOUSE_TEST_PROBE";
/// The module `auth` for Envoy.
pub const AUTH: &str = "GATEHOUSE_TEST_AUTH";
/// The module `version` for Envoy.
pub const VERSION: &str = "GATEHOUSE_TEST_VERSION";
/// The module `ratelimit` for Envoy.
pub const RATE_LIMIT: &str = "GATEHOUSE_TEST_RATE_LIMIT";
/// The module `transform` for Envoy.
pub const TRANSFORM: &str = "GATEHOUSE_TEST_TRANSFORM";
/// The module that judges bodies.
pub const VALIDATE: &str = "GATEHOUSE_TEST_VALIDATE";
/// The store's own bench.
pub const DOORS: &str = "GATEHOUSE_TEST_DOORS";
/// The folder of PostgreSQL's programs.
pub const PG_BIN: &str = "GATEHOUSE_TEST_PG_BIN";
/// The folder of the built services.
pub const BIN: &str = "GATEHOUSE_TEST_BIN";

/// The value of `name`, which `cargo xtask test` sets.
pub fn text(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run `cargo xtask test`"))
}

/// The path in `name`; what it names must be there.
pub fn path(name: &str) -> Result<PathBuf> {
    let path = PathBuf::from(text(name)?);
    ensure!(path.exists(), "{name} names {}, which is not there", path.display());
    Ok(path)
}
