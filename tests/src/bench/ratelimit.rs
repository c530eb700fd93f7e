//! `cargo xtask bench ratelimit`: what the limits promise in numbers: that no window ever holds too much, what a check
//! costs a sidecar and Redis beside the least that could do, and what an outage costs a request. Real parts, the
//! sidecar and the clients optimised; sides that are compared take turns in short slices, so that whatever else the
//! machine does meets both alike.

mod charges;
mod costs;
mod exact;
mod gateway;
mod outage;
mod space;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use gatehouse_load::hex;
use gatehouse_xtask::bench::figures::{Figure, spread};

use super::measured;
use crate::{env, load::Way, summary::Summary};

/// What to run.
#[derive(Debug, Clone, Default, clap::Parser)]
#[command(name = "bench-ratelimit", about = "Run it as `cargo xtask bench ratelimit`")]
pub struct Options {
    /// Only figures whose id contains this.
    pub figure: Option<String>,
    /// Fewer and shorter rounds, windows of 5 s.
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
    (&["over_admitted"], exact::over_admitted),
    (&["under_admitted_pct"], exact::under_admitted),
    (&["sidecar_cpu_ratio"], costs::sidecar),
    (&["redis_cpu_strict_ratio", "redis_cpu_leased_ratio"], costs::redis),
    (&["redis_bytes_per_limit", "keys_left"], space::redis),
    (&["stalled_ratio", "breaker_ratio"], outage::stalled),
    (&["lease_latency_ratio", "callout_cpu_ratio"], gateway::ratios),
    (&["sidecar_rss_mb"], space::sidecar),
];

impl Options {
    fn wants(&self, ids: &[&str]) -> bool {
        self.figure.as_ref().is_none_or(|part| ids.iter().any(|id| id.contains(part.as_str())))
    }

    fn rounds(&self) -> usize {
        if self.quick { 5 } else { 15 }
    }

    fn slice(&self) -> Duration {
        Duration::from_millis(if self.quick { 400 } else { 1000 })
    }

    /// The window in which admissions are counted.
    fn window(&self) -> Duration {
        Duration::from_secs(if self.quick { 5 } else { 60 })
    }
}

/// Measures, prints and writes; whether every floor is held.
pub fn run(options: &Options) -> Result<bool> {
    let wanted: Vec<_> = ALL.iter().copied().filter(|(ids, _)| options.wants(ids)).collect();
    measured::run("ratelimit", &wanted, |measure, dir, shown| {
        let mut bench = Bench { options, dir, shown };
        measure(&mut bench)
    })
}

impl Bench<'_> {
    /// The load clients as a process, for one span.
    fn load(
        &self,
        protocol: &str,
        to: &[SocketAddr],
        questions: &Path,
        ways: (usize, usize),
        span: Duration,
    ) -> Result<Summary> {
        let mut command = Command::new(program("load")?);
        command.arg(protocol).args(to.iter().map(ToString::to_string));
        command.arg("--questions").arg(questions);
        command.args(["--connections", &ways.0.to_string(), "--streams", &ways.1.to_string()]);
        command.args(["--span-ms", &span.as_millis().to_string()]);
        let output = command.output().context("running load")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "load: {errors}");
        serde_json::from_slice(&output.stdout).context("what load says")
    }

    /// A file of questions.
    fn questions(&self, name: &str, all: impl Iterator<Item = Vec<u8>>) -> Result<PathBuf> {
        let path = self.dir.join(format!("{name}.hex"));
        let lines: Vec<String> = all.map(|question| hex::text(&question)).collect();
        std::fs::write(&path, lines.join("\n"))?;
        Ok(path)
    }
}

/// A program of the bench or the product, optimised.
fn program(name: &str) -> Result<PathBuf> {
    let path = env::path(env::BIN)?.join(name);
    ensure!(path.exists(), "{} is not built: run `cargo xtask bench ratelimit`", path.display());
    Ok(path)
}

fn median(rounds: &[f64]) -> Result<f64> {
    let [_, middle, _] = spread(rounds).context("no rounds")?;
    Ok(middle)
}

fn bytes(ways: &[Way]) -> impl Iterator<Item = Vec<u8>> + '_ {
    ways.iter().map(|way| way.request.to_vec())
}
