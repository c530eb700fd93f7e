//! Starts the sidecar and what it talks to, waits for states, asks it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use axum::{Router, body::Body, http::Request, response::Response};
use gatehouse_contract::{
    header,
    sidecar::{Change, CheckAsk, Denied},
};
use gatehouse_redis_kit::feed::Writer;
use serde_json::{Value, json};
use tempfile::TempDir;

pub const BINARY: &str = env!("CARGO_BIN_EXE_gatehouse-ratelimit-sidecar");
const PATIENCE: Duration = Duration::from_secs(20);

pub fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run cargo xtask test"))
}

pub fn memory() -> Value {
    json!({"kind": "memory", "sidecars": 1})
}

pub fn redis(url: &str) -> Value {
    json!({"kind": "redis", "url": url})
}

/// The cluster of three that all tests share.
pub fn redis_cluster() -> Value {
    let urls = env("GATEHOUSE_TEST_REDIS_CLUSTER");
    json!({"kind": "redis_cluster", "urls": urls.split(',').collect::<Vec<_>>()})
}

/// A whole configuration on free ports; `more` overrides its members.
pub fn config(store: &Value, more: Value) -> Value {
    let mut config = json!({
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "store": store,
        "redis_timeout_ms": 1000,
    });
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
    }
    config
}

fn write(dir: &TempDir, config: &Value) -> PathBuf {
    let path = dir.path().join("sidecar.json");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

fn serve(config: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("serve").arg("--config").arg(config).env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Runs it where it must end by itself: exit code and stderr's lines, the file's path shown as FILE.
pub fn run_to_end(config: &Value) -> (Option<i32>, Vec<String>) {
    let dir = TempDir::new().unwrap();
    let file = write(&dir, config);
    let mut child = serve(&file).spawn().unwrap();
    wait_for("the sidecar to end", || child.try_wait().unwrap().map(drop));
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    let text = String::from_utf8(stderr).unwrap().replace(&file.display().to_string(), "FILE");
    (status.code(), text.lines().map(str::to_owned).collect())
}

/// Runs `load-functions`: exit code and stderr.
pub fn load_functions(url: &str) -> (Option<i32>, String) {
    let output = Command::new(BINARY).args(["load-functions", "--url", url]).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Asks again and again until there is an answer.
pub fn wait_for<T>(what: &str, mut state: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = state() {
            return value;
        }
        assert!(begin.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running sidecar; killed when dropped.
pub struct Sidecar {
    child: Child,
    pub url: String,
    pub admin: String,
    pub client: reqwest::Client,
    _dir: TempDir,
}

impl Sidecar {
    pub fn start(config: &Value) -> Self {
        let dir = TempDir::new().unwrap();
        let mut child = serve(&write(&dir, config)).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        // Reads to the end, so that the child never blocks on a full pipe.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                sender.send(line).unwrap_or_default();
            }
        });
        let (mut public, mut admin, mut seen) = (None, None, Vec::new());
        while public.is_none() || admin.is_none() {
            let line = lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("it does not listen: {seen:#?}"));
            let log: Value = serde_json::from_str(&line).unwrap_or_default();
            if log["message"] == "listening" {
                let address = Some(log["address"].as_str().unwrap().to_owned());
                match log["listener"].as_str() {
                    Some("listen") => public = address,
                    _ => admin = address,
                }
            }
            seen.push(line);
        }
        let url = |address: Option<String>| format!("http://{}", address.unwrap());
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self { child, url: url(public), admin: url(admin), client, _dir: dir }
    }

    pub fn with_issuer(at: SocketAddr) -> Self {
        Self::with_issuer_and(at, json!({}))
    }

    pub fn with_issuer_and(at: SocketAddr, more: Value) -> Self {
        let issuers = json!([{"issuer": "https://idp", "jwks": format!("http://{at}/jwks")}]);
        let mut config = config(&memory(), more);
        config["issuers"] = issuers;
        Self::start(&config)
    }

    pub fn with_control(at: SocketAddr) -> Self {
        Self::start(&config(
            &memory(),
            json!({"control_api": {"internal": format!("http://{at}")}}),
        ))
    }

    /// With both, and a feed that it has heard.
    pub async fn with_feed(redis_server: &Redis, control: SocketAddr, more: Value) -> Self {
        let mut config = config(&redis(&redis_server.url("sidecar", "test")), more);
        config["control_api"] = json!({"internal": format!("http://{control}")});
        let sidecar = Self::start(&config);
        let alive = async || (sidecar.get("/v1/changes").await.1["alive"] == true).then_some(());
        until("the feed to be alive", alive).await;
        sidecar
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The exit code of one that was asked to end.
    pub fn ended(&mut self) -> Option<i32> {
        let child = &mut self.child;
        wait_for("the sidecar to end", || child.try_wait().unwrap()).code()
    }

    /// Status and body; every answer must be marked.
    pub async fn answer(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.send().await.unwrap();
        let marker = response.headers().get(header::SIDECAR_MARKER);
        assert_eq!(marker.map(|value| value.as_bytes()), Some(&b"1"[..]), "{response:?}");
        let status = response.status().as_u16();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        let expected = if status < 400 { "application/json" } else { "application/problem+json" };
        assert_eq!(kind, expected);
        (status, response.json().await.unwrap())
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.answer(self.client.get(format!("{}{path}", self.url))).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(format!("{}{path}", self.url)).body(body.to_string());
        self.answer(request).await
    }

    pub async fn check(&self, ask: &CheckAsk) -> (u16, Value) {
        self.post(gatehouse_contract::sidecar::CHECK_PATH, &serde_json::to_value(ask).unwrap())
            .await
    }

    pub async fn ready(&self) -> u16 {
        let answer = self.client.get(format!("{}/readyz", self.admin)).send().await.unwrap();
        answer.status().as_u16()
    }

    /// It listens before its store has decided for the first time, and is not ready until then.
    pub async fn until_ready(&self) {
        until("readiness", async || (self.ready().await == 200).then_some(())).await;
    }

    /// A counter's value.
    pub async fn metric(&self, line: &str) -> Option<u64> {
        let answer = self.client.get(format!("{}/metrics", self.admin)).send().await.unwrap();
        let text = answer.text().await.unwrap();
        text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

/// A private Redis; killed when dropped.
pub struct Redis {
    child: Child,
    port: u16,
    /// Options for the server, beside its file.
    more: Vec<String>,
    dir: TempDir,
}

impl Redis {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Self::start`], with further options.
    pub fn start_with(more: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Self::spawn(&dir, port, more);
        let more = more.iter().map(|&option| option.to_owned()).collect();
        let redis = Self { child, port, more, dir };
        redis.wait();
        redis
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn spawn(dir: &TempDir, port: u16, more: &[&str]) -> Child {
        let users = gatehouse_contract::acl::file(&gatehouse_contract::acl::Passwords {
            admin: "test",
            sidecar: "test",
            control: "test",
            worker: "test",
        });
        let file = dir.path().join("redis.conf");
        let text = format!("bind 127.0.0.1\nport {port}\nsave \"\"\n{}", users.unwrap());
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(env("GATEHOUSE_TEST_REDIS_SERVER"));
        command.arg(&file).args(more).current_dir(dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    fn wait(&self) {
        let at = ("127.0.0.1", self.port);
        wait_for("Redis", || std::net::TcpStream::connect(at).ok());
    }

    pub fn url(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}", self.port)
    }

    /// What the server answers its administrator, as it is on the wire.
    pub fn command(&self, command: &str) -> String {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("AUTH admin test\r\n{command}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        answers.strip_prefix("+OK\r\n").unwrap().to_owned()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// At the same address, with what was saved: nothing, unless a test did so.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// As [`Self::restart`], with further options.
    pub fn restart_with(&mut self, more: &[&str]) {
        let more: Vec<&str> =
            self.more.iter().map(String::as_str).chain(more.iter().copied()).collect();
        self.child = Self::spawn(&self.dir, self.port, &more);
        self.wait();
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

/// An HTTP server that answers as it is told and notes the questions.
pub struct Server {
    pub at: SocketAddr,
    asked: Arc<Mutex<Vec<(String, String)>>>,
    task: tokio::task::JoinHandle<()>,
}

type Answer = Box<dyn Fn(&str) -> Response + Send + Sync>;

/// What a [`Server`] answers; may be changed while it runs.
#[derive(Clone)]
pub struct Script(Arc<Mutex<Answer>>);

impl Script {
    pub fn new(answer: impl Fn() -> Response + Send + Sync + 'static) -> Self {
        Self::by_path(move |_| answer())
    }

    pub fn by_path(answer: impl Fn(&str) -> Response + Send + Sync + 'static) -> Self {
        Self(Arc::new(Mutex::new(Box::new(answer))))
    }

    pub fn set(&self, answer: impl Fn() -> Response + Send + Sync + 'static) {
        *self.0.lock().unwrap() = Box::new(move |_| answer());
    }
}

impl Server {
    pub async fn start(script: &Script) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), script).await
    }

    pub async fn at(at: SocketAddr, script: &Script) -> Self {
        let listener = tokio::net::TcpListener::bind(at).await.unwrap();
        let at = listener.local_addr().unwrap();
        let (asked, script) = (Arc::<Mutex<Vec<_>>>::default(), script.clone());
        let noted = Arc::clone(&asked);
        let router = Router::new().fallback(async move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            noted.lock().unwrap().push((path.clone(), body));
            let answer = script.0.lock().unwrap();
            answer(&path)
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { at, asked, task }
    }

    pub fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// The bodies that came to `path`.
    pub fn bodies(&self, path: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(to, _)| to == path).map(|(_, body)| body.clone()).collect()
    }

    /// Nothing listens there any more; open connections end, too.
    pub async fn stop(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// Asks again and again until there is an answer, letting others run meanwhile.
pub async fn until<T>(what: &str, mut state: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = state().await {
            return value;
        }
        assert!(begin.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The relay's part: a feed that beats until it is told not to.
pub struct Relay {
    pub writer: Writer,
    at: Arc<tokio::sync::Mutex<(String, u64)>>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    pub async fn start(redis: &Redis) -> Self {
        let address = redis.url("control", "test").parse().unwrap();
        let writer = Writer::new(&address, Duration::from_secs(5)).unwrap();
        let at = Arc::new(tokio::sync::Mutex::new(("e1".to_owned(), 0)));
        writer.begin("e1", &[]).await.unwrap();
        writer.beat("e1", 0).await.unwrap();
        let (beating, known) = (writer.clone(), Arc::clone(&at));
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let known = known.lock().await;
                // A Redis that a test stopped is no reason to stop.
                beating.beat(&known.0, known.1).await.unwrap_or_default();
            }
        });
        Self { writer, at, task }
    }

    pub async fn publish(&self, change: Change) {
        let mut at = self.at.lock().await;
        at.1 = self.writer.publish(&at.0, at.1, &[change]).await.unwrap();
    }

    /// A new epoch, as after a Redis that lost its data.
    pub async fn begin(&self, epoch: &str, denied: &[Denied]) {
        let mut at = self.at.lock().await;
        // The connection may have to be made anew.
        until("the new epoch to begin", async || self.writer.begin(epoch, denied).await.ok()).await;
        self.writer.beat(epoch, 0).await.unwrap();
        *at = (epoch.to_owned(), 0);
    }

    /// The relay is away: no heartbeat any more.
    pub fn fall_silent(&self) {
        self.task.abort();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
