//! Our own services as processes of a world: configured as `cargo xtask up` configures them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{AUDIENCE, Client, Database, ISSUER, Limiter, Plan, Redis};
use crate::{
    env,
    process::Process,
    wait::{address, is_ok},
};

/// Signs keys at rest in tests only.
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Knows API keys in tests only.
const PEPPER: &str = "1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100";

/// How long the filter waits for the sidecar; the product's defaults are 50, and 1000 for identities.
pub(super) const CALL_OUT_MS: u64 = 3000;
/// How long the sidecar waits for Redis; the product's default is 25.
const REDIS_TIMEOUT_MS: u64 = 500;

pub(super) struct Services<'a> {
    pub dir: &'a Path,
    pub plan: Plan,
    pub database: &'a Database,
    pub redis: Option<&'a Redis>,
    pub images: &'a Path,
}

pub(super) struct Control {
    pub process: Process,
    pub listen: SocketAddr,
    pub internal: SocketAddr,
    pub admin: SocketAddr,
    pub platform: Client,
}

pub(super) struct Sidecar {
    pub process: Process,
    pub listen: SocketAddr,
}

impl Services<'_> {
    fn program(&self, name: &str) -> Result<Command> {
        let path = env::path(env::BIN)?.join(format!("gatehouse-{name}"));
        ensure!(path.exists(), "{} is not built: run `cargo xtask test`", path.display());
        Ok(Command::new(path))
    }

    fn write(&self, name: &str, config: &Value) -> Result<PathBuf> {
        let path = self.dir.join(format!("{name}.json"));
        std::fs::write(&path, format!("{config:#}"))?;
        Ok(path)
    }

    pub fn migrate(&self) -> Result<()> {
        let mut command = self.program("control-api")?;
        command.args(["migrate", "--database", &self.database.url("owner")]);
        succeeded("control-api migrate", &mut command).map(drop)
    }

    fn peppers(&self) -> Result<PathBuf> {
        self.write("peppers", &json!({"current": "p1", "peppers": {"p1": PEPPER}}))
    }

    /// `more` members go on top of the configuration.
    pub fn control(&self, more: Value) -> Result<Control> {
        let (listen, internal, admin) = (address()?, address()?, address()?);
        let key_file = self.dir.join("signing.key");
        std::fs::write(&key_file, KEY)?;
        let peppers = self.peppers()?;
        let mut config = json!({
            "listen": listen,
            "internal_listen": internal,
            "admin_listen": admin,
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "token_ttl_s": 900,
            "key_publish_ahead_s": 0,
            "database": {
                "app": self.database.url("app"),
                "admin": self.database.url("admin"),
                "system": self.database.url("system"),
            },
            "key_file": key_file,
            "peppers_file": peppers,
            "image_store": self.images,
        });
        // Without Redis there is no feed: the sidecar asks for every credential again.
        if let (Some(redis), Some(members)) = (self.redis, config.as_object_mut()) {
            members.insert("redis".to_owned(), json!({"url": redis.url("control")}));
        }
        if let (Value::Object(more), Some(members)) = (more, config.as_object_mut()) {
            members.extend(more);
        }
        let config = self.write("control-api", &config)?;
        let mut bootstrap = self.program("control-api")?;
        bootstrap.arg("bootstrap").arg("--config").arg(&config).args(["--name", "platform"]);
        let made = succeeded("control-api bootstrap", &mut bootstrap)?;
        let made: Value = serde_json::from_slice(&made.stdout).context("bootstrap's answer")?;
        let platform = Client::read(&made)?;
        let process = self.serve("control-api", &config, admin)?;
        Ok(Control { process, listen, internal, admin, platform })
    }

    pub fn sidecar(&self, keys: SocketAddr, internal: SocketAddr) -> Result<Sidecar> {
        let (listen, admin) = (address()?, address()?);
        let store = match (self.plan.limiter, self.redis) {
            (Limiter::Redis, Some(redis)) => {
                let mut load = self.program("ratelimit-sidecar")?;
                load.args(["load-functions", "--url", &redis.url("admin")]);
                succeeded("ratelimit-sidecar load-functions", &mut load)?;
                json!({"kind": "redis", "url": redis.url("sidecar")})
            }
            _ => json!({"kind": "memory", "sidecars": 1}),
        };
        let config = self.write(
            "ratelimit-sidecar",
            &json!({
                "listen": listen,
                "admin_listen": admin,
                "store": store,
                "issuers": [{
                    "issuer": ISSUER,
                    "jwks": format!("http://{keys}/.well-known/jwks.json"),
                }],
                "control_api": {"internal": format!("http://{internal}")},
                "peppers_file": self.peppers()?,
                "last_used_s": 1,
                "redis_timeout_ms": REDIS_TIMEOUT_MS,
            }),
        )?;
        let process = self.serve("ratelimit-sidecar", &config, admin)?;
        Ok(Sidecar { process, listen })
    }

    pub fn worker(&self) -> Result<Process> {
        let admin = address()?;
        let redis = self.redis.context("the worker needs a Redis")?;
        let config = self.write(
            "execution-worker",
            &json!({
                "admin_listen": admin,
                "database": {"app": self.database.url("app"), "system": self.database.url("system")},
                "redis": redis.url("worker"),
                "key_file": self.dir.join("signing.key"),
                "image_store": self.images,
                "state_dir": self.dir.join("worker"),
                "runsc": env::path(env::RUNSC)?,
                "concurrency": 4,
            }),
        )?;
        self.serve("execution-worker", &config, admin)
    }

    fn serve(&self, name: &str, config: &Path, admin: SocketAddr) -> Result<Process> {
        let mut command = self.program(name)?;
        command.arg("serve").arg("--config").arg(config);
        let mut process = Process::start(name, self.dir, command)?;
        let ready = format!("http://{admin}/readyz");
        process.wait_ready(|| is_ok(&ready))?;
        Ok(process)
    }
}

fn succeeded(what: &str, command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("running {what}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what}: {}: {errors}", output.status);
    Ok(output)
}
