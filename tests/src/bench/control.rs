//! `cargo xtask bench control`: what tenancy costs. The doors of the store beside the bare statements (measured by the
//! store's own bench, which alone speaks SQL), and the control API behind a real Envoy, on a PostgreSQL that keeps what
//! it confirms. Knows no SQL.

mod doors;
mod gateway;
mod outbox;
mod sealed;

use std::path::Path;

use anyhow::{Context, Result};
use gatehouse_xtask::bench::figures::Figure;

use super::measured;
use crate::world::World;

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
    shown: &'a mut String,
}

type Measure = fn(&mut Bench<'_>) -> Result<Vec<Figure>>;

/// What measures which figures.
const ALL: &[(&[&str], Measure)] = &[
    (&["rls_read_ratio"], doors::read),
    (&["list_deep_ratio", "list_scale_ratio"], doors::lists),
    (&["write_ratio"], doors::write),
    (&["outbox_ratio"], outbox::measure),
    (&["audit_sealed_p95_s"], sealed::measure),
    (&["gateway_ratio", "p95_ms_at_rate"], gateway::measure),
];

impl Options {
    fn wants(&self, id: &str) -> bool {
        self.figure.as_ref().is_none_or(|part| id.contains(part.as_str()))
    }
}

/// Measures, prints and writes; whether every floor is held.
pub fn run(options: &Options) -> Result<bool> {
    let wanted: Vec<_> =
        ALL.iter().copied().filter(|(ids, _)| ids.iter().any(|id| options.wants(id))).collect();
    measured::run("control", &wanted, |measure, dir, shown| {
        let mut bench = Bench { options, dir, shown };
        measure(&mut bench)
    })
}

/// A ratio with its floor and aim.
fn ratio(id: &str, bounds: (f64, f64), rounds: &[f64]) -> Result<Figure> {
    Figure::new(id, "ratio", bounds, rounds).with_context(|| format!("no rounds of {id}"))
}

/// What the control API counts under this name, which has no labels.
fn metric(world: &World, name: &str) -> Result<f64> {
    let text = ureq::get(&format!("http://{}/metrics", world.control_admin))
        .call()
        .context("the metrics")?
        .body_mut()
        .read_to_string()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.with_context(|| format!("no {name}"))?.parse().with_context(|| name.to_owned())
}
