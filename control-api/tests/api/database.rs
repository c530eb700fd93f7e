//! A database for each test, made and dropped through `psql`. Knows nothing of what is tested.

use std::process::Command;

use crate::world::binary;

/// The superuser's URL of a private cluster whose roles have the password `test`.
pub fn superuser_url() -> String {
    std::env::var("GATEHOUSE_TEST_POSTGRES")
        .expect("GATEHOUSE_TEST_POSTGRES is not set: run `cargo xtask test`")
}

/// A database that is dropped with this value.
pub struct Database {
    name: String,
}

impl Database {
    /// Without any table.
    pub fn empty() -> Self {
        let name = format!("gatehouse_c_{}", uuid::Uuid::new_v4().simple());
        psql(&superuser_url(), &format!("CREATE DATABASE {name} OWNER gatehouse_owner"));
        Self { name }
    }

    /// Migrated by the binary.
    pub fn migrated() -> Self {
        let database = Self::empty();
        let owner = database.url("gatehouse_owner");
        let out = binary().args(["migrate", "--database", &owner]).output().unwrap();
        assert!(out.status.success(), "{out:?}");
        database
    }

    pub fn url(&self, role: &str) -> String {
        let url = superuser_url();
        let server = url.split_once('@').unwrap().1.split('/').next().unwrap();
        format!("postgres://{role}:test@{server}/{}", self.name)
    }

    pub fn superuser(&self) -> String {
        let url = superuser_url();
        format!("{}/{}", url.rsplit_once('/').unwrap().0, self.name)
    }

    /// A statement about this database from outside of it.
    pub fn elsewhere(&self, statement: &str) -> String {
        psql(&superuser_url(), statement)
    }

    /// Rows as `psql -At` prints them, as the superuser.
    pub fn query(&self, statement: &str) -> String {
        psql(&self.superuser(), statement)
    }

    /// As [`Self::query`], as this role.
    pub fn query_as(&self, role: &str, statement: &str) -> String {
        psql(&self.url(role), statement)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        psql(&superuser_url(), &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

fn psql(url: &str, statement: &str) -> String {
    let out = Command::new("psql")
        .args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statement])
        .output()
        .expect("psql runs");
    assert!(out.status.success(), "{statement}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}
