//! `lost` and `doubled`: fault runs made here and now, each judged and kept as a file. A run that proves nothing is no
//! measurement: a state that no kill hit, or a planted fault that the checker let pass.

use anyhow::{Result, ensure};
use gatehouse_xtask::{bench::figures::Figure, command, repo};

use super::{Bench, at_most};
use crate::{
    engine::worker::Driver,
    faults::{Report, Run, play},
};

/// What `--quick` makes one of, and the whole bench five.
const EACH: usize = 2000;
/// Kills at each of the nine states: 27 in a run.
const ROUNDS: usize = 3;
/// With real sandboxes, which are far slower.
const IN_SANDBOXES: usize = 150;

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let seeds = if bench.options.quick { 1 } else { 5 };
    let (mut lost, mut doubled, mut wrong) = (0, 0, Vec::new());
    let mut judge = |bench: &mut Bench<'_>, report: &Report, void: &[String]| -> Result<()> {
        let path = report.write(&repo::target(&repo::root()?))?;
        bench.say(&format!("{report}  kept in {}", path.display()));
        lost += report.lost();
        doubled += report.doubled();
        let seed = report.run.seed;
        wrong.extend(void.iter().map(|void| format!("seed {seed}: {void}")));
        let counted = report.lost() + report.doubled();
        if report.findings.len() > counted {
            wrong.push(format!("seed {seed}: other promises were not kept"));
        }
        Ok(())
    };
    for seed in 1..=seeds {
        ensure!(!command::interrupted(), "interrupted");
        let run = Run { seed, executions: EACH, rounds: ROUNDS, driver: Driver::Sim };
        let report = play(run)?;
        judge(bench, &report, &report.void())?;
    }
    if !bench.options.quick {
        let run = Run { seed: 6, executions: IN_SANDBOXES, rounds: 1, driver: Driver::Runsc };
        let report = play(run)?;
        // Agents that succeed do not bring about every state.
        judge(bench, &report, &[])?;
    }
    let text = bench.shown.clone();
    ensure!(wrong.is_empty(), "void: {}\n{text}", wrong.join("; "));
    let number = |count: usize| count as f64;
    Ok(vec![
        at_most("lost", "executions", (0.0, 0.0), &[number(lost)])?,
        at_most("doubled", "executions", (0.0, 0.0), &[number(doubled)])?,
    ])
}
