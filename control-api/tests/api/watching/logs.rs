//! What agents log, kept and as it comes: with the sealed parts that a worker leaves in Redis, and the sealed end that it
//! leaves in the record.

use gatehouse_contract::{ExecutionId, TenantId};
use gatehouse_redis_kit::logs::{Logs, Part, Place};
use gatehouse_store::{Actor, MasterKeys, OffsetDateTime, OpCtx, Store, Urls, logs::LogSeal};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{Stream, Told, ended, is_now, metric, submitted, tell};
use crate::{
    access::refused,
    database::Database,
    redis::Redis,
    world::{Setup, Tenant, World, until},
};

/// What a worker does, without one.
struct Worker {
    runtime: Runtime,
    logs: Logs,
    seal: LogSeal,
    place: Place,
    end: u64,
}

impl Worker {
    fn new(world: &World, redis: &Redis, tenant: &Tenant, id: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let (tenant, execution): (TenantId, ExecutionId) =
            (tenant.id.parse().unwrap(), id.parse().unwrap());
        let (logs, seal) = runtime.block_on(async {
            let urls = Urls { app: world.database.url("gatehouse_app"), admin: None, system: None };
            let keys = MasterKeys::from_file(&world.setup.dir.path().join("key")).unwrap();
            let store = Store::connect(&urls).await.unwrap().with_keys(keys);
            let op = OpCtx {
                tenant,
                subject: "worker".to_owned(),
                actor: Actor::System,
                request_id: "r".to_owned(),
                traceparent: None,
                now: OffsetDateTime::UNIX_EPOCH,
            };
            let patience = std::time::Duration::from_secs(3);
            (
                Logs::new(&redis.address("worker"), patience).unwrap(),
                store.log_seal(&op).await.unwrap(),
            )
        });
        let place = Place { tenant, execution, epoch: 1 };
        Self { runtime, logs, seal, place, end: 0 }
    }

    /// Leaves a part behind those before.
    fn says(&mut self, bytes: &[u8]) {
        let from = self.end;
        self.end += bytes.len() as u64;
        let sealed = self.seal.seal((self.place.execution, self.place.epoch, from), bytes).unwrap();
        let part = Part { from, end: self.end, sealed };
        self.runtime.block_on(self.logs.add(&self.place, &part, 1)).unwrap();
    }

    /// What is there of it.
    fn there(&self, redis: &Redis) -> Vec<Part> {
        let patience = std::time::Duration::from_secs(3);
        let logs = Logs::new(&redis.address("control"), patience).unwrap();
        self.runtime.block_on(logs.behind(&self.place, 0)).unwrap()
    }

    /// The end of the attempt: the last of what was said, and how much that was.
    fn keeps(&self, world: &World, tail: &[u8], total: u64) {
        // The store keeps it with an attempt's end alone, in a row that is sealed for its place.
        let Place { tenant, execution, epoch } = self.place;
        let sealed: String = self
            .seal
            .seal_tail((execution, epoch), tail)
            .unwrap()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        world.database.query(&format!(
            "INSERT INTO execution_logs (tenant_id, execution_id, lease_epoch, at, attempt, total_bytes, sealed_tail)
             VALUES ('{tenant}', '{execution}', {epoch}, now(), {epoch}, {total}, '\\x{sealed}')"
        ));
    }
}

fn world() -> (World, Redis) {
    let database = Database::migrated();
    let mut setup = Setup::new(&database);
    let redis = Redis::start(setup.dir.path());
    setup.config["database"]["system"] = json!(database.url("gatehouse_system"));
    setup.config["redis"] = json!({"url": redis.url("control")});
    (World::of(database, setup), redis)
}

fn texts(told: &[Told]) -> Vec<&str> {
    told.iter().filter_map(|one| one.data["text"].as_str()).collect()
}

#[test]
fn lines_are_followed_from_redis_to_the_record_and_a_reader_goes_on_in_between() {
    let (world, redis) = world();
    let tenant = world.tenant("tenant-a");
    let (token, id) = submitted(&world, &tenant);
    let path = format!("/api/v1/runtime/executions/{id}/logs");
    let follow = format!("{path}?follow=true");
    // Before there is an attempt there is nothing, and it is waited for.
    assert_eq!(world.get(&token, &path).json()["lines"], json!([]));
    let mut stream = Stream::open(&world, &token, &follow, None);
    assert_eq!(stream.status, 200, "{}", stream.head);
    let mut worker = Worker::new(&world, &redis, &tenant, &id);
    is_now(&world, &id, "running");
    tell(
        &world,
        &tenant,
        &id,
        "execution.started",
        &json!({"worker": "w", "lease_epoch": 1,
        "attempt": 1, "started_at": "2026-01-01T00:00:00Z"}),
    );
    worker.says(b"one\ntwo\n");
    let first = [stream.next().unwrap(), stream.next().unwrap()];
    assert_eq!(texts(&first), ["one", "two"]);
    assert_eq!((first[0].id.as_str(), first[1].id.as_str()), ("1-4", "1-8"));
    // What nobody but its tenant may read is nowhere in the clear.
    let kept = worker.there(&redis);
    assert!(kept.len() == 1 && !kept[0].sealed.windows(3).any(|part| part == b"one"), "{kept:?}");
    // Cut off, and on behind the first line.
    drop(stream);
    worker.says(b"\x1b[31mthree\xff\0\xc2\x9b\n");
    let mut stream = Stream::open(&world, &token, &follow, Some("1-4"));
    let next = [stream.next().unwrap(), stream.next().unwrap()];
    assert_eq!(texts(&next), ["two", "\u{1b}[31mthree\u{fffd}\0\u{9b}"]);
    let shown = world.get(&token, &path);
    assert!(
        shown.text.bytes().all(|byte| byte >= b' ') && shown.text.contains("\\u009b"),
        "{}",
        shown.text
    );
    let shown = shown.json();
    assert_eq!((&shown["live"], &shown["total_bytes"]), (&json!(true), &json!(23)));
    // Some of it never came to Redis: the record has the end, and what is nowhere is said to be missing.
    let total = worker.end + 100;
    worker.keeps(&world, b"ne\nlast\n", total);
    is_now(&world, &id, "completed");
    tell(&world, &tenant, &id, "execution.completed", &ended());
    let rest = stream.rest();
    let events: Vec<&str> = rest.iter().map(|told| told.event.as_str()).collect();
    assert_eq!(events, ["dropped", "line", "line", "end"], "{rest:?}");
    assert_eq!(rest[0].data["dropped_bytes"], json!(total - 8 - 23));
    assert_eq!(texts(&rest), ["ne", "last"]);
    assert_eq!(rest[3].id, format!("1-{total}"));
    assert_eq!(Stream::open(&world, &token, &follow, Some(&rest[3].id)).status, 204);
    // From the record alone, and from behind a line of it.
    let shown = world.get(&token, &path).json();
    assert_eq!((&shown["truncated"], &shown["dropped_bytes"]), (&json!(true), &json!(total - 8)));
    assert_eq!(shown["lines"][0], json!({"end": total - 8, "dropped_bytes": total - 8}));
    assert_eq!(shown["lines"][2]["text"], "last");
    let again = Stream::open(&world, &token, &follow, Some(&rest[1].id)).rest();
    assert_eq!(texts(&again), ["last"]);
    let first = world.get(&token, &format!("{path}?attempt=1")).json();
    assert_eq!(first["lines"], shown["lines"]);
    refused(&world.get(&token, &format!("{path}?attempt=2")), 404, "not_found");
    for bad in ["follow=yes", "attempt=0", "x=1"] {
        refused(&world.get(&token, &format!("{path}?{bad}")), 400, "query_invalid");
    }
    let other = world.tenant("tenant-b");
    let stranger = world.member(&other, "admin");
    refused(&world.get(&stranger, &path), 404, "not_found");
    refused(&world.get(&stranger, &follow), 404, "not_found");
}

#[test]
fn without_redis_a_follower_hears_of_an_attempts_log_at_its_end() {
    let (world, mut redis) = world();
    let tenant = world.tenant("tenant-a");
    let (token, id) = submitted(&world, &tenant);
    let worker = Worker::new(&world, &redis, &tenant, &id);
    is_now(&world, &id, "running");
    redis.end();
    let path = format!("/api/v1/runtime/executions/{id}/logs");
    let shown: Value = world.get(&token, &path).json();
    assert_eq!((&shown["live"], &shown["lines"]), (&json!(true), &json!([])));
    let stream = Stream::open(&world, &token, &format!("{path}?follow=true"), None);
    until(|| metric(&world, "gatehouse_log_watchers").filter(|count| *count == 1));
    worker.keeps(&world, b"all of it\n", 10);
    is_now(&world, &id, "completed");
    tell(&world, &tenant, &id, "execution.completed", &ended());
    assert_eq!(texts(&stream.rest()), ["all of it"]);
}

#[test]
fn a_deleted_tenants_running_logs_are_taken_away() {
    let (world, redis) = world();
    let tenant = world.tenant("tenant-a");
    let (_, id) = submitted(&world, &tenant);
    let mut worker = Worker::new(&world, &redis, &tenant, &id);
    worker.says(b"personal\n");
    let kept = || redis.ask(&["KEYS", &format!("log:{{{}}}*", tenant.id)]);
    assert_eq!(kept().lines().count(), 2, "{}", kept());
    let path = format!("/api/v1/factory/tenants/{}", tenant.id);
    assert_eq!(world.as_platform("DELETE", &path, "a test", None).status, 202);
    until(|| kept().is_empty().then_some(()));
}
