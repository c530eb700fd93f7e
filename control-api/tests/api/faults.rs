//! What clients see while something that the service needs is away, and that nothing is half done then.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    conventions::Beside,
    database::Database,
    http::{Answer, send},
    redis::Redis,
    world::{Service, Setup, World, binary, until},
};

const AGENTS: &str = "/api/v1/registry/agents";
/// What keeps everybody from the registry, as a migration would.
const HELD: &str = "LOCK TABLE agents IN ACCESS EXCLUSIVE MODE;";

fn make_agent(url: &str, token: &str, name: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    send("POST", &format!("{url}{AGENTS}"), &headers, Some(&json!({"name": name}).to_string()))
}

/// A refusal of something that is away: a problem that says when to come again.
fn is_away(answer: &Answer) {
    assert!([503, 504].contains(&answer.status), "{}", answer.text);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    let code = problem["code"].as_str().unwrap();
    // Whoever waited at every step in turn is told so by the bound on the whole.
    let known = ["dependency_unavailable", "identity_unavailable", "answer_timeout"];
    assert!(known.contains(&code), "{problem}");
    let after: u64 = answer.header("retry-after").expect("Retry-After").parse().unwrap();
    assert!((1..=60).contains(&after), "{after}");
}

fn probe(service: &Service, path: &str) -> (u16, Value) {
    let answer = send("GET", &format!("{}{path}", service.admin), &[], None);
    (answer.status, answer.json())
}

/// A world on a PostgreSQL of its own.
fn on(cluster: &Cluster) -> (Setup, Service, String) {
    let owner = cluster.url("gatehouse_owner");
    let out = binary().args(["migrate", "--database", &owner]).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let any = Database::empty();
    let mut setup = Setup::new(&any);
    for door in ["app", "admin", "system"] {
        setup.config["database"][door] = json!(cluster.url(&format!("gatehouse_{door}")));
    }
    let operator = setup.bootstrap(&[]);
    let service = Service::start(&setup);
    let world = World { service, setup, database: any, platform: String::new() };
    let platform = world.token_of(&operator);
    let world = World { platform, ..world };
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    let World { service, setup, .. } = world;
    (setup, service, token)
}

#[test]
fn postgresql_that_restarts_under_load_costs_503s_and_nothing_else() {
    let cluster = Cluster::start();
    let (_setup, service, token) = on(&cluster);
    let (made, refusals) = (Mutex::new(Vec::new()), Mutex::new(0));
    let over = AtomicBool::new(false);
    let url = service.url.clone();
    thread::scope(|scope| {
        for worker in 0..4 {
            let (made, refusals, over, url, token) = (&made, &refusals, &over, &url, &token);
            scope.spawn(move || {
                let mut n = 0;
                while !over.load(SeqCst) {
                    n += 1;
                    let name = format!("agent-{worker}-{n}");
                    let answer = make_agent(url, token, &name);
                    match answer.status {
                        201 => made.lock().unwrap().push(name),
                        _ => {
                            is_away(&answer);
                            *refusals.lock().unwrap() += 1;
                        }
                    }
                }
            });
        }
        for _ in 0..2 {
            let before = made.lock().unwrap().len();
            until(|| (made.lock().unwrap().len() >= before + 8).then_some(()));
            let before = *refusals.lock().unwrap();
            cluster.down();
            until(|| (*refusals.lock().unwrap() >= before + 4).then_some(()));
            assert_eq!(probe(&service, "/livez").0, 200, "the process lives");
            until(|| (probe(&service, "/readyz").0 == 503).then_some(()));
            assert_eq!(probe(&service, "/readyz").1["checks"]["postgres"], "down");
            cluster.up();
            // Without a restart of the service.
            until(|| (probe(&service, "/readyz").0 == 200).then_some(()));
        }
        let before = made.lock().unwrap().len();
        until(|| (made.lock().unwrap().len() >= before + 8).then_some(()));
        over.store(true, SeqCst);
    });
    let made = made.into_inner().unwrap();
    // What was answered is there; a commit whose answer was lost may be, too. Whatever is there was audited, once.
    let there = cluster.query("gatehouse", "SELECT name FROM agents ORDER BY name");
    let there: Vec<&str> = there.lines().collect();
    assert!(made.iter().all(|name| there.contains(&name.as_str())), "{made:?} {there:?}");
    let uneven = "SELECT (SELECT count(*) FROM agents),
        (SELECT count(DISTINCT target_id) FROM tenant_audit WHERE action = 'agent.create'),
        (SELECT count(*) FROM tenant_audit WHERE action = 'agent.create')";
    let count = there.len();
    assert_eq!(cluster.query("gatehouse", uneven), format!("{count}|{count}|{count}"));
}

#[test]
fn a_pool_that_is_used_up_is_said_and_passes() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    // Somebody holds what every request needs, as a migration would.
    let beside = Beside::holding(&world, HELD);
    let url = world.service.url.clone();
    let before = Instant::now();
    thread::scope(|scope| {
        let asks: Vec<_> = (0..40)
            .map(|n| {
                let (url, token) = (&url, &token);
                scope.spawn(move || make_agent(url, token, &format!("agent-{n}")))
            })
            .collect();
        let answers: Vec<Answer> = asks.into_iter().map(|ask| ask.join().unwrap()).collect();
        answers.iter().for_each(is_away);
        assert!(answers.iter().any(|answer| answer.status == 503));
    });
    assert!(before.elapsed() < Duration::from_secs(30), "{:?}", before.elapsed());
    assert_eq!(probe(&world.service, "/livez").0, 200);
    beside.release();
    until(|| (make_agent(&url, &token, "after").status == 201).then_some(()));
    let counts = "SELECT (SELECT count(*) FROM agents),
        (SELECT count(*) FROM tenant_audit WHERE action = 'agent.create')";
    assert_eq!(world.database.query(counts), "1|1");
}

#[test]
fn redis_that_goes_away_costs_no_request() {
    let database = Database::migrated();
    let mut setup = Setup::new(&database);
    let mut redis = Redis::start(setup.dir.path());
    setup.config["redis"] = json!({"url": redis.url("control")});
    setup.config["database"]["system"] = json!(database.url("gatehouse_system"));
    let operator = setup.bootstrap(&[]);
    let service = Service::start(&setup);
    let mut world = World { service, setup, database, platform: String::new() };
    world.platform = world.token_of(&operator);
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    redis.end();
    for n in 0..20 {
        let made = make_agent(&world.service.url, &token, &format!("agent-{n}"));
        assert_eq!(made.status, 201, "{}", made.text);
        let read = world.get(&token, &format!("/api/v1/factory/tenants/{}", tenant.id));
        assert_eq!(read.status, 200, "{}", read.text);
    }
    assert_eq!(probe(&world.service, "/livez").0, 200);
    until(|| {
        let (status, ready) = probe(&world.service, "/readyz");
        (status == 200 && ready["checks"]["cache"] == "unused").then_some(())
    });
}

#[test]
fn what_runs_when_the_service_is_told_to_stop_is_finished() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    let beside = Beside::holding(&world, HELD);
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'agents'::regclass";
    let World { service, database, setup: _setup, .. } = world;
    let (url, admin) = (service.url.clone(), service.admin.clone());
    thread::scope(|scope| {
        let ask = scope.spawn(move || make_agent(&url, &token, "agent-a"));
        until(|| (database.query(waits) != "0").then_some(()));
        service.tell_to_stop();
        // It says that it goes, and what runs goes on.
        until(|| {
            crate::http::agent()
                .get(&format!("{admin}/readyz"))
                .call()
                .map_or(Some(()), |answer| (answer.status() == 503).then_some(()))
        });
        beside.release();
        let answer = ask.join().unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text);
    });
    assert!(service.stop().success());
    assert_eq!(database.query("SELECT count(*) FROM agents"), "1");
}
