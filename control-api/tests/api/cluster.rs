//! A PostgreSQL of a test's own, which may be stopped and started again. Knows nothing of what is tested.

use std::{
    os::unix::{fs::chown, process::CommandExt as _},
    path::PathBuf,
    process::Command,
};

use tempfile::TempDir;

use crate::world::{free_port, until};

/// Nobody: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65534;

pub struct Cluster {
    dir: TempDir,
    port: u16,
}

fn program(name: &str) -> PathBuf {
    let folder = std::env::var("GATEHOUSE_TEST_PG_BIN")
        .expect("GATEHOUSE_TEST_PG_BIN is not set: run `cargo xtask test`");
    PathBuf::from(folder).join(name)
}

impl Cluster {
    /// With the roles of Gatehouse, whose password is `test`.
    pub fn start() -> Self {
        let cluster = Self { dir: tempfile::tempdir().unwrap(), port: free_port() };
        if is_root() {
            chown(cluster.dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        std::fs::write(cluster.dir.path().join("password"), "test").unwrap();
        let mut make = cluster.command("initdb");
        make.args(["-U", "postgres", "-A", "scram-sha-256", "--no-sync", "--pwfile"]);
        run(make.arg(cluster.dir.path().join("password")));
        let text = format!(
            "port={}\nlisten_addresses='127.0.0.1'\nunix_socket_directories=''\nmax_connections=60\nfsync=off\n",
            cluster.port
        );
        let file = cluster.data().join("postgresql.conf");
        std::fs::write(&file, text).unwrap();
        cluster.up();
        let roles = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/bootstrap/roles.sql");
        run(cluster.psql("postgres").args(["-f", roles]));
        for role in ["owner", "app", "admin", "system"] {
            cluster.query("postgres", &format!("ALTER ROLE gatehouse_{role} PASSWORD 'test'"));
        }
        cluster.query("postgres", "CREATE DATABASE gatehouse OWNER gatehouse_owner");
        cluster
    }

    /// A streaming replica of it, made as the runbook says.
    pub fn replica(&self, make: &str) -> Self {
        let replica = Self { dir: tempfile::tempdir().unwrap(), port: free_port() };
        if is_root() {
            chown(replica.dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut command = replica.command("sh");
        command
            .env("PRIMARY_HOST", "127.0.0.1")
            .env("PRIMARY_PORT", self.port.to_string())
            .env("REPLICA_PORT", replica.port.to_string());
        self.told(&replica, &mut command, make);
        replica
    }

    /// Runs commands of the runbook, where this is the primary.
    pub fn follow(&self, replica: &Self, commands: &str) -> String {
        self.told(replica, &mut replica.command("sh"), commands)
    }

    fn told(&self, replica: &Self, command: &mut Command, commands: &str) -> String {
        let path = std::env::var("PATH").unwrap();
        let own = program("").display().to_string();
        let superuser = |port| format!("postgres://postgres:test@127.0.0.1:{port}");
        run(command
            .args(["-ec", commands])
            .env("PATH", format!("{own}:{path}"))
            .env("PRIMARY", superuser(self.port))
            .env("REPLICATION_PASSWORD", "test")
            .env("REPLICA", superuser(replica.port)))
    }

    pub fn url(&self, role: &str) -> String {
        self.url_of(role, "gatehouse")
    }

    pub fn url_of(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}:test@127.0.0.1:{}/{database}", self.port)
    }

    /// A signal to each of its processes.
    pub fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let postmaster = pid.lines().next().unwrap().to_owned();
        let mut pids = vec![postmaster.clone()];
        for entry in std::fs::read_dir("/proc").unwrap() {
            let Ok(stat) = std::fs::read_to_string(entry.unwrap().path().join("stat")) else {
                continue;
            };
            // `pid (name) state parent …`; a name may have anything in it.
            let (pid, rest) = stat.split_once(" (").unwrap();
            let parent = rest.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
            if parent == Some(postmaster.as_str()) {
                pids.push(pid.to_owned());
            }
        }
        let mut shell = Command::new("sh");
        run(shell.args(["-c", r#"kill "$@" 2>/dev/null || true"#, "sh", signal]).args(&pids));
    }

    /// Starts it, again where it was stopped.
    pub fn up(&self) {
        let mut start = self.command("pg_ctl");
        run(start.args(["-w", "-l"]).arg(self.dir.path().join("log")).arg("start"));
    }

    /// Stops it as a restart does: sessions are ended.
    pub fn down(&self) {
        run(self.command("pg_ctl").args(["-w", "-m", "fast", "stop"]));
    }

    /// Rows as `psql -At` prints them, as the superuser.
    pub fn query(&self, database: &str, statement: &str) -> String {
        run(self.psql(database).args(["-c", statement]))
    }

    /// As [`Self::query`] in our database, as this role.
    pub fn query_as(&self, role: &str, statement: &str) -> String {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", &self.url(role)]);
        run(psql.args(["-c", statement]))
    }

    fn psql(&self, database: &str) -> Command {
        let mut psql = Command::new("psql");
        let url = format!("postgres://postgres:test@127.0.0.1:{}/{database}", self.port);
        psql.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", &url]);
        psql
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(if name == "sh" { name.into() } else { program(name) });
        command.env("PGDATA", self.data()).current_dir(self.dir.path());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.data().join("postmaster.pid").exists() {
            self.signal("-CONT");
            run(self.command("pg_ctl").args(["-w", "-m", "immediate", "stop"]));
        }
        until(|| (!self.data().join("postmaster.pid").exists()).then_some(()));
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}
