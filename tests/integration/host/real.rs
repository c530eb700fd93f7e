//! Plays the questions' script to a real Envoy with one worker. Knows no answers.

use std::{
    io::{BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gatehouse_tests::{
    env,
    http::{Connection, Message, Request},
    process::Process,
    vm::Headers,
    wait,
};
use gatehouse_xtask::render::envoy::cluster;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::play::{ANSWER, CONFIGURATION, Line, Play, VARIABLE, seen};

const LIMIT: Duration = Duration::from_secs(20);

pub struct Real {
    listen: SocketAddr,
    /// Whether the peer may answer on `/late`.
    released: Arc<AtomicBool>,
    _silent: TcpListener,
    _envoy: Process,
    _dir: TempDir,
}

impl Real {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (listen, admin) = (wait::address().unwrap(), wait::address().unwrap());
        // Connections to it are taken by the kernel, and nobody ever reads.
        let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let released = Arc::new(AtomicBool::new(false));
        let clusters = [
            cluster("peer", peer(Arc::clone(&released))),
            cluster("nobody", wait::address().unwrap()),
            cluster("silent", silent.local_addr().unwrap()),
        ];
        let bootstrap = json!({
            "admin": {"address": socket(admin)},
            "node": {"id": "probe", "cluster": "probe"},
            "static_resources": {"listeners": [listener(listen)], "clusters": clusters},
        });
        let file = dir.path().join("envoy.json");
        std::fs::write(&file, bootstrap.to_string()).unwrap();
        let mut command = Command::new(env::path(env::ENVOY).unwrap());
        command.arg("--config-path").arg(&file).args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "warn",
        ]);
        let mut envoy = Process::start("envoy", dir.path(), command).unwrap();
        let ready = format!("http://{admin}/ready");
        envoy.wait_ready(|| wait::is_ok(&ready) && wait::accepts(listen)).unwrap();
        Self { listen, released, _silent: silent, _envoy: envoy, _dir: dir }
    }

    fn events(&mut self) -> String {
        self.send("/events", &Headers::default()).join("\n")
    }

    fn until_event(&mut self, text: &str) {
        wait::until(text, LIMIT, || Ok(self.events().contains(text).then_some(()))).unwrap();
    }
}

impl Play for Real {
    fn send(&mut self, path: &str, headers: &Headers) -> Vec<Line> {
        let mut request = Request::new("GET", path);
        for (name, value) in headers.iter() {
            request = request.raw(name, value);
        }
        let answer = request.send(self.listen).unwrap();
        if path == "/trap" {
            // The rest is Envoy's own.
            return seen(answer.status().unwrap().into(), &Headers::default(), b"");
        }
        seen(answer.status().unwrap().into(), &answer.headers, &answer.body)
    }

    fn leave_before_the_answer(&mut self) {
        let mut connection = Connection::open(self.listen).unwrap();
        connection.send(&Request::new("GET", "/late").bytes()).unwrap();
        // Another request on this worker is answered after that one is held.
        self.events();
        drop(connection);
        self.until_event("the stream ends while its call-out is on its way");
        self.released.store(true, Ordering::SeqCst);
        self.until_event("an answer whose stream is gone");
    }

    fn let_ticks_pass(&mut self) {
        wait::until("ticks", LIMIT, || {
            let lines = self.send("/ticks", &Headers::default());
            Ok(lines.iter().any(|line| line.ends_with("true")).then_some(()))
        })
        .unwrap();
        self.until_event("which asked for itself");
    }

    fn wait_for_reload(&mut self) {
        // A path that the probe does not know is let through.
        wait::until("the VM is loaded again", LIMIT, || {
            let lines = self.send("/passes", &Headers::default());
            Ok((lines.first().map(String::as_str) == Some("200")).then_some(()))
        })
        .unwrap();
    }
}

fn listener(listen: SocketAddr) -> Value {
    let upstream = "x-p-set=%REQ(x-p-set)% x-p-gone= x-p-dup=%REQ(x-p-dup)%";
    json!({
        "name": "probe",
        "address": socket(listen),
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "probe",
                "route_config": {"name": "probe", "virtual_hosts": [{
                    "name": "probe",
                    "domains": ["*"],
                    "routes": [{
                        "match": {"prefix": "/"},
                        "direct_response": {
                            "status": 200,
                            "body_format": {"text_format_source": {"inline_string": upstream}},
                        },
                    }],
                }]},
                "http_filters": [filter(), {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
            },
        }]}],
    })
}

fn filter() -> Value {
    json!({
        "name": "probe",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": "probe",
                "failure_policy": "FAIL_RELOAD",
                "reload_config": {"backoff": {"base_interval": "1s"}},
                "vm_config": {
                    "vm_id": "probe",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": env::path(env::PROBE).unwrap()}},
                    "environment_variables": {"key_values": {VARIABLE.0: VARIABLE.1}},
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": CONFIGURATION,
                },
            },
        },
    })
}

fn socket(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

/// Answers everything, `/late` not before it may.
fn peer(released: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let released = Arc::clone(&released);
            std::thread::spawn(move || converse(stream, &released));
        }
    });
    address
}

fn converse(stream: TcpStream, released: &AtomicBool) {
    let mut out = stream.try_clone().unwrap();
    let mut requests = BufReader::new(stream);
    while let Ok(Some(request)) = Message::read(&mut requests, false) {
        if request.start.contains("/late") {
            let go = || Ok(released.load(Ordering::SeqCst).then_some(()));
            wait::until("the client has left", LIMIT, go).unwrap();
        }
        let size = ANSWER.len();
        let answer =
            format!("HTTP/1.1 200 OK\r\nx-p-a: 1\r\ncontent-length: {size}\r\n\r\n{ANSWER}");
        out.write_all(answer.as_bytes()).unwrap();
    }
}
