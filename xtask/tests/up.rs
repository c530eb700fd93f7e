//! `cargo xtask up` as its user runs it: what it prints works, Ctrl-C stops everything it started and nothing else,
//! and after a SIGKILL the next start cleans up and keeps the data.

#![cfg(test)]

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use gatehouse_contract::Role;
use gatehouse_xtask::{
    stack::{self, instance::Instance, record},
    up::{
        api::{Api, Call},
        demo::Demo,
    },
};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;

/// Loaded machines build slowly.
const READY: Duration = Duration::from_secs(600);
const END: Duration = Duration::from_secs(60);

struct Up {
    child: Child,
    said: String,
}

impl Up {
    /// Starts it and waits until it says that it is ready.
    fn start(name: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_gatehouse-xtask"))
            .args(["up", "--name", name])
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut up = Self { child, said: String::new() };
        let began = Instant::now();
        for line in BufReader::new(up.child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            up.said.push_str(&line);
            up.said.push('\n');
            if line.starts_with("Ready after") {
                return up;
            }
            assert!(began.elapsed() < READY, "not ready: {}", up.said);
        }
        panic!("it ended before it was ready: {}", up.said);
    }

    /// To the whole group, as a terminal's Ctrl-C.
    fn signal(&self, signal: Signal) {
        kill_process_group(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended; its exit code.
    fn ended(&mut self) -> Option<i32> {
        let until = Instant::now() + END;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Ended already, unless an assertion failed: then SIGTERM stops what it started.
        if self.child.try_wait().unwrap().is_none() {
            self.signal(Signal::TERM);
            self.child.wait().unwrap();
        }
    }
}

/// The lines between two of what `up` prints, as a script.
fn script(said: &str) -> String {
    said.lines()
        .skip_while(|line| !line.contains("a token by client credentials"))
        .take_while(|line| !line.starts_with("The tenants"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The cgroup folders of the instance's worker.
fn cgroups(instance: &Instance) -> Vec<PathBuf> {
    let name = fs::read_to_string(instance.worker_dir().join("worker")).unwrap();
    let mut places = vec![PathBuf::from("/sys/fs/cgroup")];
    places.extend(fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()));
    places
        .into_iter()
        .map(|place| place.join("gatehouse").join(name.trim()))
        .filter(|folder| folder.is_dir())
        .collect()
}

fn is_worker(process: &record::Process) -> bool {
    let line = fs::read_to_string(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
    line.split('\0').next().is_some_and(|program| program.ends_with("execution-worker"))
}

#[test]
fn up_serves_stops_by_ctrl_c_and_cleans_up_after_a_kill() {
    let name = format!("test-up-{}", std::process::id());
    let dir = stack::dir(&name).unwrap();
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();

    // What it prints can be pasted.
    let mut up = Up::start(&name);
    let answer = Command::new("bash").args(["-euc", &script(&up.said)]).output().unwrap();
    let printed = String::from_utf8_lossy(&answer.stdout);
    assert!(printed.contains("HTTP/1.1 401"), "{printed}");
    assert!(printed.contains("\"name\":\"my-agent\""), "{printed}");
    assert!(printed.contains("\"state\":\"completed\""), "{printed}");

    // Ctrl-C ends all of it, and only it.
    assert!(!record::marked(&dir).is_empty());
    up.signal(Signal::INT);
    assert_eq!(up.ended(), Some(0));
    assert_eq!(record::marked(&dir), []);
    assert!(stranger.try_wait().unwrap().is_none());

    // A kill in the middle of executions, of the worker too: servers, sandboxes and cgroups are left.
    let mut up = Up::start(&name);
    let instance = Instance::load(&dir).unwrap().unwrap();
    let demo: Demo =
        serde_json::from_str(&fs::read_to_string(dir.join("demo.json")).unwrap()).unwrap();
    let tenant = demo.tenants.last().unwrap();
    let api = Api::new(instance.gateway());
    let token = api.token(tenant.client(Role::Developer).unwrap()).unwrap();
    let version = tenant.agent.as_ref().unwrap().version;
    for litres in 1..=8 {
        api.execute(&token, version, &json!({"fuel": "diesel", "litres": litres})).unwrap();
    }
    up.signal(Signal::KILL);
    let worker = record::marked(&dir).into_iter().find(is_worker).unwrap();
    assert!(worker.signal(Signal::KILL));
    assert_eq!(up.ended(), None);
    let left = record::marked(&dir);
    assert!(!left.is_empty(), "a kill leaves the servers");

    // The next start ends exactly those, and the tenants are still there.
    let mut up = Up::start(&name);
    assert!(!left.iter().any(record::Process::runs), "{left:?}");
    let instance = Instance::load(&dir).unwrap().unwrap();
    let api = Api::new(instance.gateway());
    let token = api.token(tenant.client(Role::Viewer).unwrap()).unwrap();
    api.want(200, Call::get("/api/v1/registry/agents").token(&token)).unwrap();
    up.signal(Signal::TERM);
    assert_eq!(up.ended(), Some(0));
    assert_eq!(record::marked(&dir), []);
    assert_eq!(cgroups(&instance), Vec::<PathBuf>::new());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&dir.display().to_string()), "{mounts}");
    assert!(stranger.try_wait().unwrap().is_none());
    stranger.kill().unwrap();
    stranger.wait().unwrap();

    let options = stack::Options { reset: true, ..stack::Options::new(&name) };
    stack::Stack::stores(&options, &mut gatehouse_xtask::report::Report::quiet())
        .unwrap()
        .discard()
        .unwrap();
}
