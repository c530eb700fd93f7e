//! A private PostgreSQL 15: one cluster per instance, on loopback, run by a user without rights. Its data is
//! kept between starts. Knows no table.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use rustix::process::Signal;

use super::{
    child::{Part, Start},
    instance::{DATABASE, Secrets, write_secret},
    record::Run,
    user::User,
};
use crate::{command, install::Tools, repo};

const TITLE: &str = "PostgreSQL";

/// What is needed to start it.
pub struct Cluster<'a> {
    /// Where its programs are.
    pub tools: &'a Tools,
    /// As whom it runs.
    pub user: User,
    /// Where its data goes.
    pub data: &'a Path,
    /// Its port.
    pub port: u16,
    /// Its passwords.
    pub secrets: &'a Secrets,
    /// Whether what it confirms survives a power cut. A developer's data need not: it survives every kill, and starting
    /// anew is cheap.
    pub durable: bool,
}

impl Cluster<'_> {
    /// Starts it and waits until it takes connections.
    pub fn start(&self, run: &Run) -> anyhow::Result<Part> {
        let cluster = self.data.join("postgres");
        if !cluster.join("PG_VERSION").is_file() {
            self.make(&cluster)?;
        }
        // Left by a postmaster that was killed; its number may be a stranger's by now.
        let pid_file = cluster.join("postmaster.pid");
        if pid_file.exists() {
            fs::remove_file(&pid_file).context("removing a stale postmaster.pid")?;
        }
        let durable = if self.durable { "on" } else { "off" };
        let mut command = self.user.command(&self.tools.pg("postgres")?);
        command.current_dir(&cluster).arg("-D").arg(&cluster);
        for (name, value) in [
            ("port", self.port.to_string().as_str()),
            ("listen_addresses", "127.0.0.1"),
            // Passwords over loopback for all: no door that trusts an operating system's user.
            ("unix_socket_directories", ""),
            ("max_connections", "200"),
            ("fsync", durable),
            ("full_page_writes", durable),
            ("synchronous_commit", durable),
        ] {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let mut part = Part::start(
            run,
            // SIGINT is "fast shutdown": SIGTERM would wait for clients to leave.
            Start {
                title: TITLE,
                log: "postgres",
                stop: Signal::INT,
                mend: "begin anew with --reset",
                command,
            },
        )?;
        let ready = self.tools.pg("pg_isready")?;
        let port = self.port.to_string();
        let waited = part.wait_ready(Duration::from_secs(60), || {
            let mut ask = std::process::Command::new(&ready);
            ask.args(["--quiet", "--host=127.0.0.1", "--port", &port]);
            command::run(&mut ask, "pg_isready", Duration::from_secs(10)).is_ok()
        });
        match waited {
            Ok(()) => Ok(part),
            Err(error) => {
                part.stop();
                Err(error)
            }
        }
    }

    /// Makes the cluster beside its place and moves it there when it is whole.
    fn make(&self, cluster: &Path) -> anyhow::Result<()> {
        let beside = self.data.join("postgres.new");
        for half in [&beside, &cluster.to_owned()] {
            if half.exists() {
                fs::remove_dir_all(half).with_context(|| format!("removing {}", half.display()))?;
            }
        }
        self.user.make_dir(&beside)?;
        let password = self.data.join("superuser");
        write_secret(&password, &self.secrets.superuser)?;
        self.user.own(&password)?;
        let mut initdb = self.user.command(&self.tools.pg("initdb")?);
        initdb
            .current_dir(&beside)
            .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "--no-sync", "--no-instructions"])
            .arg(format!("--pwfile={}", password.display()))
            .arg("--pgdata")
            .arg(&beside);
        let made = command::run(&mut initdb, "initdb", Duration::from_secs(120));
        fs::remove_file(&password).context("removing the password file")?;
        if let Err(error) = made {
            // Nothing half-made is left behind; the first error is the one that counts.
            drop(fs::remove_dir_all(&beside));
            return Err(error);
        }
        fs::rename(&beside, cluster).context("moving the new cluster into place")
    }

    /// Makes the roles, their passwords and the database. Runs again without harm.
    pub fn prepare(&self) -> anyhow::Result<()> {
        let roles = repo::root()?.join("migrations/bootstrap/roles.sql");
        let mut sql =
            fs::read_to_string(&roles).with_context(|| format!("reading {}", roles.display()))?;
        for (role, password) in [
            ("owner", &self.secrets.owner),
            ("app", &self.secrets.app),
            ("admin", &self.secrets.admin),
            ("system", &self.secrets.system),
        ] {
            sql.push_str(&format!("\nALTER ROLE gatehouse_{role} PASSWORD '{password}';"));
        }
        sql.push_str(&format!(
            "\nSELECT 'CREATE DATABASE {DATABASE} OWNER gatehouse_owner' \
             WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{DATABASE}') \\gexec\n\
             REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC;\n\
             GRANT CONNECT ON DATABASE {DATABASE} TO gatehouse_app, gatehouse_admin, gatehouse_system;\n"
        ));
        let psql = Psql {
            program: self.tools.pg("psql")?,
            port: self.port,
            user: "postgres",
            password: &self.secrets.superuser,
            database: "postgres",
        };
        psql.run(&sql).map(drop)
    }
}

/// PostgreSQL's own client: what an independent observer sees.
pub struct Psql<'a> {
    /// `psql`.
    pub program: PathBuf,
    /// The server's port.
    pub port: u16,
    /// The role.
    pub user: &'a str,
    /// Its password.
    pub password: &'a str,
    /// The database.
    pub database: &'a str,
}

impl Psql<'_> {
    /// Runs `sql`; the answer is unaligned, one row per line, columns separated by `|`.
    pub fn run(&self, sql: &str) -> anyhow::Result<String> {
        let mut psql = std::process::Command::new(&self.program);
        psql.args(["-X", "--quiet", "--no-align", "--tuples-only", "-v", "ON_ERROR_STOP=1"])
            .args(["--host=127.0.0.1", "--port", &self.port.to_string()])
            .args(["--username", self.user, "--dbname", self.database])
            // Never on the command line, where every user of the machine could read it.
            .env("PGPASSWORD", self.password)
            .env("PGCONNECT_TIMEOUT", "10");
        command::run_with(&mut psql, "psql", Duration::from_secs(60), Some(sql))
    }
}
