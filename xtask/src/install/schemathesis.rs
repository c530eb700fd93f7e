//! Schemathesis under `.gatehouse/schemathesis`, from wheels that are pinned by hash. For tests alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;

use crate::{command, paths, repo};

const PYTHON: &str = "/usr/bin/python3";
/// Relative to the repository.
const REQUIREMENTS: &str = "xtask/requirements-schemathesis.txt";
/// Says of what it was made.
const MARK: &str = "made.txt";

fn folder() -> anyhow::Result<PathBuf> {
    Ok(paths::home()?.join("schemathesis"))
}

fn pin() -> anyhow::Result<String> {
    let file = repo::root()?.join(REQUIREMENTS);
    fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
}

fn program(folder: &Path) -> PathBuf {
    folder.join("bin/schemathesis")
}

/// The program.
pub fn find() -> Option<PathBuf> {
    let folder = folder().ok()?;
    let marked = fs::read_to_string(folder.join(MARK)).ok()?;
    let program = program(&folder);
    (marked == pin().ok()? && program.is_file()).then_some(program)
}

/// Makes its environment anew.
pub fn install() -> anyhow::Result<()> {
    let folder = folder()?;
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    command::run(
        Command::new(PYTHON).args(["-m", "venv"]).arg(&folder),
        "making a Python environment",
        Duration::from_secs(120),
    )?;
    command::run(
        Command::new(folder.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "--no-input"])
            .args(["--require-hashes", "--only-binary", ":all:", "--requirement"])
            .arg(repo::root()?.join(REQUIREMENTS)),
        "pip install",
        Duration::from_secs(600),
    )?;
    // Last, so that what was made only in part is made again.
    fs::write(folder.join(MARK), pin()?).context("marking the environment as complete")
}
