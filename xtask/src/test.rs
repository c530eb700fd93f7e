//! `cargo xtask test`: installs what is missing, builds once, starts one PostgreSQL and one Redis for all tests, and
//! runs every test. A missing part fails the run. Knows where the parts are, not what the tests do.

mod acceptance;

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{
    command, elevate, install, repo,
    report::{Faults, Report, exit, seconds},
    stack::{self, Options, Stack},
    tools,
    up::seed,
    wasm,
};

/// The options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask test                     every test\n  cargo xtask test -- limiter          tests with this in their name (any arguments of cargo nextest run)\n  cargo xtask test -- -E 'package(gatehouse-store)'   those of one package"
)]
pub struct Args {
    /// Prove the two commands of the README in a root that has nothing.
    #[arg(long)]
    pub fresh: bool,
    /// Arguments for `cargo nextest run`; with any, doc tests are left out.
    #[arg(last = true)]
    pub filter: Vec<String>,
}

/// Every role and user of the tests' PostgreSQL and Redis has it.
const PASSWORD: &str = "test";
/// From an empty target folder on two cores.
const BUILD: Duration = Duration::from_secs(40 * 60);
/// All tests together; a single one is bounded by `.config/nextest.toml`.
const TESTS: Duration = Duration::from_secs(30 * 60);
/// Beside the repository where it is developed; the repository stands alone without it.
const DEFINITIONS: &str = "../shared/crds";

/// The variables of the modules beside `suite`: the build leaves all of them in one folder.
pub(crate) fn modules(suite: &Path) -> [(&'static str, PathBuf); 5] {
    [
        ("GATEHOUSE_TEST_AUTH", "auth.wasm"),
        ("GATEHOUSE_TEST_VERSION", "version.wasm"),
        ("GATEHOUSE_TEST_RATE_LIMIT", "ratelimit.wasm"),
        ("GATEHOUSE_TEST_TRANSFORM", "transform.wasm"),
        ("GATEHOUSE_TEST_VALIDATE", "validate.wasm"),
    ]
    .map(|(variable, module)| (variable, suite.with_file_name(module)))
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    command::catch_signals()?;
    let elevated = elevate::again_as_root(|| {
        let built = prepare(&mut Report::new())?;
        Ok(vec![
            ("GATEHOUSE_TEST_SUITE", built.suite),
            ("GATEHOUSE_TEST_PROBE", built.probe),
            ("GATEHOUSE_TEST_AGENT", built.agent),
        ])
    })?;
    if let Some(code) = elevated {
        return Ok(code);
    }
    let began = Instant::now();
    let root = repo::root()?;
    let mut report = Report::new();
    report.expect(5);
    let wanted = [install::Part::ALL, install::Part::OF_TESTS].concat();
    let parts = install::ensure(&wanted, &mut report)?;
    let Prepared { nextest, suite, probe, agent } = prepare(&mut report)?;

    let mut stores = stores("test", &mut report)?;
    let cluster = stores.redis_cluster("admin", &mut report)?;

    let bin = repo::target(&root).join("debug");
    let environment = |command: &mut Command| -> anyhow::Result<()> {
        command
            .env("GATEHOUSE_TEST_POSTGRES", postgres(&stores))
            .env("GATEHOUSE_TEST_PG_BIN", parts.pg("")?)
            .env("GATEHOUSE_TEST_PGBOUNCER", parts.pgbouncer()?)
            .env("GATEHOUSE_TEST_REDIS", stores.instance.redis("admin"))
            .env("GATEHOUSE_TEST_REDIS_CLUSTER", &cluster)
            .env("GATEHOUSE_TEST_REDIS_SERVER", parts.redis_server()?)
            .env("GATEHOUSE_TEST_ENVOY", parts.envoy()?)
            .env("GATEHOUSE_TEST_RUNSC", parts.runsc()?)
            .env("GATEHOUSE_TEST_RUNSC_2022", parts.runsc_2022()?)
            .env("GATEHOUSE_TEST_RUNC", parts.runc()?)
            .env("GATEHOUSE_TEST_REGISTRY", parts.registry()?)
            .env("GATEHOUSE_TEST_OIDC", parts.oidc()?)
            .env("GATEHOUSE_TEST_SCHEMATHESIS", parts.schemathesis()?)
            .env("GATEHOUSE_TEST_SUITE", &suite)
            .env("GATEHOUSE_TEST_PROBE", &probe)
            .envs(modules(&suite))
            .env("GATEHOUSE_TEST_BIN", &bin)
            .env("GATEHOUSE_TEST_AGENT", &agent);
        Ok(())
    };
    let mut command = runner(&root, &nextest, "run");
    command.args(&args.filter);
    environment(&mut command)?;
    let cases = acceptance::report(&root);
    // What an earlier run left must not be taken for this one's.
    if cases.exists() {
        std::fs::remove_file(&cases).context("removing the last run's report")?;
    }
    let tests = watched(&mut command, "the tests")?;
    let mut red = !tests.success;
    let mut counts =
        vec![tests.summary.clone().unwrap_or_else(|| "no summary of the tests".into())];
    red |= tests.summary.is_none();
    if args.filter.is_empty() {
        let skipped = tests.summary.as_deref().is_some_and(|line| !line.ends_with(" 0 skipped"));
        if skipped {
            counts.push("tests were skipped: none may be".to_owned());
            red = true;
        }
        match acceptance::check(&cases) {
            Ok(held) => counts.push(held),
            Err(missing) => {
                counts.push(format!("{missing:#}"));
                red = true;
            }
        }
        let mut doctests = repo::cargo(&root);
        doctests.args(["test", "--doc", "--workspace", "--locked", "--quiet"]);
        environment(&mut doctests)?;
        let done = watched(&mut doctests, "the doc tests")?;
        red |= !done.success;
        counts.push(format!("{} doc tests passed", done.passed));
    }
    stores.discard()?;
    if !root.join(DEFINITIONS).is_dir() {
        counts.push(format!(
            "left out: the Istio documents against {DEFINITIONS}, which is not there"
        ));
    }
    let verdict = if red { "RED" } else { "green" };
    println!("test: {verdict} in {}: {}", seconds(began.elapsed()), counts.join("; "));
    Ok(if red { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Empty stores of this name, whose every password is the tests'.
pub(crate) fn stores(name: &str, report: &mut Report) -> anyhow::Result<Stack> {
    Stack::stores(&empty(name), report)
}

/// What they are started with.
pub(crate) fn empty(name: &str) -> Options {
    Options { reset: true, password: Some(PASSWORD.to_owned()), ..Options::new(name) }
}

/// The superuser connects to the database `postgres`, which is there from the start; tests make their own.
pub(crate) fn postgres(stores: &Stack) -> String {
    let url = stores.instance.database("postgres");
    match url.rsplit_once('/') {
        Some((server, _)) => format!("{server}/postgres"),
        None => url,
    }
}

/// What must be there before anything runs.
struct Prepared {
    nextest: PathBuf,
    suite: PathBuf,
    probe: PathBuf,
    agent: PathBuf,
}

/// Everything that is built; needs no root.
fn prepare(report: &mut Report) -> anyhow::Result<Prepared> {
    install::ensure(install::Part::OF_FILTERS, report)?;
    let nextest = tools::ensure(tools::NEXTEST, report)?;
    let suite = report.step("Build the filter", |_| stack::build_filter())?;
    let probe = report.step("Build the probe", |_| build_probe())?;
    let agent = report.step("Build the sample agent", |_| seed::build_agent())?;
    report.step("Build everything", |_| build(&repo::root()?, &nextest))?;
    Ok(Prepared { nextest, suite, probe, agent })
}

fn build_probe() -> anyhow::Result<PathBuf> {
    match repo::built("GATEHOUSE_TEST_PROBE") {
        Some(probe) => Ok(probe),
        None => wasm::probe::build(&repo::root()?),
    }
}

/// Services and tests in one go, so that their dependencies are built with the same features.
fn build(root: &Path, nextest: &Path) -> anyhow::Result<()> {
    let mut cargo = repo::cargo(root);
    cargo.args(["build", "--workspace", "--bins", "--locked", "--quiet"]);
    command::run(&mut cargo, "cargo build", BUILD)?;
    let mut tests = runner(root, nextest, "run");
    tests.args(["--no-run", "--cargo-quiet"]);
    command::run(&mut tests, "building the tests", BUILD).map(drop)
}

fn runner(root: &Path, nextest: &Path, verb: &str) -> Command {
    let mut command = Command::new(nextest);
    command.current_dir(root).args(["nextest", verb, "--workspace", "--locked", "--no-tests=fail"]);
    command
}

/// How a run of tests ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Watched {
    success: bool,
    /// nextest's closing line.
    summary: Option<String>,
    /// Doc tests that passed.
    passed: u64,
}

/// Runs `command`, shows what it says, and keeps the counts.
fn watched(command: &mut Command, what: &str) -> anyhow::Result<Watched> {
    use std::os::unix::process::CommandExt;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {what}"))?;
    let stdout =
        child.stdout.take().map(|pipe| std::thread::spawn(|| show(pipe, std::io::stdout())));
    let stderr =
        child.stderr.take().map(|pipe| std::thread::spawn(|| show(pipe, std::io::stderr())));
    let ended = command::wait(&mut child, TESTS);
    if !matches!(ended, Ok(Some(_))) {
        // nextest ends its tests on SIGTERM, then itself.
        stop(&mut child)?;
    }
    let mut watched = Watched::default();
    for reader in [stdout, stderr].into_iter().flatten() {
        let found = reader.join().unwrap_or_default();
        watched.summary = watched.summary.or(found.summary);
        watched.passed += found.passed;
    }
    let status = ended?.with_context(|| {
        Faults::one(exit::UNAVAILABLE, format!("{what} took longer than {} s", TESTS.as_secs()))
    })?;
    watched.success = status.success();
    Ok(watched)
}

fn stop(child: &mut std::process::Child) -> anyhow::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::KILL] {
        if let Some(pid) = pid {
            // Gone already is what is wanted.
            if rustix::process::kill_process_group(pid, signal).is_err() {
                break;
            }
        }
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    child.wait().context("waiting for the end")?;
    Ok(())
}

fn show(pipe: impl std::io::Read, mut out: impl Write) -> Watched {
    let mut found = Watched::default();
    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        // A closed terminal is no reason to stop the tests.
        drop(writeln!(out, "{line}"));
        note(&line, &mut found);
    }
    found
}

fn note(line: &str, found: &mut Watched) {
    if let Some((_, counts)) =
        line.trim_start().strip_prefix("Summary [").and_then(|rest| rest.split_once("] "))
    {
        found.summary = Some(counts.trim().to_owned());
    }
    if let Some(rest) = line.strip_prefix("test result: ") {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let count = words.windows(2).find_map(|pair| match pair {
            [count, "passed;"] => count.parse::<u64>().ok(),
            _ => None,
        });
        found.passed += count.unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&str], summary: Option<&str>, passed: u64) {
        let mut found = Watched::default();
        lines.iter().for_each(|line| note(line, &mut found));
        assert_eq!((found.summary.as_deref(), found.passed), (summary, passed), "{lines:?}");
    }

    #[test]
    fn the_counts_are_read_from_what_the_runners_say() {
        check(
            &["     Summary [   1.234s] 17 tests run: 17 passed, 0 skipped"],
            Some("17 tests run: 17 passed, 0 skipped"),
            0,
        );
        check(
            &[
                "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
                "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
            ],
            None,
            4,
        );
        check(&["running 3 tests"], None, 0);
    }
}
