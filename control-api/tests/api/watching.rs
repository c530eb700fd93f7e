//! Seeing an execution while it goes on, over the service's real socket: answers that wait, streams of events, and what ten
//! thousand who wait cost.

mod crowd;
mod logs;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::{
    access::refused,
    audit::ending,
    http::send,
    world::{Tenant, World, until},
};

/// What is waited for comes within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// One server-sent event.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub id: String,
    pub event: String,
    pub data: Value,
}

/// A stream that is being read.
pub struct Stream {
    lines: BufReader<TcpStream>,
    pub status: u16,
    pub head: String,
}

impl Stream {
    /// Asks for `path`; HTTP/1.0, so that the body is as it is until the connection ends.
    pub fn open(world: &World, token: &str, path: &str, after: Option<&str>) -> Self {
        let address = world.service.url.strip_prefix("http://").unwrap();
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let after = after.map_or_else(String::new, |id| format!("last-event-id: {id}\r\n"));
        write!(
            socket,
            "GET {path} HTTP/1.0\r\nhost: a\r\nauthorization: Bearer {token}\r\n{after}\r\n"
        )
        .unwrap();
        let mut stream = Self { lines: BufReader::new(socket), status: 0, head: String::new() };
        while let Some(line) = stream.line().filter(|line| !line.is_empty()) {
            stream.head += &(line.to_lowercase() + "\n");
        }
        stream.status = stream.head.split(' ').nth(1).unwrap().parse().unwrap();
        stream
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => panic!("nothing was told: {error}"),
        }
    }

    /// The next event; `None` at the stream's end.
    pub fn next(&mut self) -> Option<Told> {
        let mut told = Told { id: String::new(), event: String::new(), data: Value::Null };
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some(("id", id)) => told.id = id.to_owned(),
                Some(("event", event)) => told.event = event.to_owned(),
                Some(("data", data)) => told.data = serde_json::from_str(data).unwrap(),
                _ if line.is_empty() && !told.event.is_empty() => return Some(told),
                _ => {}
            }
        }
    }

    /// All that comes until its end.
    pub fn rest(mut self) -> Vec<Told> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// An execution that waits: its tenant's developer, and its id.
pub fn submitted(world: &World, tenant: &Tenant) -> (String, String) {
    let token = world.member(tenant, "admin");
    world.published(tenant, &token, "fuel");
    let id = submit(world, &token);
    (token, id)
}

pub fn submit(world: &World, token: &str) -> String {
    let run = json!({"agent": "fuel", "version": "1.0.0"});
    let made = world.post(token, "/api/v1/runtime/executions", run);
    assert_eq!(made.status, 202, "{}", made.text);
    made.json()["id"].as_str().unwrap().to_owned()
}

/// Tells of an execution what a job would.
pub fn tell(world: &World, tenant: &Tenant, id: &str, kind: &str, payload: &Value) {
    world.database.query(&format!(
        "INSERT INTO event_store (tenant_id, aggregate_kind, aggregate_id, id, kind, schema_version, payload, subject,
            request_id)
         VALUES ('{}', 'execution', '{id}', gen_random_uuid(), '{kind}', 1, '{payload}', 'job', 'job')",
        tenant.id
    ));
}

pub fn is_now(world: &World, id: &str, state: &str) {
    world.database.query(&format!(
        "UPDATE executions SET state = '{state}', worker = 'w', lease_epoch = greatest(lease_epoch, 1), attempt = 1,
            started_at = coalesce(started_at, now()) WHERE id = '{id}'"
    ));
}

fn ended() -> Value {
    json!({"end_reason": "completed", "output": null, "error": null, "completed_at": "2026-01-01T00:00:00Z"})
}

#[test]
fn an_answer_waits_for_the_next_change_and_no_longer_than_it_may() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let (token, id) = submitted(&world, &tenant);
    let path = format!("/api/v1/runtime/executions/{id}");
    let timed = |path: &str| {
        let began = Instant::now();
        let answer = world.get(&token, path);
        assert_eq!(answer.status, 200, "{}", answer.text);
        (answer.json()["state"].as_str().unwrap().to_owned(), began.elapsed())
    };
    // Nothing happens: as it is, at the bound.
    let (state, took) = timed(&format!("{path}?wait=1"));
    assert_eq!(state, "pending");
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&took), "{took:?}");
    // Something does: as it is then, long before the bound; which is beyond what any other answer may take.
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| timed(&format!("{path}?wait=60s")));
        until(|| metric(&world, "gatehouse_execution_watchers").filter(|count| *count == 1));
        is_now(&world, &id, "queued");
        tell(&world, &tenant, &id, "execution.queued", &json!({}));
        let (state, took) = waits.join().unwrap();
        assert_eq!(state, "queued");
        assert!(took < Duration::from_secs(30), "{took:?}");
    });
    // By preference, which is said to be followed; and one that waits beyond 15 s.
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("prefer", "respond-async, wait=17")];
    let began = Instant::now();
    let answer = send("GET", &format!("{}{path}", world.service.url), &headers, None);
    assert_eq!((answer.status, answer.header("preference-applied")), (200, Some("wait=17")));
    assert!(began.elapsed() >= Duration::from_secs(17));
    // What is settled is not waited for.
    is_now(&world, &id, "completed");
    tell(&world, &tenant, &id, "execution.completed", &ended());
    let (state, took) = timed(&format!("{path}?wait=60"));
    assert_eq!(state, "completed");
    assert!(took < Duration::from_secs(10), "{took:?}");
    for bad in ["wait=61", "wait=x", "wait=1&wait=1", "other=1"] {
        refused(&world.get(&token, &format!("{path}?{bad}")), 400, "query_invalid");
    }
    let other = world.tenant("tenant-b");
    let stranger = world.member(&other, "admin");
    let began = Instant::now();
    refused(&world.get(&stranger, &format!("{path}?wait=60")), 404, "not_found");
    assert!(began.elapsed() < Duration::from_secs(10), "whoever may not see it does not wait");
}

pub fn metric(world: &World, name: &str) -> Option<u64> {
    let text = send("GET", &format!("{}/metrics", world.service.admin), &[], None).text;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")))?;
    line.parse().ok()
}

#[test]
fn events_are_told_in_order_and_a_reader_goes_on_without_gap_or_double() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let (token, id) = submitted(&world, &tenant);
    let path = format!("/api/v1/runtime/executions/{id}/events");
    let mut stream = Stream::open(&world, &token, &path, None);
    assert_eq!(stream.status, 200, "{}", stream.head);
    assert!(stream.head.contains("content-type: text/event-stream"), "{}", stream.head);
    let first = stream.next().unwrap();
    assert_eq!((first.id.as_str(), first.event.as_str()), ("1", "execution.submitted"));
    assert_eq!(first.data["payload"]["input"], Value::Null);
    // It is cut off after each event, and goes on behind it: whatever is told in between or while nobody reads.
    let mut seen = vec![first.id];
    for n in 2..8 {
        let kind = if n % 2 == 0 { "execution.queued" } else { "execution.unqueued" };
        if n % 3 == 0 {
            drop(stream);
            tell(&world, &tenant, &id, kind, &json!({}));
            stream = Stream::open(&world, &token, &path, seen.last().map(String::as_str));
        } else {
            tell(&world, &tenant, &id, kind, &json!({}));
        }
        let told = stream.next().unwrap();
        assert_eq!(told.event, kind);
        seen.push(told.id);
    }
    is_now(&world, &id, "completed");
    tell(&world, &tenant, &id, "execution.completed", &ended());
    let rest = stream.rest();
    assert_eq!(rest.len(), 1, "it ends behind the terminal event: {rest:?}");
    seen.push(rest[0].id.clone());
    let all: Vec<String> = (1..=8).map(|n| n.to_string()).collect();
    assert_eq!(seen, all);
    // From anywhere, all that is behind; at the end there is nothing, and an EventSource stops.
    for (after, expected) in [(None, 8), (Some("0"), 8), (Some("5"), 3), (Some("7"), 1)] {
        let told = Stream::open(&world, &token, &path, after).rest();
        assert_eq!(told.len(), expected, "{after:?}");
        assert_eq!(told.last().unwrap().event, "execution.completed");
    }
    assert_eq!(Stream::open(&world, &token, &path, Some("8")).status, 204);
    // What somebody starts anew goes on.
    is_now(&world, &id, "pending");
    tell(&world, &tenant, &id, "execution.replayed", &json!({}));
    let mut stream = Stream::open(&world, &token, &path, Some("8"));
    assert_eq!(stream.next().unwrap().event, "execution.replayed");
    // Refusals come before the stream.
    let bearer = format!("Bearer {token}");
    let url = format!("{}{path}", world.service.url);
    for bad in ["10", "x", "-1", "1.0", ""] {
        let headers = [("authorization", bearer.as_str()), ("last-event-id", bad)];
        refused(&send("GET", &url, &headers, None), 400, "header_invalid");
    }
    refused(&world.get(&token, &format!("{path}?x=1")), 400, "query_invalid");
    let other = world.tenant("tenant-b");
    let stranger = world.member(&other, "viewer");
    refused(&world.get(&stranger, &path), 404, "not_found");
}

#[test]
fn a_stream_ends_with_its_readers_right_to_it_and_with_the_process() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let (token, id) = submitted(&world, &tenant);
    let path = format!("/api/v1/runtime/executions/{id}/events");
    let open = |token: &str| {
        let mut stream = Stream::open(&world, token, &path, None);
        assert_eq!(stream.next().unwrap().event, "execution.submitted");
        stream
    };
    let ends = |stream: Stream, within: Duration| {
        let began = Instant::now();
        assert_eq!(stream.rest(), [], "nothing is told behind the end");
        assert!(began.elapsed() < within, "{:?}", began.elapsed());
    };
    let client = world.client(&tenant, "viewer");
    let theirs = world.token_of(&client);
    let reads = open(&theirs);
    let still = open(&token);
    let revoke = client["client_id"].as_str().unwrap();
    let revoke = format!("/api/v1/factory/tenants/{}/clients/{revoke}/revoke-tokens", tenant.id);
    assert_eq!(world.as_platform("POST", &revoke, "a test", None).status, 204);
    ends(reads, Duration::from_secs(10));
    // 60 s behind its end it is over, for the clocks' sake.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    ends(open(&ending(&world, &token, now - 60 + 3)), Duration::from_secs(20));
    // An answer that waits is none for whoever may no longer have it.
    let theirs = world.token_of(&client);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let path = format!("/api/v1/runtime/executions/{id}?wait=60");
            world.get(&theirs, &path)
        });
        until(|| metric(&world, "gatehouse_execution_watchers").filter(|count| *count == 2));
        assert_eq!(world.as_platform("POST", &revoke, "a test", None).status, 204);
        refused(&waits.join().unwrap(), 401, "token_invalid");
    });
    // Nobody else's ended; and all do with the process, long before it cuts anything off.
    let began = Instant::now();
    world.service.tell_to_stop();
    ends(still, Duration::from_secs(8));
    assert!(world.service.stop().success());
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}
