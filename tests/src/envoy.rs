//! A real Envoy with the compiled filter, on the bootstrap that `cargo xtask` renders for `up`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use gatehouse_xtask::render::{Document, envoy};
use serde_json::Value;

use crate::{
    env,
    process::Process,
    wait::{self, address, is_ok},
};

/// A running Envoy.
#[derive(Debug)]
pub struct Gateway {
    /// Its process.
    pub process: Process,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Its own pages.
    pub admin: SocketAddr,
}

/// What an Envoy is started with.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// The bootstrap.
    pub file: PathBuf,
    listen: SocketAddr,
    admin: SocketAddr,
    /// How many workers it has.
    pub workers: u8,
}

/// Where the bootstrap keeps the HTTP connection manager.
const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

impl Configuration {
    /// Changes the bootstrap.
    pub fn patch(&self, change: impl FnOnce(&mut Value) -> Option<()>) -> Result<()> {
        let mut bootstrap: Value = serde_json::from_slice(&std::fs::read(&self.file)?)?;
        change(&mut bootstrap).context("the bootstrap is not as the patch expects")?;
        std::fs::write(&self.file, format!("{bootstrap:#}"))?;
        Ok(())
    }
}

/// The HTTP connection manager of a bootstrap.
pub fn manager(bootstrap: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    bootstrap.pointer_mut(MANAGER)?.as_object_mut()
}

/// The first cluster of this name.
pub fn cluster<'a>(
    bootstrap: &'a mut Value,
    name: &str,
) -> Option<&'a mut serde_json::Map<String, Value>> {
    let clusters = bootstrap.pointer_mut("/static_resources/clusters")?.as_array_mut()?;
    clusters
        .iter_mut()
        .find(|cluster| cluster.get("name").is_some_and(|n| n == name))?
        .as_object_mut()
}

/// Takes the clusters of this name away.
pub fn drop_cluster(bootstrap: &mut Value, name: &str) -> Option<()> {
    let clusters = bootstrap.pointer_mut("/static_resources/clusters")?.as_array_mut()?;
    clusters.retain(|cluster| cluster.get("name").is_none_or(|n| n != name));
    Some(())
}

/// Writes the bootstrap of `module` into `dir`, with free ports.
pub fn configuration(
    dir: &Path,
    module: &Path,
    document: &Value,
    upstream: SocketAddr,
    sidecar: SocketAddr,
) -> Result<Configuration> {
    let (listen, admin) = (address()?, address()?);
    let bootstrap = envoy::bootstrap(&envoy::Gateway {
        listen,
        admin,
        control_api: upstream,
        sidecar,
        suite: module,
        document: &Document::parse(&document.to_string())?,
    });
    let file = dir.join("envoy.json");
    std::fs::write(&file, format!("{bootstrap:#}"))?;
    Ok(Configuration { file, listen, admin, workers: 2 })
}

/// Writes the bootstrap of an Envoy that only routes to `upstream`: somebody else's, in front of a gateway.
pub fn bare(dir: &Path, upstream: SocketAddr) -> Result<Configuration> {
    let (listen, admin) = (address()?, address()?);
    let bootstrap = envoy::bare(&envoy::Gateway {
        listen,
        admin,
        control_api: upstream,
        sidecar: upstream,
        suite: Path::new(""),
        document: &Document::parse("{}")?,
    });
    let file = dir.join("front.json");
    std::fs::write(&file, format!("{bootstrap:#}"))?;
    Ok(Configuration { file, listen, admin, workers: 1 })
}

impl Gateway {
    /// Starts it with the filter under this document and waits until it serves.
    pub fn start(
        dir: &Path,
        document: &Value,
        upstream: SocketAddr,
        sidecar: SocketAddr,
    ) -> Result<Self> {
        let suite = env::path(env::SUITE)?;
        Self::run(dir, configuration(dir, &suite, document, upstream, sidecar)?)
    }

    /// Starts it with a configuration and waits until it serves.
    pub fn run(dir: &Path, configuration: Configuration) -> Result<Self> {
        let Configuration { file, listen, admin, workers } = configuration;
        let mut command = Command::new(env::path(env::ENVOY)?);
        command.arg("--config-path").arg(&file).args([
            "--concurrency",
            &workers.to_string(),
            "--disable-hot-restart",
            "--log-level",
            "info",
        ]);
        let mut process = Process::start("envoy", dir, command)?;
        let ready = format!("http://{admin}/ready");
        process.wait_ready(|| is_ok(&ready) && wait::accepts(listen))?;
        Ok(Self { process, listen, admin })
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// One of its statistics; 0 when it was never counted.
    pub fn stat(&self, name: &str) -> Result<u64> {
        let url = format!("http://{}/stats?format=json&usedonly", self.admin);
        let stats: Value = ureq::get(&url).call()?.body_mut().read_json()?;
        let all = stats.get("stats").and_then(Value::as_array).context("no stats")?;
        let found = all.iter().find(|stat| stat.get("name").is_some_and(|n| n == name));
        Ok(found.and_then(|stat| stat.get("value")).and_then(Value::as_u64).unwrap_or(0))
    }
}
