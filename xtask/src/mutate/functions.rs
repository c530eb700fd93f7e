//! Lets `cargo-mutants` change the functions of `crates/authn`, one at a time. Knows no table of guards.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal};

use crate::{command, repo, report::Report, tools};

/// The whole crate.
const ALL: Duration = Duration::from_secs(6 * 3600);
/// How long it may take to remove its copy of the tree.
const END: Duration = Duration::from_secs(20);

/// Changes the functions of those files of `crates/authn/src`, with the folders of their names; of all where none is
/// named. It says itself how far it is.
pub(super) fn change(root: &Path, files: &[String]) -> anyhow::Result<ExitCode> {
    let mut report = Report::new();
    let program = tools::ensure(tools::MUTANTS, &mut report)?;
    let out = repo::target(root).join("mutate");
    fs::create_dir_all(&out)?;
    let mut cargo = std::process::Command::new(program);
    cargo
        .current_dir(root)
        .args(["mutants", "--package", "gatehouse-authn", "--no-shuffle", "--colors", "never"])
        .args(["--baseline", "run", "--output"])
        .arg(&out)
        // What others wrote is built once for every run; ours is built anew, as its copy stands elsewhere each time.
        .env("CARGO_TARGET_DIR", out.join("target"));
    for file in files {
        let source = root.join(format!("crates/authn/src/{file}.rs"));
        ensure!(source.exists(), "there is no {}", source.display());
        for which in [".rs", "/**"] {
            cargo.args(["--file", &format!("crates/authn/src/{file}{which}")]);
        }
    }
    cargo.args(["--", "--lib"]);
    println!("cargo-mutants over crates/authn; its reports are in {}", out.display());
    // Its own children are in its group's care, not in ours: it is asked to end, not killed.
    let mut child = cargo.process_group(0).spawn().context("starting cargo-mutants")?;
    let ended = command::wait(&mut child, ALL);
    if !matches!(ended, Ok(Some(_))) {
        stop(&mut child)?;
    }
    let ended = ended?.with_context(|| format!("cargo-mutants took longer than {ALL:?}"))?;
    let missed = out.join("mutants.out/missed.txt");
    verdict(ended, &fs::read_to_string(&missed).unwrap_or_default())
}

/// It ends with 0 where nothing survived, with 2 where something did, and with 3 where a mutant never ended, which is
/// noticed, too.
fn verdict(ended: ExitStatus, survivors: &str) -> anyhow::Result<ExitCode> {
    ensure!(matches!(ended.code(), Some(0 | 2 | 3)), "cargo-mutants did not run to its end");
    println!("{} survivors", survivors.lines().count());
    print!("{survivors}");
    let sound = ended.code() != Some(2) && survivors.is_empty();
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asks it to end, so that it stops what it started and removes its copy.
fn stop(child: &mut Child) -> anyhow::Result<()> {
    command::forget_interrupt();
    if let Some(id) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Gone already is what is wanted.
        rustix::process::kill_process(id, Signal::INT).ok();
    }
    if command::wait(child, END)?.is_none() {
        child.kill().context("stopping cargo-mutants")?;
        child.wait().context("waiting for cargo-mutants")?;
    }
    Ok(())
}
