//! A database, a running service and a client for each test. Knows nothing of what is tested.

use std::{
    fs,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    database::Database,
    http::{Answer, agent, send},
};

pub const ISSUER: &str = "https://auth.test";
pub const AUDIENCE: &str = "https://api.test";
/// Nothing that is waited for takes longer on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

pub fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_gatehouse-control-api"))
}

/// Asks until there is an answer, at most as long as anything may take.
pub fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "it does not happen");
        std::thread::yield_now();
    }
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

/// Where a service keeps its files, and the configuration that it starts with.
pub struct Setup {
    pub dir: TempDir,
    pub config: Value,
}

impl Setup {
    pub fn new(database: &Database) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        fs::write(&key, "0f".repeat(32)).unwrap();
        let peppers = dir.path().join("peppers.json");
        let pepper = json!({"current": "p1", "peppers": {"p1": "1e".repeat(32)}});
        fs::write(&peppers, pepper.to_string()).unwrap();
        let images = dir.path().join("images");
        fs::create_dir(&images).unwrap();
        // Port 0: the service takes free ones and says which, so that no two tests can race for one.
        let at = || "127.0.0.1:0";
        let config = json!({
            "listen": at(), "internal_listen": at(), "admin_listen": at(),
            "issuer": ISSUER, "audience": AUDIENCE,
            "database": {
                "app": database.url("gatehouse_app"),
                "admin": database.url("gatehouse_admin"),
            },
            "key_file": key,
            "peppers_file": peppers,
            "key_publish_ahead_s": 0,
            "image_store": images,
        });
        Self { dir, config }
    }

    pub fn file(&self) -> PathBuf {
        let file = self.dir.path().join("control-api.json");
        fs::write(&file, self.config.to_string()).unwrap();
        file
    }

    /// Runs `serve` until it ends by itself.
    pub fn refused(&self) -> Output {
        let child = binary()
            .args(["serve", "--config"])
            .arg(self.file())
            .env("RUST_LOG", "off")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let id = child.id();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        match receiver.recv_timeout(DEADLINE) {
            Ok(output) => output.unwrap(),
            Err(_) => {
                kill("-KILL", id);
                panic!("the service started although it must not");
            }
        }
    }

    pub fn bootstrap(&self, more: &[&str]) -> Value {
        let mut command = binary();
        command.arg("bootstrap").arg("--config").arg(self.file()).args(["--name", "ops"]);
        let out = command.args(more).output().unwrap();
        assert!(out.status.success(), "{out:?}");
        serde_json::from_slice(&out.stdout).unwrap()
    }
}

/// A running service.
pub struct Service {
    child: Child,
    /// Its log so far, and what comes.
    lines: Mutex<mpsc::Receiver<String>>,
    /// What was read of it before anyone asked.
    seen: Vec<String>,
    pub url: String,
    pub internal: String,
    pub admin: String,
}

impl Service {
    pub fn start(setup: &Setup) -> Self {
        let mut child = binary()
            .args(["serve", "--config"])
            .arg(setup.file())
            .env("RUST_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut service = Self {
            child,
            lines: Mutex::new(lines),
            seen: Vec::new(),
            url: String::new(),
            internal: String::new(),
            admin: String::new(),
        };
        service.learn_addresses();
        let start = Instant::now();
        while !service.is_ready() {
            if let Some(status) = service.child.try_wait().unwrap() {
                panic!("the service ended with {status}: {:?}", service.log());
            }
            assert!(start.elapsed() < DEADLINE, "not ready: {:?}", service.log());
            std::thread::yield_now();
        }
        service
    }

    fn learn_addresses(&mut self) {
        while [&self.url, &self.internal, &self.admin].iter().any(|url| url.is_empty()) {
            let line = self.lines.get_mut().unwrap().recv_timeout(DEADLINE);
            let line = line.unwrap_or_else(|_| panic!("it does not listen: {:?}", self.seen));
            // What is no JSON is the reason why it does not start: kept for the message above.
            let fields: Value = serde_json::from_str(&line).unwrap_or_default();
            self.seen.push(line);
            if fields["message"] == "listening" {
                let url = format!("http://{}", fields["address"].as_str().unwrap());
                match fields["listener"].as_str().unwrap() {
                    "listen" => self.url = url,
                    "internal_listen" => self.internal = url,
                    "admin_listen" => self.admin = url,
                    other => panic!("an unknown listener {other}"),
                }
            }
        }
    }

    fn is_ready(&self) -> bool {
        let request = agent().get(&format!("{}/readyz", self.admin));
        request.call().is_ok_and(|answer| answer.status() == 200)
    }

    /// What it logged since the last call.
    pub fn log(&mut self) -> Vec<String> {
        let mut log = std::mem::take(&mut self.seen);
        log.extend(self.lines.get_mut().unwrap().try_iter());
        log
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, and no wait.
    pub fn tell_to_stop(&self) {
        kill("-TERM", self.child.id());
    }

    /// SIGTERM, and how it ended.
    pub fn stop(mut self) -> ExitStatus {
        kill("-TERM", self.child.id());
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < DEADLINE, "it does not stop: {:?}", self.log());
            std::thread::yield_now();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

fn kill(signal: &str, id: u32) {
    // The shell's own: a minimal Debian has no program of this name.
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"kill "$0" "$1""#, signal, &id.to_string()]);
    assert!(shell.status().unwrap().success());
}

/// A whole world: its platform's operator and the means to make tenants.
pub struct World {
    pub service: Service,
    pub setup: Setup,
    pub database: Database,
    /// The platform's token.
    pub platform: String,
}

/// A tenant with its id and a token per role asked for.
pub struct Tenant {
    pub id: String,
}

impl World {
    pub fn new() -> Self {
        let database = Database::migrated();
        let setup = Setup::new(&database);
        Self::of(database, setup)
    }

    /// With a service that is set up like this.
    pub fn of(database: Database, setup: Setup) -> Self {
        let operator = setup.bootstrap(&[]);
        let service = Service::start(&setup);
        let mut world = Self { service, setup, database, platform: String::new() };
        world.platform = world.token_of(&operator);
        world
    }

    /// `POST /oauth2/token` by HTTP Basic.
    pub fn ask_token(&self, id: &str, secret: &str) -> Answer {
        let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
        let headers = [
            ("authorization", basic.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        let body = Some("grant_type=client_credentials");
        send("POST", &format!("{}/oauth2/token", self.service.url), &headers, body)
    }

    pub fn token_of(&self, client: &Value) -> String {
        let (id, secret) = (&client["client_id"], &client["client_secret"]);
        let answer = self.ask_token(id.as_str().unwrap(), secret.as_str().unwrap());
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// A call with a token and an optional JSON body.
    pub fn call(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let bearer = format!("Bearer {token}");
        let url = format!("{}{path}", self.service.url);
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(whatever_is_there(method));
        let body = body.map(|body| body.to_string());
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        send(method, &url, &headers, body.as_deref())
    }

    pub fn get(&self, token: &str, path: &str) -> Answer {
        self.call(token, "GET", path, None)
    }

    pub fn post(&self, token: &str, path: &str, body: Value) -> Answer {
        self.call(token, "POST", path, Some(body))
    }

    pub fn tenant(&self, slug: &str) -> Tenant {
        let body = json!({"name": slug, "slug": slug, "tier": "free"});
        let made = self.post(&self.platform, "/api/v1/factory/tenants", body);
        assert_eq!(made.status, 202, "{}", made.text);
        Tenant { id: made.json()["tenant_id"].as_str().unwrap().to_owned() }
    }

    /// A client of the tenant with this role, and its token.
    pub fn member(&self, tenant: &Tenant, role: &str) -> String {
        self.token_of(&self.client(tenant, role))
    }

    /// A client of the tenant with this role, and its secret.
    pub fn client(&self, tenant: &Tenant, role: &str) -> Value {
        let path = format!("/api/v1/factory/tenants/{}/clients", tenant.id);
        let body = json!({"name": role, "role": role});
        let made = self.as_platform("POST", &path, "a test's client", Some(body));
        assert_eq!(made.status, 201, "{}", made.text);
        made.json()
    }

    /// A user of the tenant with this role: its id.
    pub fn user(&self, tenant: &Tenant, role: &str) -> String {
        let path = format!("/api/v1/factory/tenants/{}/users", tenant.id);
        let email = format!("{}@example.com", uuid::Uuid::new_v4().simple());
        let body = json!({"email": email, "role": role});
        let made = self.as_platform("POST", &path, "a test's user", Some(body));
        assert_eq!(made.status, 201, "{}", made.text);
        made.json()["id"].as_str().unwrap().to_owned()
    }

    /// A call of the platform for another tenant.
    pub fn as_platform(
        &self,
        method: &str,
        path: &str,
        reason: &str,
        body: Option<Value>,
    ) -> Answer {
        let bearer = format!("Bearer {}", self.platform);
        let mut headers = vec![("authorization", bearer.as_str()), ("x-gatehouse-reason", reason)];
        headers.extend(whatever_is_there(method));
        let body = body.map(|body| body.to_string());
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        send(method, &format!("{}{path}", self.service.url), &headers, body.as_deref())
    }

    /// A call with an API key.
    pub fn by_key(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let url = format!("{}{path}", self.service.url);
        let mut headers = vec![("x-api-key", key)];
        headers.extend(whatever_is_there(method));
        let body = body.map(|body| body.to_string());
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        send(method, &url, &headers, body.as_deref())
    }

    /// What a sidecar asks about a credential.
    pub fn ask_principal(&self, ask: &Value) -> Answer {
        let url = format!("{}/internal/v1/principal", self.service.internal);
        send("POST", &url, &[("content-type", "application/json")], Some(&ask.to_string()))
    }

    /// Puts an image of one manifest into the tenant's store and returns `name@sha256:…`.
    pub fn image(&self, tenant: &Tenant, name: &str, digit: char) -> String {
        let hex = digit.to_string().repeat(64);
        let layout = self.setup.dir.path().join("images").join(&tenant.id).join(name);
        write(&layout.join("blobs/sha256").join(&hex), "{}");
        let digest = format!("sha256:{hex}");
        let index = json!({"schemaVersion": 2, "manifests": [{"digest": digest, "size": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json"}]});
        write(&layout.join("index.json"), &index.to_string());
        format!("{name}@{digest}")
    }

    /// An agent with version 1.0.0, ready to run: the agent's id.
    pub fn published(&self, tenant: &Tenant, token: &str, name: &str) -> String {
        let made = self.post(token, "/api/v1/registry/agents", json!({"name": name}));
        assert_eq!(made.status, 201, "{}", made.text);
        let agent = made.json()["id"].as_str().unwrap().to_owned();
        let image = self.image(tenant, name, 'a');
        let path = format!("/api/v1/registry/agents/{agent}/versions");
        let version = self.post(token, &path, json!({"version": "1.0.0", "image": image}));
        assert_eq!(version.status, 201, "{}", version.text);
        agent
    }
}

/// What changes something names its state; here any.
fn whatever_is_there(method: &str) -> Option<(&'static str, &'static str)> {
    matches!(method, "PUT" | "PATCH").then_some(("if-match", "*"))
}

fn write(file: &Path, text: &str) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}
