//! What a running instance is: its ports, its secrets, its folders. Written to its directory (for its owner's
//! eyes only), so that `up --check` and people find it. Starts nothing.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

/// Where the limiter's windows live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limiter {
    /// In Redis, shared by all sidecars.
    Redis,
    /// In the one sidecar.
    Memory,
}

/// Loopback ports of an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Envoy: what clients call.
    pub gateway: u16,
    /// Envoy's admin page.
    pub envoy_admin: u16,
    /// The control API's public listener, behind Envoy.
    pub control: u16,
    /// Its internal listener, for the sidecar.
    pub control_internal: u16,
    /// Its admin listener.
    pub control_admin: u16,
    /// The sidecar.
    pub sidecar: u16,
    /// Its admin listener.
    pub sidecar_admin: u16,
    /// The worker's admin listener.
    pub worker_admin: u16,
    /// PostgreSQL.
    pub postgres: u16,
    /// Redis.
    pub redis: u16,
    /// Where Envoy mirrors requests to while somebody listens there (`up --check`).
    pub capture: u16,
}

/// Passwords of an instance, made when it is first started. Hexadecimal, so that they need no quoting.
#[derive(Clone, Serialize, Deserialize)]
pub struct Secrets {
    /// PostgreSQL's superuser `postgres`.
    pub superuser: String,
    /// Owns the schema.
    pub owner: String,
    /// The services' ordinary role.
    pub app: String,
    /// The role of operations across tenants.
    pub admin: String,
    /// The role of background jobs.
    pub system: String,
    /// Redis users.
    pub redis_sidecar: String,
    /// See above.
    pub redis_control: String,
    /// See above.
    pub redis_worker: String,
    /// Redis' admin, whom no service uses.
    pub redis_admin: String,
    /// Encrypts signing keys at rest: 32 bytes.
    pub key: String,
    /// Knows API keys: 32 bytes.
    #[serde(default)]
    pub pepper: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl Secrets {
    fn make() -> anyhow::Result<Self> {
        Ok(Self {
            superuser: random()?,
            owner: random()?,
            app: random()?,
            admin: random()?,
            system: random()?,
            redis_sidecar: random()?,
            redis_control: random()?,
            redis_worker: random()?,
            redis_admin: random()?,
            key: random()?,
            pepper: random()?,
        })
    }

    /// The same password everywhere; the key stays random.
    pub fn all(password: &str) -> anyhow::Result<Self> {
        let same = || password.to_owned();
        Ok(Self {
            superuser: same(),
            owner: same(),
            app: same(),
            admin: same(),
            system: same(),
            redis_sidecar: same(),
            redis_control: same(),
            redis_worker: same(),
            redis_admin: same(),
            key: random()?,
            pepper: random()?,
        })
    }

    /// Those of the instance at `dir`: made once, since its database keeps them.
    pub fn of(dir: &Path) -> anyhow::Result<Self> {
        let file = dir.join("secrets.json");
        let secrets = if file.exists() {
            let secrets: Self = read(&file)?;
            if !secrets.pepper.is_empty() {
                return Ok(secrets);
            }
            // Of an instance from before there were API keys.
            Self { pepper: random()?, ..secrets }
        } else {
            Self::make()?
        };
        write(&file, &secrets)?;
        Ok(secrets)
    }
}

/// The platform's own OAuth client.
#[derive(Clone, Serialize, Deserialize)]
pub struct Client {
    /// Its id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
}

impl Client {
    /// Before the control API has made one.
    pub fn none() -> Self {
        Self { client_id: String::new(), client_secret: String::new() }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.client_id)
    }
}

/// A running instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Its ports.
    pub ports: Ports,
    /// Where limits are counted.
    pub limiter: Limiter,
    /// Its passwords.
    pub secrets: Secrets,
    /// Who may make tenants.
    pub platform: Client,
    /// PostgreSQL's `psql`.
    pub psql: PathBuf,
    /// Redis' `redis-cli`.
    pub redis_cli: PathBuf,
}

/// The database of the services.
pub const DATABASE: &str = "gatehouse";

impl Instance {
    /// The gateway's address for clients.
    pub fn gateway(&self) -> String {
        url(self.ports.gateway)
    }

    /// A database URL for `role` (without the prefix `gatehouse_`) or `postgres`.
    pub fn database(&self, role: &str) -> String {
        let (user, password) = match role {
            "owner" => ("gatehouse_owner", &self.secrets.owner),
            "app" => ("gatehouse_app", &self.secrets.app),
            "admin" => ("gatehouse_admin", &self.secrets.admin),
            "system" => ("gatehouse_system", &self.secrets.system),
            _ => ("postgres", &self.secrets.superuser),
        };
        format!("postgres://{user}:{password}@127.0.0.1:{}/{DATABASE}", self.ports.postgres)
    }

    /// A Redis URL for the user `sidecar`, `control`, `worker` or `admin`.
    pub fn redis(&self, user: &str) -> String {
        let password = match user {
            "sidecar" => &self.secrets.redis_sidecar,
            "control" => &self.secrets.redis_control,
            "worker" => &self.secrets.redis_worker,
            _ => &self.secrets.redis_admin,
        };
        format!("redis://{user}:{password}@127.0.0.1:{}", self.ports.redis)
    }

    /// The worker's own folder.
    pub fn worker_dir(&self) -> PathBuf {
        worker_dir(&self.dir)
    }

    /// What logs and leases call the worker.
    pub fn worker_id(&self) -> String {
        format!("up-{}", tag(&self.dir))
    }

    /// Where images are published.
    pub fn image_store(&self) -> PathBuf {
        self.dir.join("images")
    }

    /// What Envoy answered, one JSON object per line.
    pub fn access_log(&self) -> PathBuf {
        self.dir.join("log/access.jsonl")
    }

    /// The file of [`Secrets::key`].
    pub fn key_file(&self) -> PathBuf {
        self.dir.join("signing.key")
    }

    /// The file of [`Secrets::pepper`].
    pub fn peppers_file(&self) -> PathBuf {
        self.dir.join("peppers.json")
    }

    /// Writes the record.
    pub fn save(&self) -> anyhow::Result<()> {
        write(&file(&self.dir), self)
    }

    /// The record of the instance at `dir`, if it was ever started.
    pub fn load(dir: &Path) -> anyhow::Result<Option<Self>> {
        let file = file(dir);
        if file.exists() { read(&file).map(Some) } else { Ok(None) }
    }
}

/// A short name for an instance's directory that no other directory has.
pub fn tag(dir: &Path) -> String {
    let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The folder of the worker whose instance is at `dir`.
pub fn worker_dir(dir: &Path) -> PathBuf {
    dir.join("worker")
}

fn file(dir: &Path) -> PathBuf {
    dir.join("instance.json")
}

/// `http://127.0.0.1:PORT`.
pub fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// 256 random bits in hexadecimal.
fn random() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("reading /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes JSON that only its owner can read.
pub fn write(file: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    write_secret(file, &format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Writes a file that only its owner can read. It is replaced whole.
pub fn write_secret(file: &Path, text: &str) -> anyhow::Result<()> {
    let beside = file.with_extension("new");
    let context = || format!("writing {}", file.display());
    if beside.exists() {
        fs::remove_file(&beside).with_context(context)?;
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut open| open.write_all(text.as_bytes()))
        .with_context(context)?;
    fs::rename(&beside, file).with_context(context)
}

fn read<T: DeserializeOwned>(file: &Path) -> anyhow::Result<T> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!("{} is of another version; remove {}", file.display(), file.display())
    })
}
