//! A Redis of one test's own, with the services' own users: for what has no prefix. Knows nothing of what is kept in it.

use std::{
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use gatehouse_redis_kit::{Address, acl};
use tempfile::TempDir;

/// Killed when dropped.
pub struct Redis {
    child: Child,
    dir: TempDir,
}

impl Redis {
    pub fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let passwords =
            acl::Passwords { admin: "test", sidecar: "test", control: "test", worker: "test" };
        let users = acl::file(&passwords).unwrap();
        let file = dir.path().join("redis.conf");
        let socket = dir.path().join("redis.sock");
        let text = format!("port 0\nunixsocket {}\nsave \"\"\n{users}", socket.display());
        std::fs::write(&file, text).unwrap();
        let server = std::env::var("GATEHOUSE_TEST_REDIS_SERVER")
            .expect("GATEHOUSE_TEST_REDIS_SERVER is not set; run cargo xtask test");
        let mut command = Command::new(server);
        command.arg(&file).current_dir(dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let redis = Self { child: command.spawn().unwrap(), dir };
        let begin = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(20), "Redis does not listen");
            std::thread::sleep(Duration::from_millis(2));
        }
        redis
    }

    pub fn address(&self, user: &str) -> Address {
        let socket = self.dir.path().join("redis.sock");
        format!("redis+unix://{}?user={user}&pass=test", socket.display()).parse().unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
