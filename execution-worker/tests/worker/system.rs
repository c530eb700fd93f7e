//! The worker's process with everything around it: a database and a Redis of its own, an image store, and the
//! worker itself as its binary. All of it is gone when the value is dropped.

use std::{
    fs,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use gatehouse_contract::{AgentId, AgentVersionId, ExecutionId, TenantId, Tier, acl};
use gatehouse_execution::{ExecutionState, oci::Index};
use gatehouse_store::{
    Actor, MasterKeys, OffsetDateTime, OpCtx, Store, Urls,
    executions::{self, Execution, NewExecution},
    migrate,
    versions::{self, NewVersion},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    images::copy,
    support::{part, publish},
};

/// How long anything may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct System {
    pub dir: TempDir,
    pub store: Store,
    pub redis: Redis,
    database: String,
}

/// A process that dies with its value.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub struct Redis {
    port: u16,
    dir: PathBuf,
    process: Option<Process>,
}

/// The worker's process.
pub struct Worker {
    pub process: Process,
    pub admin: u16,
    /// Its configuration.
    pub file: PathBuf,
    log: PathBuf,
}

/// A free port of this machine, below those that the kernel gives to outgoing connections: who asks a server that is away
/// again and again would else be connected to itself one day, and hold the port.
pub fn free_port() -> u16 {
    loop {
        let any = RandomState::new().build_hasher().finish() % 10_000;
        let port = 10_000 + u16::try_from(any).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Looks until there is something, or fails with what was seen last.
pub async fn wait_for<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < deadline, "waited for {what}, saw {seen}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn psql(command: &str) {
    let status = Command::new("psql")
        .arg(part("GATEHOUSE_TEST_POSTGRES"))
        .args(["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--command", command])
        .status()
        .expect("psql runs");
    assert!(status.success(), "{command}");
}

impl Redis {
    fn start(dir: &Path) -> Self {
        let dir = dir.join("redis");
        fs::create_dir_all(&dir).unwrap();
        let passwords =
            acl::Passwords { admin: "test", sidecar: "test", control: "test", worker: "test" };
        fs::write(dir.join("users.acl"), acl::file(&passwords).unwrap()).unwrap();
        let mut redis = Self { port: free_port(), dir, process: None };
        redis.restart();
        redis
    }

    /// Ends the server, if it runs, and starts one that has nothing, on the same port.
    pub fn restart(&mut self) {
        self.process = None;
        let child = Command::new(part("GATEHOUSE_TEST_REDIS_SERVER"))
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "no", "--maxmemory-policy", "noeviction", "--aclfile"])
            .arg(self.dir.join("users.acl"))
            .arg("--dir")
            .arg(&self.dir)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        self.process = Some(Process(child));
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "redis does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn stop(&mut self) {
        self.process = None;
    }

    pub fn url(&self) -> String {
        format!("redis://worker:test@127.0.0.1:{}", self.port)
    }
}

impl System {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = format!("gatehouse_w_{}", Uuid::new_v4().simple());
        psql(&format!("CREATE DATABASE {database} OWNER gatehouse_owner"));
        let url = |role: &str| database_url(&database, role);
        migrate::run(&url("owner")).await.unwrap();
        let urls = Urls { app: url("app"), admin: Some(url("admin")), system: Some(url("system")) };
        let key = "0f".repeat(32);
        fs::write(dir.path().join("key"), &key).unwrap();
        let keys = MasterKeys::parse(&key).unwrap();
        let store = Store::connect(&urls).await.unwrap().with_keys(keys);
        fs::create_dir(dir.path().join("store")).unwrap();
        let redis = Redis::start(dir.path());
        Self { dir, store, redis, database }
    }

    pub fn database_url(&self, role: &str) -> String {
        database_url(&self.database, role)
    }

    /// The number that `query` returns, asked as nobody who is bound by row security.
    pub fn rows(&self, query: &str) -> u64 {
        let url = part("GATEHOUSE_TEST_POSTGRES");
        let (server, _) = url.rsplit_once('/').unwrap();
        let out = Command::new("psql")
            .arg(format!("{server}/{}", self.database))
            .args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", query])
            .output()
            .expect("psql runs");
        let text = String::from_utf8(out.stdout).unwrap();
        text.trim().parse().unwrap_or_else(|_| panic!("{query}: {text}"))
    }

    /// A new tenant's operations.
    pub async fn tenant(&self) -> OpCtx {
        let op = OpCtx {
            tenant: TenantId::new(Uuid::new_v4()),
            subject: "tester".to_owned(),
            actor: Actor::Client,
            request_id: "r1".to_owned(),
            traceparent: None,
            now: OffsetDateTime::UNIX_EPOCH,
        };
        let slug = format!("t-{}", &op.tenant.to_string()[..8]);
        let mut tx = self.store.admin(&op, "a test's tenant").await.unwrap();
        tx.create_tenant(op.tenant, &slug, &slug, Tier::Free).await.unwrap();
        tx.commit().await.unwrap();
        op
    }

    /// An agent of the tenant whose only version names `image`.
    pub async fn agent(&self, op: &OpCtx, image: &str) -> (AgentId, AgentVersionId) {
        self.agent_with(op, image, versions::Terms::default()).await
    }

    /// The same, on these terms.
    pub async fn agent_with(
        &self,
        op: &OpCtx,
        image: &str,
        terms: versions::Terms,
    ) -> (AgentId, AgentVersionId) {
        let (agent, version) = (AgentId::new(Uuid::new_v4()), AgentVersionId::new(Uuid::new_v4()));
        let name = format!("a-{}", &agent.to_string()[..8]);
        let mut tx = self.store.tenant(op).await.unwrap();
        tx.create_agent(agent, &name, None).await.unwrap();
        let image = image.to_owned();
        let new = NewVersion { id: version, agent, version: "1.0.0".to_owned(), image, terms };
        tx.create_version(&new).await.unwrap();
        tx.commit().await.unwrap();
        (agent, version)
    }

    /// Publishes the sample agent for the tenant and returns the reference.
    pub fn publish_sample(&self, op: &OpCtx) -> String {
        let to = self.layout(op, "fuel-emissions");
        copy(Path::new(&part("GATEHOUSE_TEST_AGENT")), &to);
        let index: Index =
            serde_json::from_slice(&fs::read(to.join("index.json")).unwrap()).unwrap();
        format!("fuel-emissions@{}", index.manifests[0].digest)
    }

    /// Publishes the test agent, started with `args`.
    pub fn publish_test_agent(&self, op: &OpCtx, args: &[&str]) -> String {
        publish(&self.layout(op, "test-agent"), args)
    }

    /// Where the tenant's layout called `name` is.
    pub fn layout(&self, op: &OpCtx, name: &str) -> PathBuf {
        self.dir.path().join("store").join(op.tenant.to_string()).join(name)
    }

    /// Submits and returns the execution's id.
    pub async fn submit(
        &self,
        op: &OpCtx,
        (agent, version): (AgentId, AgentVersionId),
        input: Value,
    ) -> ExecutionId {
        self.submit_on(op, (agent, version), input, executions::Terms::default()).await
    }

    /// The same, on these terms.
    pub async fn submit_on(
        &self,
        op: &OpCtx,
        (agent, version): (AgentId, AgentVersionId),
        input: Value,
        terms: executions::Terms,
    ) -> ExecutionId {
        let id = ExecutionId::new(Uuid::new_v4());
        let mut tx = self.store.tenant(op).await.unwrap();
        tx.submit_execution(&NewExecution { id, agent, version, input, terms }).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    pub async fn execution(&self, op: &OpCtx, id: ExecutionId) -> Execution {
        self.store.tenant(op).await.unwrap().execution(id).await.unwrap().unwrap()
    }

    /// Waits until the execution is in `state`.
    pub async fn reaches(&self, op: &OpCtx, id: ExecutionId, state: ExecutionState) -> Execution {
        wait_for(&format!("state {state}"), || async {
            let seen = self.execution(op, id).await;
            if seen.state == state {
                return Ok(seen);
            }
            assert!(!seen.state.is_settled(), "waited for {state}, it ended as {seen:?}");
            Err(format!("{seen:?}"))
        })
        .await
    }

    /// The worker's configuration; `change` is merged into it.
    pub fn config(&self, change: Value) -> Value {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let mut config = json!({
            "admin_listen": format!("127.0.0.1:{}", free_port()),
            "database": {"app": self.database_url("app"), "system": self.database_url("system")},
            "redis": self.redis.url(),
            "key_file": path("key"),
            "image_store": path("store"),
            "state_dir": path("worker"),
            "runsc": part("GATEHOUSE_TEST_RUNSC"),
            "lease_s": 3,
        });
        if let (Value::Object(config), Value::Object(change)) = (&mut config, change) {
            config.extend(change);
        }
        config
    }

    /// Starts the worker and waits until it is ready.
    pub async fn worker(&self, change: Value) -> Worker {
        self.ready(Worker::spawn(self.dir.path(), &self.config(change))).await
    }

    /// The configuration of a worker that runs nothing, for `tenants`.
    pub fn sim(&self, tenants: &[&OpCtx], change: Value) -> Value {
        let tenants: Vec<_> = tenants.iter().map(|op| op.tenant).collect();
        let mut config = self.config(json!({"driver": "sim", "demo_tenants": tenants}));
        if let (Value::Object(config), Value::Object(change)) = (&mut config, change) {
            config.remove("runsc");
            config.extend(change);
        }
        config
    }

    /// Waits until a worker is ready.
    pub async fn ready(&self, mut worker: Worker) -> Worker {
        wait_for("readiness", || {
            let ended = worker.process.0.try_wait().unwrap();
            assert!(ended.is_none(), "the worker ended: {}", worker.log());
            let ready = get(worker.admin, "/readyz");
            async move { if ready.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(ready) } }
        })
        .await;
        worker
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("worker")
    }
}

impl Drop for System {
    fn drop(&mut self) {
        psql(&format!("DROP DATABASE {} WITH (FORCE)", self.database));
        if let Ok(name) = fs::read_to_string(self.state_dir().join("worker")) {
            crate::support::end_groups(&name);
        }
    }
}

fn database_url(database: &str, role: &str) -> String {
    let url = part("GATEHOUSE_TEST_POSTGRES");
    let rest = url.split_once('@').map_or(url.as_str(), |(_, rest)| rest);
    let server = rest.split('/').next().unwrap();
    format!("postgres://gatehouse_{role}:test@{server}/{database}")
}

impl Worker {
    pub fn spawn(dir: &Path, config: &Value) -> Self {
        Self::spawn_with(dir, config, &[])
    }

    /// The same, with further variables in its environment.
    pub fn spawn_with(dir: &Path, config: &Value, vars: &[(&str, &str)]) -> Self {
        let program = [env!("CARGO_BIN_EXE_gatehouse-execution-worker")];
        Self::spawn_by(dir, config, &program, vars)
    }

    /// The same, where `program` becomes the worker.
    pub fn spawn_by(dir: &Path, config: &Value, program: &[&str], vars: &[(&str, &str)]) -> Self {
        // A file of its own: the worker follows it.
        let name = Uuid::new_v4();
        let (file, log) = (dir.join(format!("{name}.json")), dir.join(format!("{name}.log")));
        fs::write(&file, config.to_string()).unwrap();
        let admin = config["admin_listen"].as_str().and_then(|text| text.rsplit_once(':'));
        let child = Command::new(program[0])
            .args(&program[1..])
            .args(["serve", "--config"])
            .arg(&file)
            .envs(vars.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let admin = admin.and_then(|(_, port)| port.parse().ok()).unwrap_or_default();
        Self { process: Process(child), admin, file, log }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.process.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end.
    pub async fn ended(&mut self) -> ExitStatus {
        let log = self.log.clone();
        wait_for("the worker's end", || {
            let ended = self.process.0.try_wait().unwrap();
            let log = fs::read_to_string(&log).unwrap();
            async move { ended.ok_or(log) }
        })
        .await
    }
}

/// The reply to a GET, or why there is none.
pub fn get(port: u16, path: &str) -> String {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: worker\r\nconnection: close\r\n\r\n")?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    };
    ask().unwrap_or_else(|error| error.to_string())
}
