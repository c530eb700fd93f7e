//! `cargo xtask bench control`: what tenancy costs. The doors of the store beside the bare statements (measured by the
//! store's own bench, which alone speaks SQL), and the control API behind a real Envoy, on a PostgreSQL that keeps what
//! it confirms. Knows no SQL.

mod doors;
mod gateway;
mod outbox;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use gatehouse_xtask::{
    bench::figures::{Figure, Machine, Outcome},
    command, repo,
    report::{Faults, Report},
};

/// What to run.
#[derive(Debug, Clone, Default, clap::Parser)]
#[command(name = "bench-control", about = "Run it as `cargo xtask bench control`")]
pub struct Options {
    /// Only figures whose id contains this.
    pub figure: Option<String>,
    /// Fewer and shorter rounds.
    #[arg(long)]
    pub quick: bool,
}

/// What every measurement is handed.
struct Bench<'a> {
    options: &'a Options,
    dir: &'a Path,
    /// For the reader, below the steps.
    shown: String,
}

type Measure = fn(&mut Bench<'_>) -> Result<Vec<Figure>>;

/// What measures which figures.
const ALL: &[(&[&str], Measure)] = &[
    (&["rls_read_ratio"], doors::read),
    (&["list_deep_ratio", "list_scale_ratio"], doors::lists),
    (&["write_ratio"], doors::write),
    (&["outbox_ratio"], outbox::measure),
    (&["gateway_ratio", "p95_ms_at_rate"], gateway::measure),
];

impl Options {
    fn wants(&self, id: &str) -> bool {
        self.figure.as_ref().is_none_or(|part| id.contains(part.as_str()))
    }
}

/// Measures, prints and writes; whether every floor is held.
pub fn run(options: &Options) -> Result<bool> {
    command::catch_signals()?;
    let machine = Machine::this();
    let wanted: Vec<_> =
        ALL.iter().filter(|(ids, _)| ids.iter().any(|id| options.wants(id))).collect();
    ensure!(!wanted.is_empty(), "no figure of this name");
    let mut report = Report::new();
    report.expect(wanted.len());
    let (mut figures, mut shown, mut failed) = (Vec::new(), String::new(), Vec::new());
    for (ids, measure) in wanted {
        if command::interrupted() {
            return Err(Faults::interrupted().into());
        }
        let dir = tempfile::Builder::new().prefix("gatehouse-bench-").tempdir()?;
        let mut bench = Bench { options, dir: dir.path(), shown: String::new() };
        let measured = report.step(&ids.join(", "), |_| measure(&mut bench));
        shown.push_str(&bench.shown);
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
    let path = outcome.write(&repo::target(&repo::root()?), "control")?;
    print!("{shown}");
    outcome.print();
    for line in &failed {
        println!("not measured: {line}");
    }
    println!("written to {}", path.display());
    Ok(outcome.ok() && failed.is_empty())
}

/// A ratio with its floor and aim.
fn ratio(id: &str, bounds: (f64, f64), rounds: &[f64]) -> Result<Figure> {
    Figure::new(id, "ratio", bounds, rounds).with_context(|| format!("no rounds of {id}"))
}
