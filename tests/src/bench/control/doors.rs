//! What the store's bench says, beside what was promised. Knows no SQL.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context, Result, ensure};
use gatehouse_xtask::bench::figures::{Figure, spread};

use super::{Bench, ratio};
use crate::env;

pub(super) fn read(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let told = told(bench, "read")?;
    Ok(vec![ratio("rls_read_ratio", (1.5, 1.2), rounds(&told, "rls_read_ratio")?)?])
}

pub(super) fn lists(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let told = told(bench, "lists")?;
    ["list_deep_ratio", "list_scale_ratio"]
        .map(|id| ratio(id, (1.5, 1.1), rounds(&told, id)?))
        .into_iter()
        .collect()
}

pub(super) fn write(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let told = told(bench, "write")?;
    Ok(vec![ratio("write_ratio", (4.0, 2.5), rounds(&told, "write_ratio")?)?])
}

type Told = BTreeMap<String, Vec<f64>>;

/// Runs the bench; what is not a figure is shown.
pub(super) fn told(bench: &mut Bench<'_>, what: &str) -> Result<Told> {
    let mut doors = Command::new(env::path(env::DOORS)?);
    doors.args(bench.options.quick.then_some("--quick")).arg(what);
    let output = doors.output().context("running the store's bench")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the store's bench: {errors}");
    let told: Told = serde_json::from_slice(&output.stdout).context("what the bench says")?;
    for (id, rounds) in &told {
        let [_, middle, _] = spread(rounds).with_context(|| format!("no rounds of {id}"))?;
        if !id.ends_with("_ratio") {
            bench.shown.push_str(&format!("{what}: {id} {middle:.2}\n"));
        }
    }
    Ok(told)
}

pub(super) fn rounds<'a>(told: &'a Told, id: &str) -> Result<&'a [f64]> {
    told.get(id).map(Vec::as_slice).with_context(|| format!("the store's bench says no {id}"))
}
