//! A PostgreSQL of its own that may be stopped in either way and started again, and an observer's connection to it.
//! What it confirms survives each of these ends: they kill processes, not the machine. Knows no table.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::{env, fleet::redis::PASSWORD, wait};

/// Nobody: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65534;
/// What ends an answer to an observer.
const END: &str = "-- end of answer --";

/// The server.
#[derive(Debug)]
pub struct Postgres {
    dir: TempDir,
    port: u16,
}

/// How it is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Clients are cut off, what they did is rolled back, everything is written.
    Fast,
    /// Each process ends at once; what was confirmed is found again in the log.
    Immediate,
}

impl Postgres {
    /// Starts one with the roles of Gatehouse and the database `gatehouse`. `durable` as a production's, against a power cut.
    pub fn start(durable: bool) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("gatehouse-postgres-").tempdir()?;
        let server = Self { dir, port: wait::free_port()? };
        if rustix::process::geteuid().is_root() {
            chown(server.dir.path(), Some(NOBODY), Some(NOBODY))?;
        }
        let password = server.dir.path().join("password");
        std::fs::write(&password, PASSWORD)?;
        let mut make = server.command("initdb")?;
        make.args(["-U", "postgres", "-A", "scram-sha-256", "--no-sync", "--encoding=UTF8"]);
        make.args(["--locale=C.UTF-8", "-D"]).arg(server.data()).arg("--pwfile").arg(password);
        run(&mut make)?;
        let fsync = if durable { "on" } else { "off" };
        let text = format!(
            "port={}\nlisten_addresses='127.0.0.1'\nunix_socket_directories=''\nmax_connections=200\n\
             fsync={fsync}\nfull_page_writes={fsync}\nsynchronous_commit=on\n",
            server.port
        );
        std::fs::write(server.data().join("postgresql.conf"), text)?;
        server.up()?;
        let roles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/bootstrap/roles.sql");
        run(Command::new("psql")
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(server.superuser("postgres"))
            .arg("-f")
            .arg(roles))?;
        for role in ["owner", "app", "admin", "system"] {
            let sql = format!("ALTER ROLE gatehouse_{role} PASSWORD '{PASSWORD}'");
            server.ask("postgres", &sql)?;
        }
        server.ask("postgres", "CREATE DATABASE gatehouse OWNER gatehouse_owner")?;
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(env::path(env::PG_BIN)?.join(program));
        command.current_dir(self.dir.path());
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        Ok(command)
    }

    /// Starts it and waits until it takes connections.
    pub fn up(&self) -> Result<()> {
        let mut start = self.command("pg_ctl")?;
        start.args(["-w", "-t", "60", "-l", "log", "-D"]).arg(self.data()).arg("start");
        // The server keeps what it inherits: pipes would never end.
        let status = start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        ensure!(status.status()?.success(), "PostgreSQL does not start");
        Ok(())
    }

    /// Stops it.
    pub fn down(&self, mode: Mode) -> Result<()> {
        let mode = match mode {
            Mode::Fast => "fast",
            Mode::Immediate => "immediate",
        };
        let mut stop = self.command("pg_ctl")?;
        run(stop.args(["-w", "-m", mode, "-D"]).arg(self.data()).arg("stop"))
    }

    /// The URL for `owner`, `app`, `admin` or `system`.
    pub fn url(&self, role: &str) -> String {
        format!("postgres://gatehouse_{role}:{PASSWORD}@127.0.0.1:{}/gatehouse", self.port)
    }

    /// The superuser's.
    pub fn superuser(&self, database: &str) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// What the superuser reads in a database: unaligned, a line per row.
    pub fn ask(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"]);
        let output = psql.arg(self.superuser(database)).args(["-c", sql]).output();
        let output = output.context("running psql")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "psql: {errors}");
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// An observer's connection.
    pub fn observer(&self) -> Observer {
        Observer { url: self.superuser("gatehouse"), connected: None }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Err(error) = self.down(Mode::Immediate) {
            eprintln!("PostgreSQL in {}: {error:#}", self.dir.path().display());
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {errors}");
    Ok(())
}

/// A connection that is kept, and made again after the server was away.
#[derive(Debug)]
pub struct Observer {
    url: String,
    connected: Option<Connected>,
}

#[derive(Debug)]
struct Connected {
    psql: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Observer {
    /// What is read: unaligned, a line per row. Fails while the server is away.
    pub fn ask(&mut self, sql: &str) -> Result<String> {
        let mut connected = match self.connected.take() {
            Some(connected) => connected,
            None => Connected::open(&self.url)?,
        };
        let answer = connected.ask(sql)?;
        self.connected = Some(connected);
        Ok(answer)
    }
}

impl Connected {
    fn open(url: &str) -> Result<Self> {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url]);
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut psql = psql.spawn().context("running psql")?;
        let ask = psql.stdin.take().context("no input")?;
        let answers = BufReader::new(psql.stdout.take().context("no output")?);
        Ok(Self { psql, ask, answers })
    }

    fn ask(&mut self, sql: &str) -> Result<String> {
        writeln!(self.ask, "{sql};\n\\echo {END}")?;
        let mut answer = String::new();
        loop {
            let at = answer.len();
            if self.answers.read_line(&mut answer)? == 0 {
                bail!("the observer's connection ended");
            }
            if answer.get(at..).is_some_and(|line| line.trim_end() == END) {
                answer.truncate(at);
                return Ok(answer.trim_end().to_owned());
            }
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        drop(self.psql.kill());
        drop(self.psql.wait());
    }
}
