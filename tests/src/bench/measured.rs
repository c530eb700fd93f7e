//! Measurements one after the other: each in a folder of its own, what was found in a table and in a file. One that fails
//! keeps its logs and none of the others from being made. Knows nothing of what is measured.

use std::path::Path;

use anyhow::{Result, ensure};
use gatehouse_xtask::{
    bench::figures::{Figure, Machine, Outcome},
    command, repo,
    report::{Faults, Report},
};

/// Makes the `wanted` ones, each with the ids of its figures, by `measure`, which is handed a folder and what the reader is
/// shown below the steps; whether every floor is held.
pub fn run<M: Copy>(
    name: &str,
    wanted: &[(&[&str], M)],
    measure: impl Fn(M, &Path, &mut String) -> Result<Vec<Figure>>,
) -> Result<bool> {
    command::catch_signals()?;
    let machine = Machine::this();
    ensure!(!wanted.is_empty(), "no figure of this name");
    let mut report = Report::new();
    report.expect(wanted.len());
    let (mut figures, mut shown, mut failed) = (Vec::new(), String::new(), Vec::new());
    for (ids, how) in wanted {
        if command::interrupted() {
            return Err(Faults::interrupted().into());
        }
        let dir = tempfile::Builder::new().prefix("gatehouse-bench-").tempdir()?;
        let measured = report.step(&ids.join(", "), |_| measure(*how, dir.path(), &mut shown));
        match measured {
            Ok(found) => figures.extend(found),
            // The others are worth having; what cannot be measured is a floor that is missed.
            Err(error) => {
                let kept = dir.keep();
                failed.push(format!("{}: {error:#} (logs in {})", ids.join(", "), kept.display()));
            }
        }
    }
    let outcome = Outcome { machine, figures };
    let path = outcome.write(&repo::target(&repo::root()?), name)?;
    print!("{shown}");
    outcome.print();
    for line in &failed {
        println!("not measured: {line}");
    }
    println!("written to {}", path.display());
    Ok(outcome.ok() && failed.is_empty())
}
