//! What sandboxes cost through the worker beside the same by hand: `runsc run` of a bundle that the worker itself made, with
//! the flags that it itself gave and a control group with the limits that it itself wrote, in turns. Learns all of them by
//! looking at a run of the worker. Knows nothing of how the worker makes them.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use gatehouse_contract::{ExecutionId, Tier};
use gatehouse_execution::ExecutionState;
use gatehouse_store::executions::Terms;
use gatehouse_xtask::{bench::figures::Figure, image};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Bench, at_least, at_most, percentile};
use crate::{
    engine::{Engine, PATIENCE, Plan, worker::Driver},
    env, wait,
};

/// Between two looks at a run that is waited for.
const LOOK: Duration = Duration::from_millis(2);
/// Until a sandbox made in advance is there for the next run.
const PREPARED: Duration = Duration::from_millis(500);
/// The control groups' mounts.
const GROUPS: &str = "/sys/fs/cgroup";
/// What the worker may write of a group; what is not there is not there by hand either.
const LIMITS: &[&str] = &[
    "memory.limit_in_bytes",
    "memory.max",
    "memory.swap.max",
    "cpu.cfs_period_us",
    "cpu.cfs_quota_us",
    "cpu.max",
    "pids.max",
];
/// Does nothing for longer than any of this takes.
const IDLE: &str = "fn main() { std::thread::sleep(std::time::Duration::from_secs(900)) }";
/// How much memory must stay for everything else.
const SPARE: u64 = 3 << 30;

fn engine(bench: &mut Bench<'_>, layout: &Path, more: &Value) -> Result<Engine> {
    let mut engine = Engine::start(Plan { durable: true, tiers: &[Tier::Enterprise] })?;
    engine.publish(layout)?;
    engine.raise_limits(10_000)?;
    engine.worker(Driver::Runsc, more, 0)?;
    bench.say(&format!("sandboxes: {}", runsc_version()?));
    Ok(engine)
}

fn runsc_version() -> Result<String> {
    let output = Command::new(env::path(env::RUNSC)?).arg("--version").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

/// One execution from its submit until its client sees the result.
fn through_the_worker(engine: &Engine, input: &Value) -> Result<Duration> {
    let tenant = engine.tenants.first().context("no tenant")?;
    let id = ExecutionId::new(Uuid::new_v4());
    let began = Instant::now();
    engine.runtime.block_on(async {
        tenant.submit(&engine.store, id, input.clone(), Terms::default()).await?;
        loop {
            let seen = engine.store.tenant(&tenant.op).await?.execution(id).await?;
            let seen = seen.context("the execution is gone")?;
            if seen.state.is_settled() {
                ensure!(seen.state == ExecutionState::Completed, "ended as {seen:?}");
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < PATIENCE, "still {}", seen.state);
            tokio::time::sleep(LOOK).await;
        }
    })
}

/// What a run of the worker looked like from outside.
struct ByHand {
    words: Vec<String>,
    document: Value,
    bundle: PathBuf,
    id: String,
    groups: Vec<(PathBuf, Vec<(&'static str, String)>)>,
    dir: PathBuf,
    input: Value,
    made: u32,
}

impl ByHand {
    /// Has the worker run one, and looks.
    fn learn(engine: &Engine, input: &Value, dir: &Path) -> Result<Self> {
        let state = engine.dir().join("w0").canonicalize()?;
        let bundles = state.join("bundles");
        let seen = std::thread::scope(|scope| {
            let looking =
                scope.spawn(|| wait::until("a run of the worker", PATIENCE, || Ok(look(&bundles))));
            start(engine, input)?;
            looking.join().map_err(|_| anyhow::anyhow!("the look-out panicked"))?
        })?;
        Ok(Self { dir: dir.to_owned(), input: input.clone(), ..seen })
    }

    /// A bundle and a group of its own; the command that runs it.
    fn prepare(&mut self) -> Result<(Command, Prepared)> {
        // Epochs that no claim of this run comes to.
        self.made = self.made.max(0x1000_0000) + 1;
        let id = format!("{}{:08x}", &self.id[..self.id.len().saturating_sub(8)], self.made);
        let bundle = self.dir.join(&id);
        for place in ["agent", "scratch"] {
            std::fs::create_dir_all(bundle.join(place))?;
        }
        let text = self.input.to_string();
        std::fs::write(bundle.join("agent/input.json"), &text)?;
        let document = self.document.to_string();
        let (old, new) = (self.bundle.display().to_string(), bundle.display().to_string());
        let document = document.replace(&old, &new).replace(&self.id, &id);
        std::fs::write(bundle.join("config.json"), document)?;
        let mut groups = Vec::new();
        for (group, limits) in &self.groups {
            let group = PathBuf::from(group.display().to_string().replace(&self.id, &id));
            std::fs::create_dir_all(&group)?;
            for (file, value) in limits {
                // The period and the quota depend on each other, and what is the default needs no writing.
                drop(std::fs::write(group.join(file), value));
            }
            groups.push(group);
        }
        let words = self.words.iter().map(|word| word.replace(&old, &new).replace(&self.id, &id));
        let words: Vec<String> = words.collect();
        let (program, arguments) = words.split_first().context("no words")?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().current_dir("/");
        command.stdin(std::fs::File::open(bundle.join("agent/input.json"))?);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok((command, Prepared { bundle, groups }))
    }

    fn once(&mut self) -> Result<Duration> {
        let (mut command, prepared) = self.prepare()?;
        let began = Instant::now();
        let status = command.status().context("running runsc")?;
        let took = began.elapsed();
        let log = || std::fs::read_to_string(prepared.bundle.join("engine.log"));
        ensure!(status.success(), "by hand: {status}: {command:?}: {:?}", log());
        Ok(took)
    }
}

/// Removed when dropped.
struct Prepared {
    bundle: PathBuf,
    groups: Vec<PathBuf>,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // Left behind is an empty group, which the next run of the machine does without.
        drop(std::fs::remove_dir_all(&self.bundle));
        for group in &self.groups {
            drop(std::fs::remove_dir(group));
        }
    }
}

/// A run that goes on, by the command line of its `runsc`.
fn look(bundles: &Path) -> Option<ByHand> {
    let below = format!("{}/", bundles.display());
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<String> =
            line.split('\0').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let bundle = words.iter().find(|word| word.starts_with(&below) && !word.ends_with(".log"));
        let (Some(bundle), true) = (bundle, words.iter().any(|word| word == "run")) else {
            continue;
        };
        let (bundle, id) = (PathBuf::from(bundle), words.last()?.clone());
        let document = std::fs::read(bundle.join("config.json")).ok()?;
        let document: Value = serde_json::from_slice(&document).ok()?;
        let path = document.pointer("/linux/cgroupsPath")?.as_str()?.trim_start_matches('/');
        let trees = std::fs::read_dir(GROUPS).ok()?.flatten().map(|tree| tree.path());
        let groups = trees.chain([PathBuf::from(GROUPS)]).map(|tree| tree.join(path));
        let groups = groups
            .filter(|group| group.is_dir())
            .map(|group| {
                let read = |file: &&'static str| {
                    Some((*file, std::fs::read_to_string(group.join(file)).ok()?))
                };
                let limits = LIMITS.iter().filter_map(read).collect();
                (group, limits)
            })
            .collect();
        let (dir, input) = (PathBuf::new(), Value::Null);
        return Some(ByHand { words, document, bundle, id, groups, dir, input, made: 0 });
    }
    None
}

/// A run whose end nobody waits for.
fn start(engine: &Engine, input: &Value) -> Result<()> {
    let tenant = engine.tenants.first().context("no tenant")?;
    let id = ExecutionId::new(Uuid::new_v4());
    engine.runtime.block_on(tenant.submit(&engine.store, id, input.clone(), Terms::default()))?;
    Ok(())
}

fn input() -> Value {
    json!({"fuel": "diesel", "litres": 100})
}

/// `cold_ratio`.
pub(super) fn cold(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let ratios = compared(bench, &json!({"concurrency": 1}), Duration::ZERO, 50)?;
    Ok(vec![at_most("cold_ratio", "ratio", (1.5, 1.15), &ratios)?])
}

/// `warm_ratio`.
pub(super) fn warm(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let more = json!({"concurrency": 1, "warm": {"max": 2, "per_key": 1}});
    let ratios = compared(bench, &more, PREPARED, 95)?;
    Ok(vec![at_most("warm_ratio", "ratio", (0.8, 0.4), &ratios)?])
}

/// This percentile through the worker ÷ the median by hand.
fn compared(
    bench: &mut Bench<'_>,
    more: &Value,
    rest: Duration,
    percent: usize,
) -> Result<Vec<f64>> {
    let mut engine = engine(bench, &env::path(env::AGENT)?, more)?;
    // The first one is cold in any case: what it looks like is seen, and the image unpacked, before anything counts.
    let mut hand = ByHand::learn(&engine, &input(), bench.dir)?;
    through_the_worker(&engine, &input())?;
    let (each, mut ratios) = (if bench.options.quick { 12 } else { 40 }, Vec::new());
    for round in 0..=bench.rounds() {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..each {
            wait::until_instant(Instant::now() + rest);
            ours.push(through_the_worker(&engine, &input())?.as_secs_f64() * 1000.0);
            wait::until_instant(Instant::now() + rest);
            theirs.push(hand.once()?.as_secs_f64() * 1000.0);
        }
        let (ours, theirs) = (percentile(&ours, percent)?, percentile(&theirs, 50)?);
        bench.say(&format!("sandboxes: p{percent} {ours:.0} ms, by hand p50 {theirs:.0} ms"));
        if round > 0 {
            ratios.push(ours / theirs);
        }
    }
    engine.workers.clear();
    Ok(ratios)
}

/// `sandboxes` and `sandbox_memory_ratio`.
pub(super) fn density(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let layout = idle(bench.dir)?;
    // Others' sandboxes on this machine are none of these.
    let others = kernels()?;
    let kernels = || Ok::<_, anyhow::Error>(kernels()?.saturating_sub(others));
    let (wanted, by_hand) = if bench.options.quick { (150, 30) } else { (200, 100) };
    let more = json!({"concurrency": 256, "egress": false});
    let engine = engine(bench, &layout, &more);
    let engine = match engine {
        Ok(engine) => engine,
        Err(_) => self::engine(bench, &layout, &json!({"concurrency": 256}))?,
    };
    start(&engine, &json!({}))?;
    let mut hand = {
        let bundles = engine.dir().join("w0").canonicalize()?.join("bundles");
        let seen = wait::until("a run of the worker", PATIENCE, || Ok(look(&bundles)))?;
        ByHand { dir: bench.dir.to_owned(), input: json!({}), ..seen }
    };
    let before = available()?;
    let mut alone = Vec::new();
    for _ in 0..by_hand {
        let (mut command, prepared) = hand.prepare()?;
        alone.push(Alone(command.spawn()?, prepared));
    }
    let settle = |count: usize| {
        wait::until("sandboxes run", PATIENCE, || Ok((kernels()? >= count).then_some(())))
    };
    settle(by_hand)?;
    let bare = memory(before, by_hand)?;
    drop(alone);
    wait::until("they are gone", PATIENCE, || Ok((kernels()? <= 1).then_some(())))?;
    let before = available()?;
    for _ in 1..wanted {
        start(&engine, &json!({}))?;
    }
    let mut most = 0;
    let reached = wait::until("sandboxes through the worker", PATIENCE * 2, || {
        most = most.max(kernels()?);
        Ok((most >= wanted || available()? < SPARE).then_some(()))
    });
    let ours = memory(before, most.saturating_sub(1).max(1))?;
    if let Err(error) = reached {
        bench.say(&format!("sandboxes: {error:#}"));
    }
    bench.say(&format!(
        "sandboxes: {most} at once with {:.1} MB each, bare {:.1} MB",
        ours / 1e6,
        bare / 1e6
    ));
    Ok(vec![
        at_least("sandboxes", "sandboxes", (150.0, 200.0), &[most as f64])?,
        at_most("sandbox_memory_ratio", "ratio", (1.15, 1.15), &[ours / bare])?,
    ])
}

/// One that was started by hand, ended with its value.
struct Alone(Child, #[expect(dead_code, reason = "removed behind it")] Prepared);

impl Drop for Alone {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Kernels of sandboxes that run the idle agent of this bench.
fn kernels() -> Result<usize> {
    let entries = std::fs::read_dir("/proc")?.flatten();
    let boots = entries.filter(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.starts_with("runsc-sandbox") && line.contains("\0boot\0")
    });
    Ok(boots.count())
}

/// What is free for whoever asks, in bytes.
fn available() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no MemAvailable")?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// How much each of them took.
fn memory(before: u64, count: usize) -> Result<f64> {
    // What is being freed or filled at this moment is no part of it.
    wait::until_instant(Instant::now() + Duration::from_secs(3));
    Ok(before.saturating_sub(available()?) as f64 / count as f64)
}

/// The layout of an image that does nothing.
fn idle(dir: &Path) -> Result<PathBuf> {
    let (source, program, layout) =
        (dir.join("idle.rs"), dir.join("idle"), dir.join("idle-layout"));
    std::fs::write(&source, IDLE)?;
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut rustc = Command::new(rustc);
    rustc.args(["--edition=2024", "-Copt-level=1", "-Ctarget-feature=+crt-static"]);
    rustc.args(["--target=x86_64-unknown-linux-gnu", "-o"]).arg(&program).arg(&source);
    ensure!(rustc.status().context("running rustc")?.success(), "the idle agent does not compile");
    image::layout(&std::fs::read(&program)?, &layout)?;
    Ok(layout)
}
