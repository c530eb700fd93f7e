//! Where this repository and its target folder lie, whatever folder a command was started from.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// The repository's root: the folder above with `xtask` and the lock file.
pub fn root() -> anyhow::Result<PathBuf> {
    let start = match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(package) => PathBuf::from(package),
        None => std::env::current_dir().context("reading the current folder")?,
    };
    start
        .ancestors()
        .find(|folder| {
            folder.join("xtask/Cargo.toml").is_file() && folder.join("Cargo.lock").is_file()
        })
        .map(Path::to_path_buf)
        .with_context(|| format!("{} is not in the Gatehouse repository", start.display()))
}

/// Cargo's target folder.
pub fn target(root: &Path) -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root.join(folder),
        None => root.join("target"),
    }
}

/// The cargo that started us, so that its toolchain is the one used throughout.
pub fn cargo(root: &Path) -> std::process::Command {
    let mut cargo =
        std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root);
    cargo
}

/// What `xtask test` has built for all tests and names in the environment.
pub fn built(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists())
}
