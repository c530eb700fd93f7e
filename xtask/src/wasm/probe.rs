//! The module that asks hosts what they do (`filters/probe`): built for tests, cut for nobody, shipped nowhere.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::repo;

/// Builds it; where it lies.
pub fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let mut cargo = repo::cargo(root);
    cargo.args(["build", "--package", "gatehouse-probe", "--lib", "--quiet"]).args([
        "--target",
        "wasm32-wasip1",
        "--profile",
        "wasm",
    ]);
    ensure!(cargo.status().context("starting cargo")?.success(), "the probe did not build");
    Ok(repo::target(root).join("wasm32-wasip1/wasm/gatehouse_probe.wasm"))
}
