//! Before it takes work a worker proves on itself that its limits bite: throw-away sandboxes run this same program,
//! which tries to pass each of them. A limit that does not bite was not enforced in the field without a sign more than
//! once (a group that was joined but not limited, a flag of another version), and is a refusal to start here.

mod probe;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use gatehouse_contract::ExecutionId;
use gatehouse_execution::{
    Limits,
    egress::{self, Host, Hosts},
    oci::Start,
    outcome::{Exit, Run},
    sandbox::{MOUNT_POINTS, SandboxId},
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use crate::{
    driver::{Notice, Stop, Watch},
    sandbox::{Error, Job, Sandboxes},
    state_dir::StateDir,
};

pub use probe::probe;

/// The most CPU time per second that a sandbox may have used whose quota is [`CPU_MILLIS`]: room for what runsc spends
/// between two looks of the kernel.
const CPU_BEARABLE: f64 = 0.7;
/// The quota of the sandbox that spins with two threads.
const CPU_MILLIS: u32 = 250;
/// Memory of the sandbox that takes more.
const MEMORY_BYTES: u64 = 96 << 20;
/// Tasks of the sandbox that starts processes without end.
const HOST_PIDS: u32 = 80;

/// The limits of the sandbox that is asked what it can do.
fn small() -> Limits {
    Limits {
        scratch_bytes: 4 << 20,
        file_bytes: 2 << 20,
        open_files: 64,
        processes: 12,
        timeout: Duration::from_secs(20),
        grace: Duration::ZERO,
        ..Limits::default()
    }
}

/// Why the proof failed.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    /// It could not be made.
    #[error("the self-test of the limits could not be made")]
    Files(#[from] io::Error),
    /// A throw-away sandbox could not be run.
    #[error("a sandbox of the self-test could not be run")]
    Sandbox(#[from] Error),
    /// These limits do not bite.
    #[error("limits that do not bite: {}", .0.join("; "))]
    Limits(Vec<String>),
}

/// The folder in which the probe runs, furnished.
struct Ground {
    home: PathBuf,
    rootfs: PathBuf,
    loader: String,
}

impl Ground {
    fn furnish(state: &StateDir) -> io::Result<Self> {
        let home = state.selftest();
        let rootfs = home.join("rootfs");
        remove(&home)?;
        let loader = furnish(&rootfs)?;
        Ok(Self { home, rootfs, loader })
    }

    /// Runs the probe `what`, and says how long it took.
    async fn run(
        &self,
        sandboxes: &Sandboxes,
        what: &str,
        limits: Limits,
        egress: &Hosts,
    ) -> Result<(Run, Duration), Error> {
        let line = [self.loader.as_str(), "/probe", "probe", what].map(str::to_owned);
        let start = Start { entrypoint: Some(line.to_vec()), ..Start::default() };
        let (_never, stop) = watch::channel(Stop::No);
        let job = Job {
            id: SandboxId { execution: ExecutionId::new(Uuid::new_v4()), epoch: 0 },
            start: &start,
            rootfs: &self.rootfs,
            input: &Value::Null,
            limits: &limits,
            egress,
            start_until: Instant::now() + limits.start_timeout,
        };
        let began = Instant::now();
        let ran = sandboxes.run(job, Watch { stop, tell: &|_: Notice| {}, log: None }).await;
        ran.map(|run| (run, began.elapsed()))
    }
}

/// Proves that an agent with a way to the outside reaches its proxy and nothing else, and says how long it took.
pub async fn prove_egress(sandboxes: &Sandboxes, state: &StateDir) -> Result<Duration, Unproven> {
    let began = Instant::now();
    let ground = Ground::furnish(state)?;
    // A name that nobody has (RFC 6761); it is not asked.
    let hosts = "selftest.invalid".parse::<Host>().into_iter().collect();
    let run = ground.run(sandboxes, "outside", small(), &hosts).await?.0;
    remove(&ground.home)?;
    let said = said(&run);
    let faults: Vec<_> = ["proxy", "nothing else"]
        .into_iter()
        .filter(|what| said.get(what) != Some(&json!(true)))
        .map(|what| told(what, &run))
        .collect();
    if faults.is_empty() { Ok(began.elapsed()) } else { Err(Unproven::Limits(faults)) }
}

/// Proves the limits, and says how long it took.
pub async fn prove(sandboxes: &Sandboxes, state: &StateDir) -> Result<Duration, Unproven> {
    let began = Instant::now();
    let ground = Ground::furnish(state)?;
    let run = async |what: &str, limits| ground.run(sandboxes, what, limits, &egress::NONE).await;
    let (inside, memory, cpu, pids) = tokio::join!(
        run("inside", small()),
        run("memory", Limits { memory_bytes: MEMORY_BYTES, ..small() }),
        run("cpu", Limits { cpu_millis: CPU_MILLIS, ..small() }),
        run("pids", Limits { host_pids: HOST_PIDS, processes: HOST_PIDS, ..small() }),
    );
    let mut faults = judge_inside(&inside?.0);
    let (memory, _) = memory?;
    if memory.usage.oom_kills == 0 {
        faults.push(told("memory", &memory));
    }
    let (cpu, took) = cpu?;
    let share = Duration::from_micros(cpu.usage.cpu_us).as_secs_f64() / took.as_secs_f64();
    if cpu.exit != Exit::Agent(0) || cpu.usage.cpu_us == 0 || share > CPU_BEARABLE {
        faults.push(told("cpu", &cpu));
    }
    let (pids, _) = pids?;
    if pids.usage.pids_refused == 0 {
        faults.push(told("pids", &pids));
    }
    remove(&ground.home)?;
    if faults.is_empty() { Ok(began.elapsed()) } else { Err(Unproven::Limits(faults)) }
}

/// What the sandbox says of itself, and that it then died of a file that grew too large.
fn judge_inside(run: &Run) -> Vec<String> {
    let said = said(run);
    let mut faults = Vec::new();
    for what in ["network", "scratch", "open files", "processes", "read-only root", "user"] {
        if said.get(what) != Some(&json!(true)) {
            faults.push(told(what, run));
        }
    }
    if run.exit != Exit::Agent(128 + 25) {
        faults.push(told("file size", run));
    }
    faults
}

fn said(run: &Run) -> Value {
    let file = run.result_file.as_ref();
    file.and_then(|file| serde_json::from_slice(&file.bytes).ok()).unwrap_or_default()
}

fn told(what: &str, run: &Run) -> String {
    let words = String::from_utf8_lossy(&run.stderr.bytes);
    let words: String = words.chars().filter(|c| !c.is_control()).take(200).collect();
    format!("{what} ({:?}, {:?}, said: {words})", run.exit, run.usage)
}

/// A root file system with this program and the libraries that it has loaded. Returns the loader's path within.
fn furnish(rootfs: &Path) -> io::Result<String> {
    for point in MOUNT_POINTS {
        fs::create_dir_all(rootfs.join(point))?;
    }
    fs::copy("/proc/self/exe", rootfs.join("probe"))?;
    let mut loader = None;
    for library in libraries()? {
        let Some(name) = library.file_name().and_then(|name| name.to_str()) else { continue };
        if name.starts_with("ld-linux") {
            loader = library.to_str().map(str::to_owned);
        }
        let place = rootfs.join(library.strip_prefix("/").unwrap_or(&library));
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(&library, place)?;
    }
    loader.ok_or_else(|| io::Error::other("this program has no loader"))
}

/// The shared libraries that this process has mapped.
fn libraries() -> io::Result<Vec<PathBuf>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut found: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| line.find('/').and_then(|at| line.get(at..)))
        .filter(|path| path.contains(".so"))
        .map(PathBuf::from)
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn remove(home: &Path) -> io::Result<()> {
    match fs::remove_dir_all(home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
