//! Start and end: mistakes as lines and exit codes, listeners, signals.

use std::os::unix::net::{UnixListener, UnixStream};
use std::{
    io::{Read, Write},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Redis, Sidecar, config, load_functions, memory, redis, run_to_end};

/// `more` overrides members of a good configuration.
fn check(store: &Value, more: Value, code: i32, expected: &[&str]) {
    let (got_code, mut lines) = run_to_end(&config(store, more));
    // Logs are not what the person who starts it reads.
    lines.retain(|line| !line.starts_with('{'));
    assert_eq!((got_code, lines), (Some(code), expected.iter().map(ToString::to_string).collect()));
}

#[test]
fn three_mistakes_are_three_lines() {
    check(
        &memory(),
        json!({
            "listen": "0.0.0.0:8083",
            "admin-listen": "127.0.0.1:0",
            "limits": {"tiers": {"free": -60}},
        }),
        64,
        &[
            "gatehouse-ratelimit-sidecar: config FILE: $.listen: 0.0.0.0:8083 can be reached from other machines; write a loopback address such as \"127.0.0.1:8081\"",
            "gatehouse-ratelimit-sidecar: config FILE: $.limits.tiers.free: -60 does not fit; write a whole number from 0 to 16777215",
            "gatehouse-ratelimit-sidecar: config FILE: $.admin-listen: unknown field; did you mean \"admin_listen\"?",
        ],
    );
}

#[test]
fn an_admin_listener_that_another_machine_can_reach_is_refused() {
    check(
        &memory(),
        json!({"admin_listen": "[::]:0"}),
        64,
        &[
            "gatehouse-ratelimit-sidecar: config FILE: $.admin_listen: [::]:0 can be reached from other machines; write a loopback address such as \"127.0.0.1:8081\"",
        ],
    );
}

#[test]
fn a_taken_port_is_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    for field in ["listen", "admin_listen"] {
        check(
            &memory(),
            json!({field: at.to_string()}),
            69,
            &[&format!(
                "gatehouse-ratelimit-sidecar: $.{field}: {at} is taken by another process; stop it or choose another port"
            )],
        );
    }
}

#[test]
fn a_redis_that_refuses_us_is_one_line_without_the_password() {
    let server = Redis::start();
    for (user, password) in [("sidecar", "hunter2"), ("worker", "test")] {
        let (code, lines) = run_to_end(&config(&redis(&server.url(user, password)), json!({})));
        let lines: Vec<_> = lines.iter().filter(|line| !line.starts_with('{')).collect();
        assert_eq!((code, lines.len()), (Some(78), 1), "{lines:?}");
        let begin = format!("gatehouse-ratelimit-sidecar: $.store.url: {user}@127.0.0.1:");
        assert!(lines[0].starts_with(&begin), "{}", lines[0]);
        assert!(
            lines[0].ends_with("; check the user, its password and its rights"),
            "{}",
            lines[0]
        );
        assert!(!lines[0].contains("hunter2"), "{}", lines[0]);
    }
}

#[test]
fn functions_are_loaded_by_hand_and_no_password_is_echoed() {
    let server = Redis::start();
    assert_eq!(load_functions(&server.url("admin", "test")), (Some(0), String::new()));
    for (url, code) in [
        (server.url("admin", "hunter2"), 69),
        (server.url("worker", "test"), 69),
        ("rediss//admin:hunter2@127.0.0.1".to_owned(), 64),
    ] {
        let (got, stderr) = load_functions(&url);
        assert_eq!((got, stderr.lines().count()), (Some(code), 1), "{stderr}");
        assert!(stderr.starts_with("gatehouse-ratelimit-sidecar: --url: "), "{stderr}");
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
}

#[tokio::test]
async fn a_signal_ends_it_with_success() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut sidecar = Sidecar::start(&config(&memory(), json!({})));
        sidecar.until_ready().await;
        sidecar.signal(signal);
        assert_eq!(sidecar.ended(), Some(0));
    }
}

fn ask_over_unix(path: &std::path::Path) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /v1/nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_unix_socket_serves_and_a_dead_ones_file_is_replaced() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("sidecar.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "what a dead process leaves");
    let unix = config(&memory(), json!({"listen": format!("unix:{}", path.display())}));
    let mut sidecar = Sidecar::start(&unix);
    let answer = ask_over_unix(&path);
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(answer.contains("\r\nx-gatehouse-sidecar: 1\r\n"), "{answer}");

    let (code, lines) = run_to_end(&unix);
    assert_eq!(code, Some(69));
    assert!(lines.iter().any(|line| line.contains("is served by another process")), "{lines:?}");
    assert!(ask_over_unix(&path).starts_with("HTTP/1.1 404"), "the first one goes on");
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.ended(), Some(0));
    assert!(!path.exists());
}

/// Filters ask over HTTP/2 with prior knowledge (RFC 9113 §3.3).
#[test]
fn one_port_speaks_http_2_as_well() {
    let sidecar = Sidecar::start(&config(&memory(), json!({})));
    let at = sidecar.url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(frame[3], 4, "a SETTINGS frame: {frame:?}");
}
