//! A Redis of a test's own, with the users and rights of the product. Knows nothing of what is tested.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use gatehouse_contract::acl::{self, Passwords};
use gatehouse_redis_kit::Address;

use crate::world::{free_port, until};

pub struct Redis {
    child: Child,
    port: u16,
    dir: std::path::PathBuf,
}

impl Redis {
    pub fn start(dir: &Path) -> Self {
        Self::at(dir, free_port())
    }

    fn at(dir: &Path, port: u16) -> Self {
        let passwords =
            Passwords { admin: "test", sidecar: "test", control: "test", worker: "test" };
        let users = acl::file(&passwords).unwrap();
        let config = dir.join("redis.conf");
        let text = format!(
            "bind 127.0.0.1\nport {port}\ndir {}\nsave \"\"\nappendonly no\n{users}",
            dir.display()
        );
        fs::write(&config, text).unwrap();
        let program = std::env::var("GATEHOUSE_TEST_REDIS_SERVER")
            .expect("GATEHOUSE_TEST_REDIS_SERVER is not set: run `cargo xtask test`");
        let mut server = Command::new(program);
        let child = server.arg(&config).stdout(Stdio::null()).spawn().unwrap();
        let redis = Self { child, port, dir: dir.to_owned() };
        until(|| (redis.ask(&["PING"]) == "PONG").then_some(()));
        redis
    }

    pub fn url(&self, user: &str) -> String {
        format!("redis://{user}:test@127.0.0.1:{}", self.port)
    }

    pub fn address(&self, user: &str) -> Address {
        self.url(user).parse().unwrap()
    }

    /// Ends it and starts another one, which knows nothing, at the same place.
    pub fn begin_anew(&mut self) {
        self.end();
        *self = Self::at(&self.dir, self.port);
    }

    pub fn end(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }

    /// What an independent observer reads.
    pub fn ask(&self, words: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        cli.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "--user", "admin", "--raw"]);
        let out = cli.args(words).env("REDISCLI_AUTH", "test").output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.end();
    }
}
