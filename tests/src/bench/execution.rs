//! `cargo xtask bench execution`: what the execution engine promises in numbers. Nothing lost and nothing doubled over fault
//! runs that this call itself makes; what the queue and the sandboxes cost beside the least that could do the same on the
//! same servers, in turns. Services are optimised, PostgreSQL keeps what it confirms. Knows no SQL but an observer's.

mod bare;
mod flight;
mod gateway;
mod history;
mod queue;
mod sandboxes;

use std::path::Path;

use anyhow::{Context, Result};
use gatehouse_xtask::bench::figures::Figure;

use super::measured;

/// What to run.
#[derive(Debug, Clone, Default, clap::Parser)]
#[command(name = "bench-execution", about = "Run it as `cargo xtask bench execution`")]
pub struct Options {
    /// Only figures whose id contains this.
    pub figure: Option<String>,
    /// Fewer and shorter rounds; one seed of faults.
    #[arg(long)]
    pub quick: bool,
}

/// What every measurement is handed.
struct Bench<'a> {
    options: &'a Options,
    dir: &'a Path,
    /// For the reader, below the steps.
    shown: &'a mut String,
}

type Measure = fn(&mut Bench<'_>) -> Result<Vec<Figure>>;

/// What measures which figures.
const ALL: &[(&[&str], Measure)] = &[
    (&["lost", "doubled"], history::measure),
    (&["claim_ratio"], queue::claim),
    (&["queue_ratio"], queue::throughput),
    (&["p0_wait_ratio"], queue::p0_wait),
    (&["in_flight", "in_flight_rss_mb"], flight::measure),
    (&["cold_ratio"], sandboxes::cold),
    (&["warm_ratio"], sandboxes::warm),
    (&["sandboxes", "sandbox_memory_ratio"], sandboxes::density),
    (&["e2e_p95_ms"], gateway::measure),
];

/// Measures, prints and writes; whether every floor is held.
pub fn run(options: &Options) -> Result<bool> {
    let wants = |ids: &[&str]| {
        let part = options.figure.as_ref();
        part.is_none_or(|part| ids.iter().any(|id| id.contains(part.as_str())))
    };
    let wanted: Vec<_> = ALL.iter().copied().filter(|(ids, _)| wants(ids)).collect();
    measured::run("execution", &wanted, |measure, dir, shown| {
        let mut bench = Bench { options, dir, shown };
        measure(&mut bench)
    })
}

impl Bench<'_> {
    fn rounds(&self) -> usize {
        if self.options.quick { 3 } else { 9 }
    }

    fn say(&mut self, line: &str) {
        self.shown.push_str(line);
        self.shown.push('\n');
    }
}

fn at_most(id: &str, unit: &str, bounds: (f64, f64), rounds: &[f64]) -> Result<Figure> {
    Figure::new(id, unit, bounds, rounds).with_context(|| format!("no rounds of {id}"))
}

fn at_least(id: &str, unit: &str, bounds: (f64, f64), rounds: &[f64]) -> Result<Figure> {
    Figure::at_least(id, unit, bounds, rounds).with_context(|| format!("no rounds of {id}"))
}

/// The value below which so many of a hundred are.
fn percentile(values: &[f64], percent: usize) -> Result<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().context("no values")
}
