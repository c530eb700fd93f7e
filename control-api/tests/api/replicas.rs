//! Reads that a streaming replica answers: never without what was committed before, and never a failure of its own. The
//! commands are those of the runbook.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
};

use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    database::Database,
    http::{Answer, send},
    world::{Service, Setup, Tenant, World, binary, until},
};

mod strangers;

const RUNBOOK: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/runbooks/read-replica.md"));
const AGENTS: &str = "/api/v1/registry/agents";

/// The commands of the runbook under this name.
fn commands(name: &str) -> &'static str {
    let (_, rest) = RUNBOOK.split_once(&format!("```sh {name}\n")).expect(name);
    rest.split_once("```").expect(name).0
}

/// A primary with a replica, and two instances of the service on both.
struct Pair {
    primary: Cluster,
    replica: Cluster,
    /// Its service is the first instance.
    world: World,
    other: Service,
    tenant: Tenant,
    token: String,
}

fn migrated() -> Cluster {
    let primary = Cluster::start();
    let owner = primary.url("gatehouse_owner");
    let out = binary().args(["migrate", "--database", &owner]).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    primary
}

fn replica_of(primary: &Cluster) -> Cluster {
    primary.follow(primary, commands("role"));
    let replica = primary.replica(commands("make"));
    assert_eq!(primary.follow(&replica, commands("stands")), "t|f|t");
    replica
}

fn setup_of(primary: &Cluster, replica: &Cluster, any: &Database) -> Setup {
    let mut setup = Setup::new(any);
    for door in ["app", "admin"] {
        setup.config["database"][door] = json!(primary.url(&format!("gatehouse_{door}")));
    }
    setup.config["database"]["replica"] = json!(replica.url("gatehouse_app"));
    setup
}

impl Pair {
    fn new() -> Self {
        let primary = migrated();
        let replica = replica_of(&primary);
        let any = Database::empty();
        let setup = setup_of(&primary, &replica, &any);
        let world = World::of(any, setup);
        let other = Service::start(&world.setup);
        let tenant = world.tenant("tenant-a");
        let token = world.member(&tenant, "admin");
        let pair = Self { primary, replica, world, other, tenant, token };
        pair.until_used();
        pair
    }

    fn follow(&self, name: &str) -> String {
        self.primary.follow(&self.replica, commands(name))
    }

    fn services(&self) -> [&Service; 2] {
        [&self.world.service, &self.other]
    }

    fn until_used(&self) {
        self.services().iter().for_each(|service| until_it_is(service, "used"));
    }

    fn agent(&self, name: &str) -> String {
        let made = self.world.post(&self.token, AGENTS, json!({"name": name}));
        assert_eq!(made.status, 201, "{}", made.text);
        made.json()["id"].as_str().unwrap().to_owned()
    }

    /// Writes a number where lists show it.
    fn write(&self, service: &Service, agent: &str, number: u64) {
        let body = json!({"description": number.to_string()}).to_string();
        let answer = call(service, &self.token, "PATCH", &format!("{AGENTS}/{agent}"), Some(&body));
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    /// The number that the list shows.
    fn listed(&self, service: &Service, agent: &str) -> u64 {
        let list = get(service, &self.token, AGENTS);
        let items = list["items"].as_array().unwrap().clone();
        let found = items.iter().find(|item| item["id"] == agent);
        let found = found.unwrap_or_else(|| panic!("the agent is not listed: {list}"));
        found["description"].as_str().map_or(0, |text| text.parse().unwrap())
    }

    /// Reads that a replica may answer, of every kind.
    fn paths(&self, agent: &str) -> Vec<String> {
        let tenant = format!("/api/v1/factory/tenants/{}", self.tenant.id);
        let mut paths = vec![
            AGENTS.to_owned(),
            format!("{AGENTS}/{agent}/versions"),
            format!("{AGENTS}/{agent}/history"),
            format!("{AGENTS}/{agent}/state"),
            "/api/v1/runtime/executions".to_owned(),
        ];
        let kinds = [
            "audit",
            "audit/export",
            "usage",
            "users",
            "clients",
            "api-keys",
            "webhooks",
            "organizations",
            "issuers",
        ];
        paths.extend(kinds.map(|kind| format!("{tenant}/{kind}")));
        paths
    }
}

fn call(service: &Service, token: &str, method: &str, path: &str, body: Option<&str>) -> Answer {
    let bearer = format!("Bearer {token}");
    let mut headers = vec![("authorization", bearer.as_str())];
    if body.is_some() {
        headers.extend([("content-type", "application/json"), ("if-match", "*")]);
    }
    send(method, &format!("{}{path}", service.url), &headers, body)
}

fn get(service: &Service, token: &str, path: &str) -> Value {
    let answer = call(service, token, "GET", path, None);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.json_or_null()
}

/// How many reads the replica answered, or the primary for this reason.
fn reads(service: &Service, reason: &str) -> u64 {
    let source = if reason.is_empty() { "replica" } else { "primary" };
    let text = send("GET", &format!("{}/metrics", service.admin), &[], None).text;
    let name = format!("gatehouse_reads_total{{source=\"{source}\",reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).expect(&name).parse().unwrap()
}

/// What it says of the replica; it is ready in any case.
fn word(service: &Service) -> String {
    let ready = send("GET", &format!("{}/readyz", service.admin), &[], None);
    assert_eq!(ready.status, 200, "{}", ready.text);
    ready.json()["checks"]["replica"].as_str().unwrap().to_owned()
}

fn until_it_is(service: &Service, expected: &str) {
    until(|| (word(service) == expected).then_some(()));
}

#[test]
fn a_write_is_in_the_next_read_through_another_instance() {
    let pair = Pair::new();
    let [a, b] = pair.services();
    let agent = pair.agent("agent-a");
    let before = reads(b, "");
    for number in 1..=50 {
        pair.write(a, &agent, number);
        assert_eq!(pair.listed(b, &agent), number);
    }
    assert!(reads(b, "") > before, "the replica answered some of them");
    // With everything that the primary had it answers each kind of read.
    for path in pair.paths(&agent) {
        until(|| {
            let before = reads(b, "");
            get(b, &pair.token, &path);
            (reads(b, "") > before).then_some(())
        });
    }
    pair.follow("pause");
    let (replica, behind) = (reads(b, ""), reads(b, "behind"));
    for number in 51..=70 {
        pair.write(a, &agent, number);
        assert_eq!(pair.listed(b, &agent), number, "a read from before the write");
    }
    assert_eq!((reads(b, ""), reads(b, "behind")), (replica, behind + 20));
    assert_eq!(word(b), "behind");
    let history = get(b, &pair.token, &format!("{AGENTS}/{agent}/history"));
    assert_eq!(history["items"][0]["payload"]["description"], "70", "{history}");
    pair.follow("resume");
    pair.until_used();
    until(|| {
        assert_eq!(pair.listed(b, &agent), 70);
        (reads(b, "") > replica).then_some(())
    });
    // The platform's way to a tenant is the primary's, which records it.
    let replica = reads(a, "");
    let path = format!("/api/v1/factory/tenants/{}/audit", pair.tenant.id);
    assert_eq!(pair.world.as_platform("GET", &path, "an audit", None).status, 200);
    assert_eq!(reads(a, ""), replica);
}

#[test]
fn a_commit_that_nobody_waited_for_is_read_like_any_other() {
    let pair = Pair::new();
    let [a, b] = pair.services();
    let agent = pair.agent("agent-a");
    // Commits are seen before their log is written, and it is written late: what is flushed says nothing of them.
    pair.primary.query("postgres", "ALTER SYSTEM SET synchronous_commit = off");
    pair.primary.query("postgres", "ALTER SYSTEM SET wal_writer_delay = '10s'");
    pair.primary.query("postgres", "SELECT pg_reload_conf()");
    let lazy = "SELECT setting FROM pg_settings WHERE name = 'synchronous_commit'";
    until(|| (pair.primary.query("postgres", lazy) == "off").then_some(()));
    for number in 1..=20 {
        pair.write(a, &agent, number);
        assert_eq!(pair.listed(b, &agent), number);
    }
}

#[test]
fn writes_and_reads_in_any_order_never_show_what_was_before() {
    let pair = Pair::new();
    let agents: Vec<String> = (0..3).map(|n| pair.agent(&format!("agent-{n}"))).collect();
    let written: Vec<AtomicU64> = agents.iter().map(|_| AtomicU64::new(0)).collect();
    let seed = RandomState::new();
    let pick = |n: u64, of: u64| {
        let mut hasher = seed.build_hasher();
        hasher.write_u64(n);
        hasher.finish() % of
    };
    let over = AtomicBool::new(false);
    let services = pair.services();
    let replica = reads(services[0], "") + reads(services[1], "");
    thread::scope(|scope| {
        let (pair, written, over, pick, agents) = (&pair, &written, &over, &pick, &agents);
        let workers: Vec<_> = (0..3_usize)
            .map(|worker| {
                scope.spawn(move || {
                    for n in 1..=150_u64 {
                        let turn = n * 3 + worker as u64;
                        let at = pick(turn, 2) as usize;
                        pair.write(services[at], &agents[worker], n);
                        written[worker].store(n, SeqCst);
                        // Another's as well as one's own: whoever was answered before the read began.
                        let whose = pick(turn + 1_000_000, 3) as usize;
                        let least = written[whose].load(SeqCst);
                        let seen = pair.listed(services[1 - at], &agents[whose]);
                        assert!(seen >= least, "{seen} was read after {least} was written");
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            while !over.load(SeqCst) {
                pair.follow("pause");
                let behind = reads(services[0], "behind") + reads(services[1], "behind");
                until(|| {
                    let now = reads(services[0], "behind") + reads(services[1], "behind");
                    (now > behind + 5 || over.load(SeqCst)).then_some(())
                });
                pair.follow("resume");
                let answered = reads(services[0], "") + reads(services[1], "");
                until(|| {
                    let now = reads(services[0], "") + reads(services[1], "");
                    (now > answered + 5 || over.load(SeqCst)).then_some(())
                });
            }
        });
        let done: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, SeqCst);
        assert!(done.iter().all(Result::is_ok), "a stale read");
    });
    assert!(reads(services[0], "") + reads(services[1], "") > replica + 5);
}

#[test]
fn pages_go_on_whoever_answers_them() {
    let pair = Pair::new();
    let [a, b] = pair.services();
    let mut made: Vec<String> = (0..6).map(|n| pair.agent(&format!("agent-{n}"))).collect();
    made.reverse();
    let (mut seen, mut path, mut paused) = (Vec::new(), format!("{AGENTS}?limit=2"), false);
    loop {
        let page = get(b, &pair.token, &path);
        let ids = page["items"].as_array().unwrap().iter();
        seen.extend(ids.map(|item| item["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = next.to_owned();
        paused = !paused;
        if paused {
            pair.follow("pause");
            // The newest one, in front of every page that is still to come.
            pair.write(a, &made[0], 1);
        } else {
            pair.follow("resume");
            pair.until_used();
        }
    }
    assert_eq!(seen, made);
}
