//! PostgreSQL and Redis of one world: real, private, gone with it.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use gatehouse_contract::acl::{self, Passwords};

use crate::{env, process::Process, wait};

/// The password of every role and user in a test.
pub const PASSWORD: &str = "test";

/// A database of its own in the cluster that `cargo xtask test` started; the roles are the cluster's.
#[derive(Debug)]
pub struct Database {
    superuser: String,
    server: String,
    name: String,
}

impl Database {
    pub(super) fn create() -> Result<Self> {
        let superuser = env::text(env::POSTGRES)?;
        let (_, at) = superuser.split_once('@').context("a PostgreSQL URL without @")?;
        let server = at.split('/').next().unwrap_or_default().to_owned();
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let database = Self { superuser, server, name };
        let name = &database.name;
        database
            .psql(&database.superuser, &format!("CREATE DATABASE {name} OWNER gatehouse_owner"))?;
        database.psql(
            &database.superuser,
            &format!(
                "REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} \
                 TO gatehouse_app, gatehouse_admin, gatehouse_system"
            ),
        )?;
        Ok(database)
    }

    /// The URL for `owner`, `app`, `admin` or `system`.
    pub fn url(&self, role: &str) -> String {
        format!("postgres://gatehouse_{role}:{PASSWORD}@{}/{}", self.server, self.name)
    }

    /// What an independent observer reads as `role`: unaligned, a line per row.
    pub fn read(&self, role: &str, sql: &str) -> Result<String> {
        self.psql(&self.url(role), sql)
    }

    fn psql(&self, url: &str, sql: &str) -> Result<String> {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql]);
        let output = psql.env("PGCONNECT_TIMEOUT", "10").output().context("running psql")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "psql: {errors}");
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        if let Err(error) = self.psql(&self.superuser, &sql) {
            eprintln!("leaving {} behind: {error:#}", self.name);
        }
    }
}

/// A Redis of its own, with the users and rights of `contract::acl`.
#[derive(Debug)]
pub struct Redis {
    /// The server: a test may stop it.
    pub process: Process,
    port: u16,
}

impl Redis {
    pub(super) fn start(dir: &Path) -> Result<Self> {
        let port = wait::free_port()?;
        let users = acl::file(&Passwords {
            admin: PASSWORD,
            sidecar: PASSWORD,
            control: PASSWORD,
            worker: PASSWORD,
        })?;
        let config = dir.join("redis.conf");
        let text = format!(
            "bind 127.0.0.1\nport {port}\ndir {}\nsave \"\"\nappendonly no\n\
             maxmemory-policy noeviction\n{users}",
            dir.display()
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new(env::path(env::REDIS_SERVER)?);
        command.arg(&config);
        let mut process = Process::start("redis", dir, command)?;
        process.wait_ready(|| wait::accepts(([127, 0, 0, 1], port).into()))?;
        Ok(Self { process, port })
    }

    /// The URL for `sidecar`, `control`, `worker` or `admin`.
    pub fn url(&self, user: &str) -> String {
        format!("redis://{user}:{PASSWORD}@127.0.0.1:{}", self.port)
    }

    /// What an independent observer reads.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let mut cli = Command::new("redis-cli");
        cli.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "--user",
            "admin",
            "--raw",
            "-e",
        ])
        .args(words)
        .env("REDISCLI_AUTH", PASSWORD);
        let output = cli.output().context("running redis-cli")?;
        let said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        ensure!(output.status.success(), "redis-cli {words:?}: {said}");
        Ok(said)
    }
}
