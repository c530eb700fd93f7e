//! Our own services as processes: what is built, what each is configured with, when each is ready. Knows their
//! command lines and configuration documents, and nothing of what they decide.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    child::{Part, Start},
    instance::{Client, Instance, Limiter, url, write, write_secret},
    record::Run,
};
use crate::{
    command, http, repo,
    report::{Faults, exit},
};

/// Built together, so that cargo unifies their features once.
const PACKAGES: &[&str] =
    &["gatehouse-control-api", "gatehouse-ratelimit-sidecar", "gatehouse-execution-worker"];
/// A first build of everything on two cores.
const BUILD: Duration = Duration::from_secs(45 * 60);
const READY: Duration = Duration::from_secs(60);

/// Builds the services; the folder of their binaries. Under `xtask test` everything is built already: another build
/// would replace binaries that other tests are running.
pub fn build() -> anyhow::Result<PathBuf> {
    if let Some(bin) = repo::built("GATEHOUSE_TEST_BIN") {
        return Ok(bin);
    }
    let root = repo::root()?;
    let mut cargo = repo::cargo(&root);
    cargo.args(["build", "--locked"]);
    for package in PACKAGES {
        cargo.args(["--package", package]);
    }
    command::run(&mut cargo, "cargo build of the services", BUILD)?;
    Ok(repo::target(&root).join("debug"))
}

/// The services of one instance.
pub struct Services<'a> {
    /// The instance.
    pub instance: &'a Instance,
    /// The folder of the binaries.
    pub bin: &'a Path,
    /// gVisor.
    pub runsc: &'a Path,
    /// The issuer and audience of the filter's document, which the control API must issue for.
    pub issuer: &'a str,
    /// See above.
    pub audience: &'a str,
}

impl Services<'_> {
    fn program(&self, name: &str) -> Command {
        Command::new(self.bin.join(format!("gatehouse-{name}")))
    }

    fn config_file(&self, name: &str) -> PathBuf {
        self.instance.dir.join(format!("config/{name}.json"))
    }

    fn write_config(&self, name: &str, config: &Value) -> anyhow::Result<PathBuf> {
        let file = self.config_file(name);
        fs::create_dir_all(self.instance.dir.join("config")).context("making the config folder")?;
        write(&file, config)?;
        Ok(file)
    }

    /// Brings the schema up to date.
    pub fn migrate(&self) -> anyhow::Result<()> {
        let mut migrate = self.program("control-api");
        // Never on the command line, where every user of the machine could read it.
        migrate.arg("migrate").env("GATEHOUSE_MIGRATE_DATABASE", self.instance.database("owner"));
        let done = command::output(&mut migrate, "control-api migrate", Duration::from_secs(120))?;
        if done.status.success() {
            return Ok(());
        }
        let line = format!(
            "{}; if the database is of another version, begin anew with --reset",
            command::last_lines(&done.stderr, 1)
        );
        Err(Faults::one(exit::UNAVAILABLE, line).into())
    }

    /// The platform's client, made on the first start.
    pub fn bootstrap(&self) -> anyhow::Result<Client> {
        let kept = self.instance.dir.join("platform.json");
        let config = self.control_config()?;
        let ask = |rotate: bool| {
            let mut bootstrap = self.program("control-api");
            bootstrap.arg("bootstrap").arg("--config").arg(&config).args(["--name", "platform"]);
            if rotate {
                bootstrap.arg("--rotate-secret");
            }
            command::run(&mut bootstrap, "control-api bootstrap", Duration::from_secs(60))
        };
        let made = |answer: &str| serde_json::from_str::<Client>(answer).ok();
        let client = match made(&ask(false)?) {
            Some(client) => client,
            // It was there: the secret was shown once, and we kept it.
            None => match fs::read_to_string(&kept).ok().as_deref().and_then(made) {
                Some(client) => return Ok(client),
                None => made(&ask(true)?).context("control-api bootstrap showed no secret")?,
            },
        };
        write(&kept, &client)?;
        Ok(client)
    }

    fn control_config(&self) -> anyhow::Result<PathBuf> {
        let Instance { ports, secrets, .. } = self.instance;
        let key = self.instance.key_file();
        if !key.exists() {
            write_secret(&key, &secrets.key)?;
        }
        let peppers = self.instance.peppers_file();
        if !peppers.exists() {
            write(&peppers, &json!({"current": "p1", "peppers": {"p1": secrets.pepper}}))?;
        }
        fs::create_dir_all(self.instance.image_store()).context("making the image store")?;
        self.write_config(
            "control-api",
            &json!({
                "listen": address(ports.control),
                "internal_listen": address(ports.control_internal),
                "admin_listen": address(ports.control_admin),
                "issuer": self.issuer,
                "audience": self.audience,
                "token_ttl_s": 900,
                // Long enough for every sidecar and filter on this machine, short enough to watch a rotation.
                "key_publish_ahead_s": 2,
                "database": {
                    "app": self.instance.database("app"),
                    "admin": self.instance.database("admin"),
                    "system": self.instance.database("system"),
                },
                "redis": {"url": self.instance.redis("control")},
                "key_file": key,
                "peppers_file": peppers,
                "image_store": self.instance.image_store(),
            }),
        )
    }

    /// Starts the control API.
    pub fn control(&self, run: &Run) -> anyhow::Result<Part> {
        let config = self.control_config()?;
        self.serve(
            run,
            "control-api",
            "the control API",
            &config,
            self.instance.ports.control_admin,
        )
    }

    /// Starts the sidecar.
    pub fn sidecar(&self, run: &Run) -> anyhow::Result<Part> {
        let Instance { ports, .. } = self.instance;
        let store = match self.instance.limiter {
            Limiter::Redis => json!({"kind": "redis", "url": self.instance.redis("sidecar")}),
            Limiter::Memory => json!({"kind": "memory", "sidecars": 1}),
        };
        let config = self.write_config(
            "ratelimit-sidecar",
            &json!({
                "listen": address(ports.sidecar),
                "admin_listen": address(ports.sidecar_admin),
                "store": store,
                // A developer's machine builds meanwhile: a late answer is better than a refusal.
                "redis_timeout_ms": 500,
                "issuers": [{
                    "issuer": self.issuer,
                    "jwks": format!("{}/.well-known/jwks.json", url(ports.control)),
                }],
                "control_api": {"internal": url(ports.control_internal)},
                "peppers_file": self.instance.peppers_file(),
                // Whoever looks at a key's last use does not want to wait.
                "last_used_s": 1,
            }),
        )?;
        self.serve(run, "ratelimit-sidecar", "the sidecar", &config, ports.sidecar_admin)
    }

    /// Puts the limiter's functions into Redis, as its admin.
    pub fn load_functions(&self) -> anyhow::Result<()> {
        let mut load = self.program("ratelimit-sidecar");
        load.arg("load-functions").env("GATEHOUSE_REDIS_URL", self.instance.redis("admin"));
        command::run(&mut load, "ratelimit-sidecar load-functions", Duration::from_secs(30))
            .map(drop)
    }

    /// Starts the worker.
    pub fn worker(&self, run: &Run) -> anyhow::Result<Part> {
        let Instance { ports, .. } = self.instance;
        let config = self.write_config(
            "execution-worker",
            &json!({
                "admin_listen": address(ports.worker_admin),
                "database": {
                    "app": self.instance.database("app"),
                    "system": self.instance.database("system"),
                },
                "redis": self.instance.redis("worker"),
                "key_file": self.instance.key_file(),
                "image_store": self.instance.image_store(),
                "state_dir": self.instance.worker_dir(),
                "runsc": self.runsc,
                "concurrency": 2,
                "worker_id": self.instance.worker_id(),
                // Shorter than the time that a part is given to end.
                "drain_s": 5,
            }),
        )?;
        self.serve(run, "execution-worker", "the worker", &config, ports.worker_admin)
    }

    fn serve(
        &self,
        run: &Run,
        name: &str,
        title: &'static str,
        config: &Path,
        admin: u16,
    ) -> anyhow::Result<Part> {
        let mut command = self.program(name);
        command.arg("serve").arg("--config").arg(config);
        let mut part = Part::start(
            run,
            Start {
                title,
                log: name,
                stop: Signal::TERM,
                mend: "mend what it says, or begin anew with --reset",
                command,
            },
        )?;
        let ready = format!("{}/readyz", url(admin));
        match part.wait_ready(READY, || http::status(&ready) == Some(200)) {
            Ok(()) => Ok(part),
            Err(error) => {
                part.stop();
                Err(error)
            }
        }
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
