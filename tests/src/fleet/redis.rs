//! A Redis that can be killed and started again on its port, with what it held or without. Real, private, with the
//! users and rights of `contract::acl`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use gatehouse_contract::acl::{self, Passwords};

use crate::{env, process::Process, wait};

/// The password of every user in a test.
pub const PASSWORD: &str = "test";

/// The server.
#[derive(Debug)]
pub struct Redis {
    /// Its process; a test may stop it.
    pub process: Process,
    /// Its port.
    pub port: u16,
    dir: PathBuf,
}

impl Redis {
    /// Starts one that keeps every write (`appendonly`), so that it can come back with what it held.
    pub fn start(dir: &Path, name: &str) -> Result<Self> {
        Self::with(dir, name, "")
    }

    /// Starts one with further lines of configuration.
    pub fn with(dir: &Path, name: &str, lines: &str) -> Result<Self> {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir)?;
        let port = wait::free_port()?;
        let users = acl::file(&Passwords {
            admin: PASSWORD,
            sidecar: PASSWORD,
            control: PASSWORD,
            worker: PASSWORD,
        })?;
        let text = format!(
            "bind 127.0.0.1\nport {port}\ndir {}\nsave \"\"\nappendonly yes\nappendfsync everysec\n\
             maxmemory-policy noeviction\n{users}{lines}",
            dir.display()
        );
        std::fs::write(dir.join("redis.conf"), text)?;
        let process = serve(&dir, port)?;
        Ok(Self { process, port, dir })
    }

    /// Starts it again after it was killed: with what it held, or with nothing.
    pub fn again(&mut self, with_data: bool) -> Result<()> {
        if !with_data {
            std::fs::remove_dir_all(self.dir.join("appendonlydir")).context("its data")?;
        }
        self.process = serve(&self.dir, self.port)?;
        Ok(())
    }

    /// The URL for `sidecar` or `admin`.
    pub fn url(&self, user: &str) -> String {
        format!("redis://{user}:{PASSWORD}@127.0.0.1:{}", self.port)
    }

    /// What an independent observer reads.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let mut cli = Command::new("redis-cli");
        cli.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "--user", "admin"])
            .args(["--raw", "-e"])
            .args(words)
            .env("REDISCLI_AUTH", PASSWORD);
        let output = cli.output().context("running redis-cli")?;
        let said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        ensure!(output.status.success(), "redis-cli {words:?}: {said}");
        Ok(said)
    }

    /// The processor time that it has spent, in seconds, by its own account.
    pub fn cpu(&self) -> Result<f64> {
        let info = self.ask(&["INFO", "cpu"])?;
        let part = |name: &str| -> Result<f64> {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.with_context(|| format!("no {name}"))?.trim().parse().context("not a number")
        };
        Ok(part("used_cpu_user")? + part("used_cpu_sys")?)
    }
}

fn serve(dir: &Path, port: u16) -> Result<Process> {
    let mut command = Command::new(env::path(env::REDIS_SERVER)?);
    command.arg(dir.join("redis.conf"));
    let mut process = Process::start("redis", dir, command)?;
    process.wait_ready(|| is_loaded(port))?;
    Ok(process)
}

/// Whether it answers, and not that it is still reading its data.
fn is_loaded(port: u16) -> bool {
    let mut cli = Command::new("redis-cli");
    cli.args(["-h", "127.0.0.1", "-p", &port.to_string(), "--user", "admin", "ping"]);
    let output = cli.env("REDISCLI_AUTH", PASSWORD).output();
    output.is_ok_and(|output| output.stdout.starts_with(b"PONG"))
}
