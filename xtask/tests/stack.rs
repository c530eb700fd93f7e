//! The stack's life with real servers: what starts, stops; what a killed run left is removed, and nothing else.

#![cfg(test)]

use std::process::{Command, Stdio};

use gatehouse_xtask::{
    report::Report,
    stack::{Options, Stack, postgres::Psql, record::Process, redis::Client},
};

fn options(name: &str) -> Options {
    Options { reset: true, ..Options::new(&format!("test-{name}-{}", std::process::id())) }
}

fn psql(stack: &Stack, user: &str, password: &str, sql: &str) -> anyhow::Result<String> {
    let instance = &stack.instance;
    let port = instance.ports.postgres;
    Psql { program: instance.psql.clone(), port, user, password, database: "gatehouse" }.run(sql)
}

#[test]
fn the_stores_answer_their_users_and_nobody_else() {
    let stack = Stack::stores(&options("stores"), &mut Report::quiet()).unwrap();
    let secrets = stack.instance.secrets.clone();
    let who = psql(&stack, "gatehouse_app", &secrets.app, "SELECT current_user").unwrap();
    assert_eq!(who.trim(), "gatehouse_app");
    psql(&stack, "gatehouse_app", "wrong", "SELECT 1").unwrap_err();

    let redis = Client {
        program: &stack.instance.redis_cli,
        port: stack.instance.ports.redis,
        secrets: &secrets,
    };
    assert_eq!(redis.ask(&["PING"]).unwrap().trim(), "PONG");
    let denied = redis.ask(&["ACL", "DRYRUN", "worker", "GET", "rl:x"]).unwrap();
    assert!(denied.contains("no permissions"), "{denied}");

    let dir = stack.instance.dir.clone();
    let (pg, rd) = (stack.instance.ports.postgres, stack.instance.ports.redis);
    stack.discard().unwrap();
    for port in [pg, rd] {
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    }
    assert!(!dir.exists());
}

#[test]
fn what_a_killed_run_left_is_removed_and_a_stranger_stays() {
    let options = options("killed");
    let stack = Stack::stores(&options, &mut Report::quiet()).unwrap();
    let left: Vec<Process> = stack.processes();
    // As if it had been killed between starting the second and writing it down.
    let record = stack.instance.dir.join("processes.jsonl");
    let first = std::fs::read_to_string(&record).unwrap().lines().next().unwrap().to_owned();
    std::fs::write(&record, first + "\n").unwrap();
    // What SIGKILL of xtask does: nothing of ours runs any more, the lock is gone, the servers live on.
    stack.abandon();
    assert!(left.iter().all(Process::runs));

    let mut stranger = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
    let stack = Stack::stores(&Options { reset: false, ..options }, &mut Report::quiet()).unwrap();
    assert!(!left.iter().any(Process::runs), "{left:?}");
    assert!(stranger.try_wait().unwrap().is_none());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    stack.discard().unwrap();
}
