//! X7 in real Envoy, in both ways of deploying the module: where the host lets bodies come while headers wait
//! (EnvoyFilter), and where it does not (WasmPlugin). In neither does a body that does not fit reach the upstream.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use gatehouse_tests::{
    env,
    envoy::{self, Gateway},
    h2::{self, End},
    http::{Connection, Message, Request},
    wait,
};
use gatehouse_xtask::render::validate::filter;
use serde_json::{Value, json};
use tempfile::TempDir;

const AGENTS: &str = "/api/v1/registry/agents";
/// A path without a schema.
const OTHER: &str = "/api/v1/registry/other";
/// In every body that must not arrive.
const MARK: &str = "must-not-arrive";
const LIMIT: usize = 600_000;

/// What came, by connection.
type Came = Arc<Mutex<BTreeMap<usize, Vec<u8>>>>;

/// An upstream that keeps every byte that came, by connection, whether or not a request was ever whole.
struct Upstream {
    address: SocketAddr,
    came: Came,
}

impl Upstream {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let came = Came::default();
        let all = Arc::clone(&came);
        thread::spawn(move || {
            for (number, peer) in listener.incoming().flatten().enumerate() {
                let all = Arc::clone(&all);
                thread::spawn(move || keep(peer, number, &all));
            }
        });
        Self { address, came }
    }

    fn took(&self) -> Vec<Vec<u8>> {
        let came = std::mem::take(&mut *self.came.lock().unwrap_or_else(PoisonError::into_inner));
        came.into_values().collect()
    }
}

/// One request per connection: answered once it is whole.
fn keep(mut peer: TcpStream, number: usize, all: &Mutex<BTreeMap<usize, Vec<u8>>>) {
    let mut bytes = Vec::new();
    let mut piece = [0; 65_536];
    while let Ok(size @ 1..) = peer.read(&mut piece) {
        bytes.extend_from_slice(&piece[..size]);
        // A connection may be there, and idle, long before its request.
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(number).or_default().extend_from_slice(&piece[..size]);
        drop(all);
        if matches!(Message::read(&mut bytes.as_slice(), false), Ok(Some(_))) {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
            // A peer that left misses it.
            drop(peer.write_all(answer));
            return;
        }
    }
}

struct Chain {
    gateway: Gateway,
    upstream: Upstream,
    _dir: TempDir,
}

fn document(hold_headers: bool) -> Value {
    json!({
        "hold_headers": hold_headers,
        "routes": [{
            "method": "POST",
            "path": AGENTS,
            "max_body_bytes": LIMIT,
            "schema": {
                "type": "object",
                "properties": {"name": {"type": "string", "pattern": "^[a-z]+$"}},
                "required": ["name"],
            },
        }],
    })
}

/// One worker, so that a stream that is held is held in the VM that serves the next one.
fn chain(document: &Value, let_bodies_come: bool) -> Chain {
    wait::until("an Envoy", wait::START, || {
        let dir = tempfile::tempdir()?;
        let upstream = Upstream::start();
        let mut configuration = envoy::bare(dir.path(), upstream.address)?;
        configuration.workers = 1;
        configuration.patch(|bootstrap| {
            let module = env::path(env::VALIDATE).ok()?.display().to_string();
            let mut ours = filter(document, &module);
            *ours.pointer_mut("/typed_config/config/allow_on_headers_stop_iteration")? =
                json!(let_bodies_come);
            let filters = envoy::manager(bootstrap)?.get_mut("http_filters")?.as_array_mut()?;
            filters.insert(0, ours);
            Some(())
        })?;
        let gateway = Gateway::run(dir.path(), configuration)?;
        Ok(Some(Chain { gateway, upstream, _dir: dir }))
    })
    .unwrap()
}

fn both() -> [(bool, Chain); 2] {
    [true, false].map(|hold| (hold, chain(&document(hold), hold)))
}

fn post(body: &str) -> Request {
    Request::new("POST", AGENTS).header("X-Request-ID", "r-1").body("application/json", body)
}

#[track_caller]
fn problem(answer: &Message, status: u16, code: &str) -> Value {
    assert_eq!(answer.status().unwrap(), status, "{answer:?}");
    assert_eq!(answer.headers.all("content-type"), ["application/problem+json"]);
    let problem = answer.json().unwrap();
    assert_eq!((&problem["code"], &problem["request_id"]), (&json!(code), &json!("r-1")));
    problem
}

impl Chain {
    /// What the upstream had when the answer was there: nothing where headers wait, and else no byte of the body.
    #[track_caller]
    fn kept_from_the_upstream(&self, hold: bool) {
        // A later request is whole at the upstream, so that what came before it is there too.
        assert_eq!(
            post(r#"{"name":"later"}"#).send(self.gateway.listen).unwrap().status().unwrap(),
            200
        );
        let came = self.upstream.took();
        let text: Vec<String> =
            came.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
        assert!(text.iter().any(|text| text.contains("later")), "{text:?}");
        assert!(!text.iter().any(|text| text.contains(MARK)), "{text:?}");
        if hold {
            assert_eq!(text.len(), 1, "{text:?}");
        }
        for text in text.iter().filter(|text| !text.contains("later")) {
            // At most the head came, and of a body nothing.
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            assert_eq!(body, "", "{text}");
        }
    }

    fn sound(&self) {
        assert_eq!(
            self.gateway.stat("wasm.validate.vm_reload_success").unwrap(),
            0,
            "a VM was lost"
        );
    }
}

#[test]
fn x7_in_both_deployments_only_a_fitting_body_reaches_the_upstream() {
    for (hold, chain) in both() {
        let good = format!(r#"{{"name":"abc","more":"{}"}}"#, "x".repeat(300_000));
        assert_eq!(post(&good).send(chain.gateway.listen).unwrap().status().unwrap(), 200);
        let came = chain.upstream.took();
        let message = Message::read(&mut came.last().unwrap().as_slice(), false).unwrap().unwrap();
        assert_eq!(message.body, good.as_bytes());
        let long = format!(r#"{{"name":"ABC","more":"{MARK}{}"}}"#, "x".repeat(300_000));
        for (body, status, code, pointer) in [
            (format!(r#"{{"name":"{MARK}"}}"#), 422, "body_invalid", Some("/name")),
            (format!(r#"{{"more":"{MARK}"}}"#), 422, "body_invalid", Some("/name")),
            (long, 422, "body_invalid", Some("/name")),
            (format!(r#"["{MARK}"]"#), 422, "body_invalid", Some("")),
            (format!(r#"{{"name":"abc","x":"{MARK}""#), 400, "body_malformed", None),
            (format!(r#"{{"name":"abc","name":"{MARK}"}}"#), 400, "body_malformed", None),
            (format!(r#"{{"name":"{MARK}{}"}}"#, "x".repeat(LIMIT)), 413, "body_too_large", None),
        ] {
            let told = problem(&post(&body).send(chain.gateway.listen).unwrap(), status, code);
            assert_eq!(told.pointer("/errors/0/pointer").and_then(Value::as_str), pointer);
            chain.kept_from_the_upstream(hold);
        }
        let text =
            Request::new("POST", AGENTS).header("X-Request-ID", "r-1").body("text/plain", MARK);
        problem(&text.send(chain.gateway.listen).unwrap(), 415, "media_type_unsupported");
        chain.kept_from_the_upstream(hold);
        chain.sound();
    }
}

#[test]
fn x7_a_body_in_many_pieces_is_judged_as_one() {
    for (hold, chain) in both() {
        let head = format!(
            "POST {AGENTS} HTTP/1.1\r\nHost: a\r\nX-Request-ID: r-1\r\nContent-Type: application/json\r\n"
        );
        let chunks = |body: &str| -> String {
            let chunks = body.chars().map(|letter| format!("1\r\n{letter}\r\n"));
            chunks.chain(["0\r\n\r\n".to_owned()]).collect()
        };
        let ask = |body: &str| {
            let mut client = Connection::open(chain.gateway.listen).unwrap();
            client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).unwrap();
            let chunks = chunks(body);
            let (one, other) = chunks.split_at(chunks.len() / 2);
            client.send(one.as_bytes()).unwrap();
            // Another stream in between: the held one is held alone.
            assert_eq!(
                post(r#"{"name":"between"}"#).send(chain.gateway.listen).unwrap().status().unwrap(),
                200
            );
            client.send(other.as_bytes()).unwrap();
            client.response().unwrap()
        };
        assert_eq!(ask(r#"{"name":"abc"}"#).status().unwrap(), 200);
        chain.upstream.took();
        problem(&ask(&format!(r#"{{"name":"{MARK}"}}"#)), 422, "body_invalid");
        chain.upstream.took().iter().for_each(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            assert!(!text.contains("1\r\nm\r\n") && !text.contains(MARK), "{text}");
        });
        chain.kept_from_the_upstream(hold);
        // A client that leaves in the middle of its body leaves nothing behind.
        let mut client = Connection::open(chain.gateway.listen).unwrap();
        client
            .send(format!("{head}Content-Length: 100\r\n\r\n{{\"name\":\"{MARK}").as_bytes())
            .unwrap();
        drop(client);
        chain.kept_from_the_upstream(hold);
        chain.sound();
    }
}

#[test]
fn x7_trailers_end_a_body_and_what_has_no_schema_streams_through() {
    for (hold, chain) in both() {
        let fields: [(&[u8], &[u8]); 5] = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"a"),
            (b":path", AGENTS.as_bytes()),
            (b"content-type", b"application/json"),
        ];
        let to = chain.gateway.listen;
        for (body, arrives) in [(r#"{"name":"abc"}"#, true), (r#"{"name":"ABC"}"#, false)] {
            let trailers: [(&[u8], &[u8]); 1] = [(b"x-a", b"1")];
            let end = h2::exchange(to, &fields, body.as_bytes(), &trailers).unwrap();
            assert!(matches!(end, End::Answered), "{end:?}");
            let came = chain.upstream.took();
            let arrived = came.iter().any(|bytes| String::from_utf8_lossy(bytes).contains(body));
            assert_eq!(arrived, arrives, "{came:?}");
        }
        // Larger than anything that is held.
        let large = "not json ".repeat(300_000);
        let answer =
            Request::new("POST", OTHER).body("text/plain", large.as_str()).send(to).unwrap();
        assert_eq!(answer.status().unwrap(), 200);
        let came = chain.upstream.took();
        let message = Message::read(&mut came.last().unwrap().as_slice(), false).unwrap().unwrap();
        assert_eq!(message.body, large.as_bytes());
        chain.kept_from_the_upstream(hold);
        chain.sound();
    }
}

#[test]
fn x7_a_host_that_lets_no_body_come_must_not_be_told_to_hold_headers() {
    let chain = chain(&document(true), false);
    let mut waiting = Connection::open(chain.gateway.listen).unwrap();
    waiting.send(&post(&format!(r#"{{"name":"abc","more":"{MARK}"}}"#)).bytes()).unwrap();
    let other = Request::new("POST", OTHER).body("text/plain", "x");
    assert_eq!(other.send(chain.gateway.listen).unwrap().status().unwrap(), 200);
    drop(waiting);
    // It was still waiting when its client left: closed, not open.
    let left = "http.gateway.downstream_cx_destroy_remote_active_rq";
    wait::until("the client's leave", Duration::from_secs(20), || {
        Ok((chain.gateway.stat(left)? == 1).then_some(()))
    })
    .unwrap();
    let came = chain.upstream.took();
    assert!(!came.iter().any(|bytes| String::from_utf8_lossy(bytes).contains(MARK)));
}
