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

    pub fn url(&self, role: &str) -> String {
        format!("postgres://{role}:test@127.0.0.1:{}/gatehouse", self.port)
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
        let mut command = Command::new(program(name));
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
