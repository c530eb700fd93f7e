//! What the tests share: the parts named by the environment, state folders, the test agent.

use std::{
    env, fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use gatehouse_contract::ExecutionId;
use gatehouse_execution::{
    Digest, Limits,
    egress::{self, Hosts},
    oci::{self, Descriptor, ImageConfig, Index, LAYER_TAR_GZIP, Manifest, RootFs, Start},
    outcome::Run,
    sandbox::{MOUNT_POINTS, SandboxId},
};
use gatehouse_execution_worker::{
    cgroup,
    driver::{Notice, Stop, Watch},
    egress::Egress,
    sandbox::{Engine, Entry, Error, Job, Runtime, Sandboxes},
    state_dir::StateDir,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use uuid::Uuid;

/// A part from the environment.
pub fn part(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run `cargo xtask test`"))
}

pub fn runsc() -> PathBuf {
    part("GATEHOUSE_TEST_RUNSC").into()
}

/// A root file system with the test agent in it, compiled once per test process.
pub fn rootfs() -> &'static Path {
    static ROOTFS: OnceLock<PathBuf> = OnceLock::new();
    ROOTFS.get_or_init(|| {
        // Below the build folder: found and replaced by the next run, whoever ends this one.
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("agent-rootfs");
        let aside =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("agent-{}", Uuid::new_v4()));
        for point in MOUNT_POINTS {
            fs::create_dir_all(root.join(point)).unwrap();
        }
        // Where only the mount's being read-only stands between the agent and the image.
        fs::create_dir_all(root.join("open")).unwrap();
        fs::set_permissions(root.join("open"), fs::Permissions::from_mode(0o777)).unwrap();
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let status = Command::new(rustc)
            .args(["--edition=2024", "-Copt-level=1", "-Ctarget-feature=+crt-static"])
            .args(["--target=x86_64-unknown-linux-gnu", "-o"])
            .arg(&aside)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agent/agent.rs"))
            .status()
            .unwrap();
        assert!(status.success(), "the test agent does not compile");
        // The same with its setuid bit, root's.
        let with_bit = aside.with_extension("suid");
        fs::copy(&aside, &with_bit).unwrap();
        fs::set_permissions(&with_bit, fs::Permissions::from_mode(0o4755)).unwrap();
        fs::rename(&with_bit, root.join("suid")).unwrap();
        fs::rename(&aside, root.join("agent")).unwrap();
        root
    })
}

/// Sandboxes of a worker of this test's own.
pub struct Bench {
    pub sandboxes: Arc<Sandboxes>,
    pub state: StateDir,
    /// What agents may ask.
    pub egress: Option<Hosts>,
    _dir: TempDir,
    script: Option<TempDir>,
}

impl Bench {
    pub async fn new() -> Self {
        Self::with_runsc(&runsc()).await
    }

    /// On the machine's own kernel.
    pub async fn of_process() -> Self {
        let worker = env!("CARGO_BIN_EXE_gatehouse-execution-worker");
        Self::with(async |_| Engine::Process(Entry::new(worker.into()))).await
    }

    /// With another program in runsc's place: one that breaks as runsc might. It says its version all the same.
    pub async fn broken(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runsc.sh");
        let version = "[ \"$1\" = --version ] && echo 'runsc version 0.0~20240729.0' && exit 0";
        fs::write(&path, format!("#!/bin/sh\n{version}\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let mut bench = Self::with_runsc(&path).await;
        bench.script = Some(dir);
        bench
    }

    pub async fn with_runsc(runsc: &Path) -> Self {
        Self::with(async |state| {
            Engine::Runsc(Runtime::open(runsc, state.runsc()).await.unwrap().0)
        })
        .await
    }

    /// The same with a way to the outside, to `hosts`.
    pub fn with_egress(mut self, way: Egress, hosts: Hosts) -> Self {
        Arc::get_mut(&mut self.sandboxes).unwrap().set_egress(Some(way));
        self.egress = Some(hosts);
        self
    }

    async fn with(engine: impl AsyncFnOnce(&StateDir) -> Engine) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::take(dir.path()).unwrap();
        let engine = engine(&state).await;
        let sandboxes = Sandboxes::new(engine, &state, Path::new(cgroup::ROOT)).unwrap();
        Self { sandboxes: Arc::new(sandboxes), state, egress: None, _dir: dir, script: None }
    }

    /// Runs the test agent with `args` to its end.
    pub async fn run(&self, args: &[&str], limits: &Limits) -> Run {
        let start = Start {
            entrypoint: Some(vec!["/agent".to_owned()]),
            cmd: Some(args.iter().map(|arg| (*arg).to_owned()).collect()),
            ..Start::default()
        };
        self.start(&start, limits).await.unwrap()
    }

    pub async fn start(&self, start: &Start, limits: &Limits) -> Result<Run, Error> {
        let (_never, stop) = watch::channel(Stop::No);
        self.watched(new_id(), start, limits, Watch { stop, tell: &|_: Notice| {}, log: None })
            .await
    }

    pub async fn watched(
        &self,
        id: SandboxId,
        start: &Start,
        limits: &Limits,
        watch: Watch<'_>,
    ) -> Result<Run, Error> {
        let input: Value = serde_json::json!({"fuel": "diesel", "litres": 12.5});
        let start_until = tokio::time::Instant::now() + limits.start_timeout;
        let (rootfs, egress) = (rootfs(), self.egress.as_ref().unwrap_or(&egress::NONE));
        let job = Job { id, start, rootfs, input: &input, limits, egress, start_until };
        let run = self.sandboxes.run(job, watch).await;
        self.assert_nothing_left(id);
        run
    }

    /// No process, group, mount, bundle or memory of `id`.
    pub fn assert_nothing_left(&self, id: SandboxId) {
        let id = id.to_string();
        assert_eq!(processes_of(&id), Vec::<String>::new(), "processes are left");
        assert_eq!(groups_of(&id), Vec::<PathBuf>::new(), "control groups are left");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&id), "a mount is left");
        for dir in [self.state.bundles(), self.state.runsc()] {
            let left: Vec<_> = fs::read_dir(dir)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .filter(|name| name.to_string_lossy().contains(&id))
                .collect();
            assert!(left.is_empty(), "{left:?} is left");
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        end_groups(self.state.worker());
    }
}

pub fn new_id() -> SandboxId {
    SandboxId { execution: ExecutionId::new(Uuid::new_v4()), epoch: 1 }
}

/// Makes a layout at `to` with the test agent as its image, started with `args`, and returns the reference.
pub fn publish(to: &Path, args: &[&str]) -> String {
    publish_as(to, args, "agent")
}

/// The same, with the agent under another name.
pub fn publish_as(to: &Path, args: &[&str], name: &str) -> String {
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_path_with_name(rootfs().join("agent"), name).unwrap();
    let plain = archive.into_inner().unwrap();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&plain).unwrap();
    let blob = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        let path: PathBuf = digest.blob_parts().iter().collect();
        fs::create_dir_all(to.join("blobs/sha256")).unwrap();
        fs::write(to.join(path), bytes).unwrap();
        let size = bytes.len() as u64;
        Descriptor { media_type: media_type.to_owned(), digest, size, platform: None }
    };
    let config = ImageConfig {
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        config: Start {
            entrypoint: Some(vec![format!("/{name}")]),
            cmd: Some(args.iter().map(|arg| (*arg).to_owned()).collect()),
            ..Start::default()
        },
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![Digest::of(&plain)] },
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: None,
        config: blob(oci::CONFIG, &serde_json::to_vec(&config).unwrap()),
        layers: vec![blob(LAYER_TAR_GZIP, &packed.finish().unwrap())],
    };
    let manifest = blob(oci::MANIFEST, &serde_json::to_vec(&manifest).unwrap());
    let reference = format!("test-agent@{}", manifest.digest);
    let index = Index { schema_version: 2, media_type: None, manifests: vec![manifest] };
    fs::write(to.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    fs::write(to.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    reference
}

/// Short limits for a test; everything in it is over within seconds.
pub fn limits() -> Limits {
    Limits { timeout: Duration::from_secs(30), ..Limits::default() }
}

/// Command lines that name `id`.
pub fn processes_of(id: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path().join("cmdline");
        if let Ok(line) = fs::read(&path) {
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(id) {
                found.push(line);
            }
        }
    }
    found
}

/// Ends what a worker called `name` left, and removes its control groups: a killed one leaves what it had prepared.
pub fn end_groups(name: &str) {
    let processes = |group: &Path| fs::read_to_string(group.join("cgroup.procs"));
    for group in groups_of(name) {
        let below = fs::read_dir(&group).into_iter().flatten().flatten().map(|entry| entry.path());
        for sandbox in below.filter(|path| path.is_dir()) {
            let begun = std::time::Instant::now();
            while let Ok(listed) = processes(&sandbox)
                && !listed.is_empty()
                && begun.elapsed() < Duration::from_secs(5)
            {
                let pids = listed.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
                // It may have ended by itself.
                pids.for_each(|pid| kill_process(pid, Signal::KILL).unwrap_or_default());
                std::thread::yield_now();
            }
            drop(fs::remove_dir(sandbox));
        }
        drop(fs::remove_dir(group));
    }
}

/// Control groups with `name` in any tree.
pub fn groups_of(name: &str) -> Vec<PathBuf> {
    fn walk(below: &Path, name: &str, depth: usize, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(below) else { return };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if depth < 4 {
                walk(&entry.path(), name, depth + 1, found);
            }
            if entry.file_name() == name {
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new(cgroup::ROOT), name, 0, &mut found);
    found
}
