//! Events on their way: from the API through the outbox into a broker that speaks Kafka over TCP, is away, and comes back;
//! and what is stored held against them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    message::{Headers, Message, OwnedMessage},
    mocking::MockCluster,
    producer::DefaultProducerContext,
};
use serde_json::{Value, json};

use crate::{
    database::Database,
    http::send,
    world::{Service, Setup, World, binary, until},
};

const PATIENCE: Duration = Duration::from_secs(30);

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// A world whose service publishes to `brokers`, where some are named.
fn world(brokers: Option<&str>) -> World {
    let database = Database::migrated();
    let mut setup = Setup::new(&database);
    setup.config["database"]["system"] = json!(database.url("gatehouse_system"));
    if let Some(brokers) = brokers {
        setup.config["kafka"] = json!({"brokers": [brokers]});
    }
    World::of(database, setup)
}

/// Reads topics as a consumer that keeps what it has seen.
struct Reader {
    consumer: BaseConsumer,
    seen: Vec<OwnedMessage>,
}

impl Reader {
    fn new(cluster: &Cluster, topics: &[&str]) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("group.id", topics.concat())
            .set("auto.offset.reset", "earliest")
            .set("allow.auto.create.topics", "true")
            .create()
            .unwrap();
        consumer.subscribe(topics).unwrap();
        Self { consumer, seen: Vec::new() }
    }

    /// Reads until `enough` of all that was seen.
    fn until(&mut self, enough: impl Fn(&[OwnedMessage]) -> bool) -> &[OwnedMessage] {
        let start = Instant::now();
        while !enough(&self.seen) {
            assert!(start.elapsed() < PATIENCE, "saw {:?}", kinds(&self.seen));
            if let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(200)) {
                self.seen.push(message.detach());
            }
        }
        &self.seen
    }
}

fn header<'m>(message: &'m OwnedMessage, name: &str) -> &'m str {
    let found = message.headers().unwrap().iter().find(|header| header.key == name);
    found.and_then(|header| std::str::from_utf8(header.value?).ok()).unwrap_or_default()
}

fn kinds(messages: &[OwnedMessage]) -> Vec<&str> {
    messages.iter().map(|message| header(message, "ce_type")).collect()
}

fn events(service: &Service) -> Value {
    let ready: Value = send("GET", &format!("{}/readyz", service.admin), &[], None).json();
    assert_eq!(ready["status"], "ready", "{ready}");
    ready["checks"]["events"].clone()
}

fn metric(service: &Service, name: &str) -> f64 {
    let text = send("GET", &format!("{}/metrics", service.admin), &[], None).text;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.parse().ok()).unwrap_or(-1.0)
}

#[test]
fn what_happens_is_published_in_order_also_after_the_broker_was_away() {
    let cluster = MockCluster::new(1).unwrap();
    let world = world(Some(&cluster.bootstrap_servers()));
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    let agent = world.published(&tenant, &token, "fuel");
    let mut reader = Reader::new(&cluster, &["agent_lifecycle"]);
    let seen = reader.until(|seen| seen.len() >= 2);
    assert_eq!(kinds(seen), ["agent.created", "version.published"]);
    for message in seen {
        assert_eq!(message.key().unwrap(), format!("{}:{agent}", tenant.id).as_bytes());
        assert_eq!(header(message, "tenant-id"), tenant.id);
    }
    until(|| (events(&world.service) == "leads").then_some(()));
    cluster.broker_down(1).unwrap();
    let place = format!("/api/v1/registry/agents/{agent}");
    for n in 0..5 {
        let body = json!({"description": format!("change {n}")});
        assert_eq!(
            world.call(&token, "PATCH", &place, Some(body)).status,
            200,
            "nobody waits for it"
        );
    }
    until(|| (events(&world.service) == "failing").then_some(()));
    until(|| (metric(&world.service, "gatehouse_events_unsent") >= 5.0).then_some(()));
    assert!(metric(&world.service, "gatehouse_events_publish_failures_total") >= 1.0);
    cluster.broker_up(1).unwrap();
    let seen = reader.until(|seen| seen.len() >= 7);
    // One that comes twice has the same id.
    let mut numbers = BTreeMap::new();
    for message in seen {
        let number: u64 = header(message, "ce_sequence").parse().unwrap();
        let id = numbers.entry(number).or_insert_with(|| header(message, "ce_id").to_owned());
        assert_eq!(id, header(message, "ce_id"));
    }
    assert_eq!(numbers.into_keys().collect::<Vec<_>>(), (1..=7).collect::<Vec<u64>>());
    until(|| (world.database.query("SELECT count(*) FROM event_outbox") == "0").then_some(()));
    until(|| (events(&world.service) == "leads").then_some(()));
}

#[test]
fn without_brokers_everything_waits_and_is_published_once_there_are_some() {
    let mut world = world(None);
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    world.published(&tenant, &token, "fuel");
    assert_eq!(events(&world.service), "kept");
    until(|| (metric(&world.service, "gatehouse_events_unsent") >= 2.0).then_some(()));
    assert!(metric(&world.service, "gatehouse_events_oldest_seconds") >= 0.0);
    let cluster = MockCluster::new(1).unwrap();
    world.setup.config["kafka"] =
        json!({"brokers": [cluster.bootstrap_servers()], "topic_prefix": "factory."});
    world.service = Service::start(&world.setup);
    let mut reader = Reader::new(&cluster, &["factory.agent_lifecycle"]);
    let seen = reader.until(|seen| seen.len() >= 2);
    assert_eq!(kinds(seen), ["agent.created", "version.published"]);
    until(|| (metric(&world.service, "gatehouse_events_unsent") == 0.0).then_some(()));
    // What was audited is told once it is sealed: that it was, and nothing of what.
    let mut audited = Reader::new(&cluster, &["factory.audit_log"]);
    let of_tenant = |message: &&OwnedMessage| header(message, "tenant-id") == tenant.id;
    let rows = format!("SELECT count(*) FROM tenant_audit WHERE tenant_id = '{}'", tenant.id);
    let rows: usize = world.database.query(&rows).parse().unwrap();
    let seen = audited.until(|seen| seen.iter().filter(of_tenant).count() >= rows);
    let payloads: Vec<&[u8]> = seen.iter().map(|one| one.payload().unwrap()).collect();
    let says = |text: &str| {
        payloads.iter().any(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
    };
    assert!(says("agent.create") && says("client.create"));
    assert!(!says("tenant-a") && !says("fuel"), "names are in no payload");
}

#[test]
fn stored_states_are_held_against_their_events() {
    let world = world(None);
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    let agent = world.published(&tenant, &token, "fuel");
    let run = json!({"agent": "fuel", "version": "1.0.0"});
    assert_eq!(world.post(&token, "/api/v1/runtime/executions", run).status, 202);
    let check = || {
        let file = world.setup.file();
        let out = binary().args(["rebuild", "--check", "--config"]).arg(file).output().unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (out.status.code(), said(&out.stdout), said(&out.stderr))
    };
    let (code, sums, said) = check();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(sums, r#"{"differ":0,"older_than_events":0,"same":2}"#);
    // Somebody past the API.
    world.database.query(&format!("UPDATE agents SET name = 'other' WHERE id = '{agent}'"));
    let (code, sums, said) = check();
    assert_eq!(code, Some(78), "{said}");
    assert_eq!(sums, r#"{"differ":1,"older_than_events":0,"same":1}"#);
    assert!(said.contains(&agent) && said.contains("/name") && !said.contains("other"), "{said}");
}
