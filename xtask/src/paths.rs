//! Where xtask keeps what it installs and the state of running instances. Knows nothing of what is kept there.

use std::path::PathBuf;

use crate::repo;

/// `.gatehouse` in the repository, or the directory that `GATEHOUSE_HOME` names.
pub fn home() -> anyhow::Result<PathBuf> {
    match std::env::var_os("GATEHOUSE_HOME") {
        Some(home) if !home.is_empty() => Ok(PathBuf::from(home)),
        _ => Ok(repo::root()?.join(".gatehouse")),
    }
}
