//! Drops and loosens every policy of the schema, one at a time, in a database of its own; the proof of row security must
//! fail each time. The mutants and the proof are the store's test; this starts PostgreSQL and shows its table.
//! Knows no policy.

use std::{path::Path, process::ExitCode};

use anyhow::bail;

use super::{BUILD, TESTS};
use crate::{
    command, install, repo,
    report::Report,
    stack::{Options, Stack},
};

/// The test that does it.
const TEST: &str = "no_policy_can_be_dropped_or_loosened_unnoticed";

/// Runs it; a policy that is not missed is a failure.
pub(super) fn change(root: &Path) -> anyhow::Result<ExitCode> {
    let mut report = Report::new();
    install::ensure(&[install::Part::Postgres], &mut report)?;
    let mut options = Options::new("policies");
    options.reset = true;
    options.password = Some("test".to_owned());
    let stores = Stack::stores(&options, &mut report)?;
    let ended = (|| {
        let cargo = |more: &[&str]| {
            let mut cargo = repo::cargo(root);
            cargo
                .args(["test", "--quiet", "--package", "gatehouse-store", "--test", "store"])
                .args(more)
                .env("GATEHOUSE_TEST_POSTGRES", crate::test::postgres(&stores))
                .env("GATEHOUSE_MUTANTS", "all");
            cargo
        };
        report.step("Build the proof", |_| {
            command::run(&mut cargo(&["--no-run"]), "building the proof", BUILD).map(drop)
        })?;
        let what = "the proof without each policy";
        command::output(&mut cargo(&["--", "--nocapture", TEST]), what, TESTS)
    })();
    command::forget_interrupt();
    stores.discard()?;
    let done = ended?;
    let table = done.stdout.lines().skip_while(|line| !line.contains("mutation  "));
    let table = table.take_while(|line| !line.starts_with("test result"));
    // Its dots are the runner's.
    let table: Vec<&str> = table.map(|line| line.trim_matches('.')).collect();
    println!("{}", table.join("\n").trim_end());
    if done.status.success() && !table.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if table.is_empty() {
        bail!("the proof did not run:\n{}", done.stderr);
    }
    println!("{}", done.stderr);
    Ok(ExitCode::FAILURE)
}
