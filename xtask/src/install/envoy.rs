//! Envoy from its Python wheel, in a virtual environment under `.gatehouse/venv`, every file pinned by hash.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;
use sha2::{Digest, Sha256};

use super::find;
use crate::{command, paths, repo};

/// The system's interpreter: one of a version manager may lack what Debian's has.
const PYTHON: &str = "/usr/bin/python3";
/// The version that everything here was measured with.
const VERSION: &str = "/1.40.";
/// Says for which requirements the environment was made.
const MARK: &str = "requirements.sha256";

fn venv() -> anyhow::Result<PathBuf> {
    Ok(paths::home()?.join("venv"))
}

fn requirements() -> anyhow::Result<PathBuf> {
    Ok(repo::root()?.join("xtask/requirements.txt"))
}

fn pin() -> anyhow::Result<String> {
    let file = requirements()?;
    let text = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    Ok(Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Envoy 1.40: ours, else one on the PATH.
pub fn find() -> Option<PathBuf> {
    ours()
        .or_else(|| find::on_path("envoy").filter(|file| find::says(file, &["--version"], VERSION)))
}

fn ours() -> Option<PathBuf> {
    let venv = venv().ok()?;
    let marked = fs::read_to_string(venv.join(MARK)).ok()?;
    if marked != pin().ok()? {
        return None;
    }
    in_site_packages(&venv)
}

fn in_site_packages(venv: &Path) -> Option<PathBuf> {
    fs::read_dir(venv.join("lib")).ok()?.flatten().find_map(|python| {
        let file = python.path().join("site-packages/envoy/_bin/envoy");
        file.is_file().then_some(file)
    })
}

/// Whether Python can make a virtual environment with pip in it.
pub fn has_venv() -> bool {
    command::run(
        Command::new(PYTHON).args(["-c", "import ensurepip, venv"]),
        "python3",
        Duration::from_secs(30),
    )
    .is_ok()
}

/// Makes the environment anew and fills it.
pub fn install() -> anyhow::Result<()> {
    let venv = venv()?;
    if venv.exists() {
        fs::remove_dir_all(&venv).with_context(|| format!("removing {}", venv.display()))?;
    }
    command::run(
        Command::new(PYTHON).args(["-m", "venv"]).arg(&venv),
        "making a Python environment",
        Duration::from_secs(120),
    )?;
    command::run(
        Command::new(venv.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "--no-input"])
            .args(["--require-hashes", "--only-binary", ":all:", "--requirement"])
            .arg(requirements()?),
        "pip install",
        Duration::from_secs(600),
    )?;
    let file = in_site_packages(&venv).context("the wheel has no envoy in it")?;
    anyhow::ensure!(
        find::says(&file, &["--version"], VERSION),
        "{} does not say that it is Envoy 1.40",
        file.display()
    );
    // Last, so that an environment that was made only in part is made again.
    fs::write(venv.join(MARK), pin()?).context("marking the Python environment as complete")
}
