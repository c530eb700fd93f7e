//! A store's runs on real servers of our own: what begins one, who is told, and what is charged meanwhile.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use gatehouse_ratelimit::{Declaration, Refused, Run, Take};
use gatehouse_redis_kit::{Address, Limiter, Link, acl};
use tempfile::TempDir;

use crate::kit::{DEADLINE, key, run, take, tenant, used, window};

/// A server of its own, killed when dropped. It keeps its data on disk where it is told to save.
pub struct Server {
    child: Child,
    dir: TempDir,
}

impl Server {
    pub fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let passwords =
            acl::Passwords { admin: "test", sidecar: "test", control: "test", worker: "test" };
        let socket = dir.path().join("redis.sock");
        let text = format!(
            "port 0\nunixsocket {}\nsave \"\"\n{}",
            socket.display(),
            acl::file(&passwords).unwrap()
        );
        std::fs::write(dir.path().join("redis.conf"), text).unwrap();
        Self { child: spawn(dir.path()), dir }
    }

    /// Ends it without a word and starts it again on what it had saved.
    fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(self.dir.path());
    }

    pub fn address(&self, user: &str) -> Address {
        let socket = self.dir.path().join("redis.sock");
        format!("redis+unix://{}?user={user}&pass=test", socket.display()).parse().unwrap()
    }

    /// With a password that is none.
    pub fn wrong(&self) -> Address {
        let socket = self.dir.path().join("redis.sock");
        format!("redis+unix://{}?user=sidecar&pass=wrong", socket.display()).parse().unwrap()
    }

    /// As the service's own user.
    pub fn limiter(&self) -> Limiter {
        Limiter::new(&self.address("sidecar"), DEADLINE).unwrap()
    }

    pub fn admin(&self) -> Link {
        Link::new(&self.address("admin"), DEADLINE).unwrap()
    }
}

fn spawn(dir: &Path) -> Child {
    let socket = dir.join("redis.sock");
    if socket.exists() {
        std::fs::remove_file(&socket).unwrap();
    }
    let server = std::env::var("GATEHOUSE_TEST_REDIS_SERVER")
        .expect("GATEHOUSE_TEST_REDIS_SERVER is not set; run cargo xtask test");
    let mut command = Command::new(server);
    command.arg(dir.join("redis.conf")).current_dir(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    let begin = Instant::now();
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(begin.elapsed() < Duration::from_secs(20), "Redis does not listen");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

async fn one(limiter: &Limiter, take: &Take) -> Result<Vec<u32>, Refused> {
    let answer = limiter.take(std::slice::from_ref(take)).await.remove(0);
    answer.unwrap().map(|taken| used(&taken))
}

/// The run of a store, once it takes.
pub async fn settled(limiter: &Limiter, take: &Take) -> Run {
    let begin = Instant::now();
    let peek = Take { cost: 0, run: None, ..take.clone() };
    loop {
        match limiter.take(std::slice::from_ref(&peek)).await.remove(0).unwrap() {
            Ok(taken) => return taken.run,
            Err(refused) => assert!(begin.elapsed() < Duration::from_secs(20), "{refused}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The pulse of a sidecar that a new server, or one that just came back, may still cut off.
async fn pulse(limiter: &Limiter) -> Run {
    let begin = Instant::now();
    loop {
        match limiter.pulse("one").await {
            Ok(pulse) => return pulse.runs.into_iter().next().unwrap(),
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(20), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_store_that_lost_its_data_charges_nothing_until_it_was_told() {
    let mut server = Server::start();
    let (limiter, admin) = (server.limiter(), server.admin());
    let (tenant, rule) = (tenant(), window(10, 3600));
    let plain = take(tenant, std::slice::from_ref(&rule), 2);
    let first = pulse(&limiter).await;
    assert_eq!(one(&limiter, &plain).await, Err(Refused::Settling(first)));
    assert_eq!(settled(&limiter, &plain).await, first);
    let known = Take { run: Some(first), ..plain.clone() };
    let charged = limiter.take(std::slice::from_ref(&known)).await.remove(0).unwrap().unwrap();
    assert_eq!(used(&charged), [2]);

    // What keeps the data keeps the run.
    run::<()>(&admin, "SAVE").await;
    assert_eq!(one(&limiter, &known).await, Ok(vec![4]));

    server.restart();
    let second = pulse(&limiter).await;
    assert_ne!(first, second);
    assert_eq!(one(&limiter, &known).await, Err(Refused::Anew(second)));
    let known = Take { run: Some(second), ..plain.clone() };
    assert_eq!(one(&limiter, &known).await, Err(Refused::Settling(second)));
    // Two of the four were saved; two sidecars charged two each.
    let declaration =
        |run| Declaration { tenant, rule: rule.clone(), charges: vec![(charged.at, 2)], run };
    let told =
        limiter.declare(&[declaration(first), declaration(second), declaration(second)]).await;
    assert_eq!(told.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(settled(&limiter, &plain).await, second);
    assert_eq!(one(&limiter, &known).await, Ok(vec![6]));
    let left: i64 = run(&server.admin(), &format!("PTTL {}:d", key(tenant, &rule))).await;
    assert!(left > 0, "the side record stays for ever");
}
