//! Ten thousand who wait.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{metric, submitted, tell};
use crate::world::{World, until};

const CROWD: usize = 10_000;
/// Every so many waits for an answer; the others read streams.
const POLLS: usize = 11;
const EXECUTIONS: usize = 1000;
/// What one of them may cost the service, its sockets' buffers in the kernel aside.
const BYTES_EACH: u64 = 40 << 10;

fn resident_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn open_files(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

#[test]
fn ee44_ten_thousand_who_wait_cost_no_connections_no_queries_and_little_memory() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let (token, first) = submitted(&world, &tenant);
    world.database.query(&format!(
        "INSERT INTO executions (tenant_id, id, agent_id, agent_version_id, created_by, sealed_input)
         SELECT tenant_id, gen_random_uuid(), agent_id, agent_version_id, 'x', sealed_input
         FROM executions, generate_series(2, {EXECUTIONS}) WHERE id = '{first}';
         INSERT INTO event_store (tenant_id, aggregate_kind, aggregate_id, id, kind, schema_version, payload, subject,
            request_id)
         SELECT tenant_id, 'execution', id, gen_random_uuid(), 'execution.queued', 1, '{{}}', 'x', 'x'
         FROM executions WHERE id <> '{first}'"
    ));
    let ids: Vec<String> = world
        .database
        .query("SELECT id FROM executions ORDER BY id")
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(ids.len(), EXECUTIONS);
    let process = world.service.id();
    let (memory, files) = (resident_bytes(process), open_files(process));
    let address = world.service.url.strip_prefix("http://").unwrap();
    let open = |n: usize| {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let id = &ids[n % EXECUTIONS];
        let polls = n.is_multiple_of(POLLS);
        let what = if polls { "?wait=60" } else { "/events" };
        write!(
            socket,
            "GET /api/v1/runtime/executions/{id}{what} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n"
        )
        .unwrap();
        if !polls {
            let mut head = [0; 12];
            socket.read_exact(&mut head).unwrap();
            assert_eq!(&head, b"HTTP/1.1 200");
        }
        socket
    };
    // Those who wait for an answer last: it comes in a minute.
    let order = |polls: bool| (0..CROWD).filter(move |n| n.is_multiple_of(POLLS) == polls);
    let mut crowd: Vec<(usize, TcpStream)> = Vec::new();
    for polls in [false, true] {
        let all: Vec<usize> = order(polls).collect();
        let opened = std::thread::scope(|scope| {
            let threads: Vec<_> = all
                .chunks(all.len().div_ceil(4))
                .map(|part| scope.spawn(|| part.iter().map(|n| (*n, open(*n))).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        crowd.extend(opened);
    }
    let watchers = || metric(&world, "gatehouse_execution_watchers").unwrap();
    until(|| (watchers() == CROWD as u64).then_some(()));
    assert_eq!(metric(&world, "gatehouse_execution_watched"), Some(EXECUTIONS as u64));

    let each = resident_bytes(process).saturating_sub(memory) / CROWD as u64;
    let more_files = open_files(process).saturating_sub(files);
    assert!(each < BYTES_EACH, "{each} bytes each");
    assert!(more_files <= CROWD + 100, "{more_files} files");
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()";
    let connections: u32 = world.database.query(connections).parse().unwrap();
    assert!(connections < 60, "{connections} connections");
    // Nothing happens: a look for all of them now and then, and whether the one credential still stands. (PostgreSQL counts
    // what was asked before with a delay.)
    let asked = "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname = current_database()";
    let ask = || world.database.query(asked).parse::<u64>().unwrap();
    let (queries, took) = until(|| {
        let (began, before) = (Instant::now(), ask());
        let looks = metric(&world, "gatehouse_execution_looks_total").unwrap();
        until(|| (metric(&world, "gatehouse_execution_looks_total")? >= looks + 20).then_some(()));
        let (queries, took) = (ask() - before, began.elapsed().as_secs() + 1);
        (queries < 40 * took).then_some((queries, took))
    });
    println!(
        "{each} bytes each, {more_files} files, {connections} connections, {queries} transactions in {took} s"
    );

    // One thing happens: those who wait for it hear of it, and nobody else.
    tell(&world, &tenant, &first, "execution.unqueued", &json!({}));
    let nth = ids.iter().position(|id| *id == first).unwrap();
    let concerned: Vec<_> = crowd.iter_mut().filter(|(n, _)| n % EXECUTIONS == nth).collect();
    assert_eq!(concerned.len(), CROWD / EXECUTIONS);
    for (n, socket) in concerned {
        let mut said = String::new();
        let expected = if n.is_multiple_of(POLLS) { "\"state\"" } else { "execution.unqueued" };
        while !said.contains(expected) {
            let mut part = [0; 4096];
            let count = socket.read(&mut part).unwrap();
            assert!(count > 0, "{said}");
            said += &String::from_utf8_lossy(&part[..count]);
        }
    }
    drop(crowd);
    until(|| (watchers() == 0).then_some(()));
    assert_eq!(metric(&world, "gatehouse_execution_watched"), Some(0));
    until(|| (open_files(process) <= files + 50).then_some(()));
}
