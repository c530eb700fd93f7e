//! `cargo xtask bench NAME`: builds what a bench needs and runs it. Knows which program holds which bench; the
//! program measures. What figures are and how they are shown is in [`figures`].

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::{
    command, install, repo,
    report::Report,
    stack::{self, Stack},
    test,
    up::seed,
};

pub mod figures;

/// The options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench edge           every figure of the gateway, beside Envoy's own filters\n  cargo xtask bench edge --quick   the same figures in fewer and shorter rounds\n  cargo xtask bench edge core      only figures with this in their id; the others are left as they were\n  cargo xtask bench revocation     how long a revoked key still passes\n  cargo xtask bench ratelimit      every figure of the limits\n  cargo xtask bench control        what tenancy costs: row security, lists, writes, the API through the gateway\n  cargo xtask bench execution      the execution engine: nothing lost or doubled under faults, queue, sandboxes\n  cargo xtask bench chaos          the chaos test again and again, each time at other moments\n  cargo xtask bench branches       which branches typical requests never take, for the filters' build\n\nPrints a table and writes target/bench/NAME.json. Exit code 1: a floor is missed."
)]
pub struct Args {
    /// Which bench.
    pub name: Name,
    /// Only figures whose id contains this.
    pub figure: Option<String>,
    /// Fewer and shorter rounds; the same cases.
    #[arg(long)]
    pub quick: bool,
}

/// The benches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Name {
    /// The fused module in Envoy, and its memory.
    Edge,
    /// Limits: exactness, what a check costs, what an outage costs.
    Ratelimit,
    /// Limits while parts are stalled, killed and emptied under load; the longer form of the chaos test.
    Chaos,
    /// How long a revoked key still passes.
    Revocation,
    /// The store's doors and the control API behind the gateway.
    Control,
    /// The execution engine: fault runs that are judged, the queue, sandboxes.
    Execution,
    /// Measures nothing: counts which way the fused module's branches go, and writes `filters/branches.txt`.
    Branches,
}

impl Name {
    /// The package and its program.
    const fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Edge => ("gatehouse-tests", "bench-edge"),
            Self::Ratelimit => ("gatehouse-tests", "bench-ratelimit"),
            Self::Chaos => ("gatehouse-tests", "bench-chaos"),
            Self::Revocation => ("gatehouse-tests", "bench-revocation"),
            Self::Control => ("gatehouse-tests", "bench-control"),
            Self::Execution => ("gatehouse-tests", "bench-execution"),
            Self::Branches => ("gatehouse-tests", "bench-branches"),
        }
    }

    /// Packages whose programs are measured, or measure: built with optimisation.
    const fn optimised(self) -> &'static [&'static str] {
        match self {
            Self::Revocation => &[],
            Self::Edge | Self::Ratelimit => &["gatehouse-ratelimit-sidecar", "gatehouse-load"],
            Self::Chaos | Self::Branches => &["gatehouse-ratelimit-sidecar"],
            Self::Control => {
                &["gatehouse-control-api", "gatehouse-ratelimit-sidecar", "gatehouse-load"]
            }
            Self::Execution => &[
                "gatehouse-control-api",
                "gatehouse-ratelimit-sidecar",
                "gatehouse-execution-worker",
            ],
        }
    }

    /// Packages whose programs are built as the tests build them: what they do is waited for, not measured.
    const fn services(self) -> &'static [&'static str] {
        match self {
            Self::Edge
            | Self::Ratelimit
            | Self::Chaos
            | Self::Control
            | Self::Execution
            | Self::Branches => &[],
            Self::Revocation => &["gatehouse-control-api", "gatehouse-ratelimit-sidecar"],
        }
    }

    /// The folder of the target folder where its programs are.
    const fn folder(self) -> &'static str {
        match self {
            Self::Revocation => "debug",
            Self::Edge
            | Self::Ratelimit
            | Self::Chaos
            | Self::Control
            | Self::Execution
            | Self::Branches => "release",
        }
    }

    /// What must be installed beside the toolchain.
    const fn parts(self) -> &'static [install::Part] {
        match self {
            Self::Edge | Self::Ratelimit | Self::Chaos | Self::Branches => {
                use install::Part::{Envoy, Redis, WasmOpt, WasmTarget};
                &[WasmTarget, WasmOpt, Envoy, Redis]
            }
            Self::Revocation | Self::Control => {
                use install::Part::{Envoy, Postgres, Redis, WasmOpt, WasmTarget};
                &[WasmTarget, WasmOpt, Envoy, Postgres, Redis]
            }
            Self::Execution => {
                use install::Part::{Envoy, Postgres, Redis, Runsc, WasmOpt, WasmTarget};
                &[WasmTarget, WasmOpt, Envoy, Postgres, Redis, Runsc]
            }
        }
    }
}

/// From an empty target folder on two cores.
const BUILD: Duration = Duration::from_secs(40 * 60);
/// A whole bench; each ends by itself long before.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    command::catch_signals()?;
    let root = repo::root()?;
    let (package, program) = args.name.program();
    let mut report = Report::new();
    report.expect(2);
    let parts = install::ensure(args.name.parts(), &mut report)?;
    let suite = report.step("Build the filter", |_| stack::build_filter())?;
    report.step("Build the bench", |_| {
        let mut cargo = repo::cargo(&root);
        cargo.args(["build", "--quiet", "--package", package, "--bin", program]);
        command::run(&mut cargo, "cargo build", BUILD)?;
        if !args.name.services().is_empty() {
            let mut cargo = repo::cargo(&root);
            cargo.args(["build", "--quiet", "--bins"]);
            cargo.args(args.name.services().iter().flat_map(|package| ["--package", package]));
            command::run(&mut cargo, "cargo build", BUILD)?;
        }
        if args.name.optimised().is_empty() {
            return Ok(());
        }
        let mut cargo = repo::cargo(&root);
        cargo.args(["build", "--quiet", "--release", "--bins"]);
        cargo.args(args.name.optimised().iter().flat_map(|package| ["--package", package]));
        command::run(&mut cargo, "cargo build --release", BUILD).map(drop)
    })?;
    let mut bench = Command::new(repo::target(&root).join("debug").join(program));
    bench
        .args(args.quick.then_some("--quick"))
        .args(&args.figure)
        .env("GATEHOUSE_TEST_ENVOY", parts.envoy()?)
        .env("GATEHOUSE_TEST_BIN", repo::target(&root).join(args.name.folder()))
        .env("GATEHOUSE_TEST_REDIS_SERVER", parts.redis_server()?)
        .env("GATEHOUSE_TEST_SUITE", &suite)
        .envs(test::modules(&suite));
    if args.name == Name::Control {
        let doors = report.step("Build the store's bench", |_| doors(&root))?;
        bench.env("GATEHOUSE_TEST_DOORS", doors);
    }
    if args.name == Name::Execution {
        let agent = report.step("Build the sample agent", |_| seed::build_agent())?;
        bench.env("GATEHOUSE_TEST_AGENT", agent);
        bench.env("GATEHOUSE_TEST_RUNSC", parts.runsc()?);
        bench.env("GATEHOUSE_TEST_PG_BIN", parts.pg("")?);
    }
    // Ends with this value, after the bench.
    let stores = match args.name {
        Name::Revocation | Name::Control | Name::Execution => {
            let options =
                stack::Options { durable: args.name == Name::Control, ..test::empty("bench") };
            Some(Stack::stores(&options, &mut report)?)
        }
        Name::Edge | Name::Ratelimit | Name::Chaos | Name::Branches => None,
    };
    if let Some(stores) = &stores {
        bench.env("GATEHOUSE_TEST_POSTGRES", test::postgres(stores));
    }
    let mut child = bench.spawn().with_context(|| format!("starting {program}"))?;
    let ended = command::wait(&mut child, LIMIT);
    if !matches!(ended, Ok(Some(_))) {
        stop(&mut child)?;
    }
    let ok = ended?.with_context(|| format!("the bench took longer than {LIMIT:?}"))?.success();
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the bench that alone speaks SQL, and says where it is: cargo puts a hash into its name.
fn doors(root: &Path) -> anyhow::Result<PathBuf> {
    let mut cargo = repo::cargo(root);
    cargo.args(["build", "--quiet", "--release", "--package", "gatehouse-store"]);
    cargo.args(["--bench", "doors", "--message-format=json"]);
    let built = command::run(&mut cargo, "cargo build --bench doors", BUILD)?;
    let messages = built.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages
        .filter_map(|message| message.get("executable").and_then(Value::as_str).map(PathBuf::from));
    programs.next().context("cargo built no bench")
}

/// Asks the bench to end, so that it stops what it started.
fn stop(child: &mut Child) -> anyhow::Result<()> {
    command::forget_interrupt();
    if let Some(id) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Gone already is what is wanted.
        rustix::process::kill_process(id, Signal::TERM).ok();
    }
    if command::wait(child, Duration::from_secs(20))?.is_none() {
        child.kill().context("stopping the bench")?;
        child.wait().context("waiting for the bench")?;
    }
    Ok(())
}
