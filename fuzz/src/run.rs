//! Runs one target over its seeds and over what is made of them, until a bound. An input that breaks it is kept.
//! Knows no targets.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use crate::{
    corpus,
    mutate::{self, Random},
    targets::Target,
};

/// How long to go on.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// So many inputs.
    Rounds(u64),
    /// So long.
    Time(Duration),
}

/// What came of a run in which everything held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// How many inputs there were.
    pub inputs: u64,
    /// How many of them the target accepted.
    pub accepted: u64,
}

/// Runs `target` from `start`, a number that makes the inputs.
///
/// # Errors
/// No seeds, a seed that is refused where all are, or an input that breaks the target; that one is kept in the folder
/// of the error's text.
pub fn run(target: &Target, bound: Bound, start: u64) -> anyhow::Result<Report> {
    let folder = corpus::folder(target.name);
    let seeds = corpus::seeds(target.name).with_context(|| folder.display().to_string())?;
    ensure!(!seeds.is_empty(), "{} has no seeds", folder.display());
    let seeds: Vec<&[u8]> = seeds.iter().map(Vec::as_slice).collect();
    let mut report = Report { inputs: 0, accepted: 0 };
    for seed in &seeds {
        judge(target, seed, &mut report)?;
    }
    ensure!(report.accepted > 0, "{}: no seed is accepted: it tests nothing", target.name);
    let began = Instant::now();
    let mut random = Random(start);
    let more = |report: &Report| match bound {
        Bound::Rounds(rounds) => report.inputs < rounds,
        Bound::Time(time) => began.elapsed() < time,
    };
    while more(&report) {
        judge(target, &mutate::input(&seeds, &mut random), &mut report)?;
    }
    Ok(report)
}

fn judge(target: &Target, input: &[u8], report: &mut Report) -> anyhow::Result<()> {
    report.inputs = report.inputs.saturating_add(1);
    // Targets keep nothing between two inputs.
    match panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        Ok(accepted) => report.accepted = report.accepted.saturating_add(u64::from(accepted)),
        Err(_broken) => {
            let kept = keep(target, input)?;
            bail!("{} does not hold for {}", target.name, kept.display());
        }
    }
    Ok(())
}

/// Into the folder of builds, by the input's length: whoever mends it moves it among the seeds.
fn keep(target: &Target, input: &[u8]) -> anyhow::Result<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz").join(target.name);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let file = folder.join(format!("broken-{}.bin", input.len()));
    fs::write(&file, input).with_context(|| file.display().to_string())?;
    Ok(file)
}
