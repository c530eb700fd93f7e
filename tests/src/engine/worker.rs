//! One worker of an engine: its process, that may end in any way and begin again, and what its driver wrote down. Its wall
//! clock may be wrong. Knows nothing of what it does.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    env, fleet,
    process::Process,
    wait::{address, is_ok},
};

/// What runs agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// A pretence that is written down.
    Sim,
    /// gVisor.
    Runsc,
}

impl Driver {
    /// Its members of the configuration.
    pub fn members(self, tenants: &[String]) -> Result<Value> {
        Ok(match self {
            Self::Sim => json!({"driver": "sim", "demo_tenants": tenants}),
            Self::Runsc => json!({"driver": "runsc", "runsc": env::path(env::RUNSC)?}),
        })
    }
}

/// A worker.
#[derive(Debug)]
pub struct Worker {
    /// Its process, as long as it runs.
    pub process: Process,
    /// Its name in logs and leases, the same at every start.
    pub name: String,
    /// Its own pages.
    pub admin: SocketAddr,
    /// How events name this start of it: `worker:` and the incarnation.
    pub subject: String,
    dir: PathBuf,
    config: Value,
    skew_s: i64,
    starts: u32,
}

impl Worker {
    /// Starts one and waits until it is ready. Its wall clock is `skew_s` seconds ahead of the machine's.
    pub fn start(dir: &Path, name: &str, config: Value, skew_s: i64) -> Result<Self> {
        let (process, admin, subject) = serve(dir, name, 0, &config, skew_s)?;
        let (dir, name) = (dir.to_owned(), name.to_owned());
        Ok(Self { process, name, admin, subject, dir, config, skew_s, starts: 1 })
    }

    /// Starts it again after its end, with the same name, folder and configuration.
    pub fn again(&mut self) -> Result<()> {
        let begun = serve(&self.dir, &self.name, self.starts, &self.config, self.skew_s)?;
        (self.process, self.admin, self.subject) = begun;
        self.starts += 1;
        Ok(())
    }

    /// Puts these members over its configuration, for the next start.
    pub fn change(&mut self, more: &Value) {
        fleet::merge(&mut self.config, more);
    }

    /// What its driver wrote down in all its starts.
    pub fn journal(&self) -> Result<String> {
        let path = self.dir.join(&self.name).join("sim.log");
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Its resident memory, in bytes.
    pub fn rss(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmRSS")?;
        Ok(kib.parse::<u64>()? * 1024)
    }
}

fn serve(
    dir: &Path,
    name: &str,
    starts: u32,
    config: &Value,
    skew_s: i64,
) -> Result<(Process, SocketAddr, String)> {
    let admin = address()?;
    let mut config = config.clone();
    fleet::merge(&mut config, &json!({"admin_listen": admin}));
    let file = dir.join(format!("{name}.json"));
    std::fs::write(&file, format!("{config:#}"))?;
    let program = env::path(env::BIN)?.join("gatehouse-execution-worker");
    ensure!(program.exists(), "{} is not built", program.display());
    let mut command = Command::new(program);
    command.arg("serve").arg("--config").arg(&file);
    if skew_s != 0 {
        command.env("LD_PRELOAD", skew(dir)?).env("GATEHOUSE_SKEW_S", skew_s.to_string());
    }
    let mut process = Process::start(&format!("{name}-{starts}"), dir, command)?;
    let ready = format!("http://{admin}/readyz");
    process.wait_ready(|| is_ok(&ready))?;
    let log = process.log();
    let started = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut named =
        started.filter(|line| line.get("message").is_some_and(|said| said == "started"));
    let named = named.find_map(|line| Some(line.get("worker")?.as_str()?.to_owned()));
    let incarnation = named.context("the worker does not say its name")?;
    Ok((process, admin, format!("worker:{incarnation}")))
}

/// What moves a process's wall clock, compiled once per folder.
fn skew(dir: &Path) -> Result<PathBuf> {
    let library = dir.join("skew.so");
    if !library.exists() {
        let source = dir.join("skew.c");
        std::fs::write(&source, include_str!("skew.c"))?;
        let mut cc = Command::new("cc");
        let built = cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).status();
        ensure!(built.context("running cc")?.success(), "{} does not compile", source.display());
    }
    Ok(library)
}
