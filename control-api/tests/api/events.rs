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
fn the_trace_of_a_request_goes_with_its_events() {
    let cluster = MockCluster::new(1).unwrap();
    let mut world = world(Some(&cluster.bootstrap_servers()));
    let tenant = world.tenant("tenant-a");
    let token = format!("Bearer {}", world.member(&tenant, "developer"));
    let sound = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let forged = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
    for (name, sent) in [("named", Some(sound)), ("forged", Some(forged)), ("silent", None)] {
        let mut headers = vec![
            ("authorization", token.as_str()),
            ("content-type", "application/json"),
            ("x-request-id", name),
        ];
        headers.extend(sent.map(|sent| ("traceparent", sent)));
        let url = format!("{}/api/v1/registry/agents", world.service.url);
        let body = json!({ "name": name }).to_string();
        assert_eq!(send("POST", &url, &headers, Some(&body)).status, 201);
    }
    let mut reader = Reader::new(&cluster, &["agent_lifecycle"]);
    let seen = reader.until(|seen| seen.len() >= 3);
    let traces: Vec<&str> = seen.iter().map(|message| header(message, "traceparent")).collect();
    let made = |trace: &str| trace.len() == sound.len() && !trace.contains("4bf92f3577b34da6");
    let expected = |trace: &&str| **trace == *sound;
    assert_eq!(traces.iter().filter(|trace| expected(trace)).count(), 1, "{traces:?}");
    assert_eq!(traces.iter().filter(|trace| made(trace)).count(), 2, "{traces:?}");
    // It is the one that the request's line in the log has.
    let log = world.service.log();
    for trace in traces {
        let id = trace.split('-').nth(1).unwrap();
        let line = format!(r#""trace.id":"{id}""#);
        assert!(log.iter().any(|logged| logged.contains(&line)), "{trace} is in no line");
    }
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

/// What `events` says, a line each.
fn command(world: &World, options: &[&str]) -> (Option<i32>, Vec<Value>) {
    let file = world.setup.file();
    let out = binary().arg("events").args(options).arg("--config").arg(file).output().unwrap();
    let lines = String::from_utf8(out.stdout).unwrap();
    let told = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    (out.status.code(), told.collect())
}

#[test]
fn an_event_that_cannot_be_read_holds_up_its_aggregate_alone() {
    let mut world = world(None);
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    let [changed, unknown, odd, sound] =
        ["changed", "unknown", "odd", "sound"].map(|name| world.published(&tenant, &token, name));
    // Past the API: bytes, a kind, a payload that are none of ours.
    let first = |agent: &str, set: &str| {
        let of = format!("WHERE aggregate_id = '{agent}' AND seq = 1");
        world.database.query(&format!("UPDATE event_outbox SET {set} {of}"));
        world.database.query(&format!("SELECT event_id FROM event_outbox {of}"))
    };
    let flip = "sealed_payload = set_byte(sealed_payload, 40, 255 - get_byte(sealed_payload, 40))";
    let changed_event = first(&changed, flip);
    let unknown_event = first(&unknown, "kind = 'agent.imagined'");
    let odd_event = first(&odd, "sealed_payload = NULL, payload = '{}'");
    let cluster = MockCluster::new(1).unwrap();
    world.setup.config["kafka"] = json!({"brokers": [cluster.bootstrap_servers()]});
    world.service = Service::start(&world.setup);
    let mut reader = Reader::new(&cluster, &["agent_lifecycle"]);
    let of = |messages: &[OwnedMessage], agent: &str| -> Vec<String> {
        let subject = format!("agent/{agent}");
        let of = messages.iter().filter(|message| header(message, "ce_subject") == subject);
        of.map(|message| header(message, "ce_sequence").to_owned()).collect()
    };
    let seen = reader.until(|seen| seen.len() >= 2);
    assert_eq!(of(seen, &sound), ["1", "2"]);
    until(|| (metric(&world.service, "gatehouse_events_parked") == 3.0).then_some(()));
    until(|| (events(&world.service) == "parked").then_some(()));
    // Later ones of others go on, later ones of theirs wait.
    for agent in [&changed, &sound] {
        let body = json!({"description": "more"});
        let place = format!("/api/v1/registry/agents/{agent}");
        assert_eq!(world.call(&token, "PATCH", &place, Some(body)).status, 200);
    }
    let seen = reader.until(|seen| seen.len() >= 3);
    assert_eq!(of(seen, &sound), ["1", "2", "3"]);
    let (code, told) = command(&world, &[]);
    assert_eq!(code, Some(0));
    let told: Vec<Value> = told
        .iter()
        .map(|one| json!([one["event"], one["subject"], one["why"], one["behind"]]))
        .collect();
    let expected = [
        (&changed_event, &changed, "sealed", 2),
        (&unknown_event, &unknown, "unknown", 1),
        (&odd_event, &odd, "schema", 1),
    ];
    let expected =
        expected.map(|(event, agent, why, n)| json!([event, format!("agent/{agent}"), why, n]));
    assert_eq!(told, expected);
    // Tried again it is what it was; put right it goes, and what waited goes behind it.
    assert_eq!(command(&world, &["--retry"]), (Some(0), vec![json!({"retried": 3})]));
    until(|| (metric(&world.service, "gatehouse_events_parked") == 3.0).then_some(()));
    first(&changed, flip);
    first(&unknown, "kind = 'agent.created'");
    assert_eq!(command(&world, &["--retry"]).0, Some(0));
    let seen = reader.until(|seen| seen.len() >= 8);
    assert_eq!(of(seen, &changed), ["1", "2", "3"]);
    assert_eq!(of(seen, &unknown), ["1", "2"]);
    // Given up, the others go; what was not put aside cannot be given up.
    assert_eq!(command(&world, &["--drop", &odd_event]).0, Some(0));
    assert_eq!(of(reader.until(|seen| seen.len() >= 9), &odd), ["2"]);
    assert_eq!(command(&world, &["--drop", &odd_event]).0, Some(64));
    until(|| (events(&world.service) == "leads").then_some(()));
    assert_eq!(command(&world, &[]), (Some(0), vec![]));
}

#[test]
fn the_audit_is_sealed_while_kafka_takes_its_time() {
    let cluster = MockCluster::new(1).unwrap();
    let world = world(Some(&cluster.bootstrap_servers()));
    let tenant = world.tenant("tenant-a");
    let token = world.member(&tenant, "developer");
    let agent = world.published(&tenant, &token, "fuel");
    let waits = || world.database.query("SELECT count(*) FROM event_outbox");
    until(|| (waits() == "0").then_some(()));
    cluster.broker_round_trip_time(1, Duration::from_secs(4)).unwrap();
    let change = |description: &str| {
        let body = json!({ "description": description });
        let place = format!("/api/v1/registry/agents/{agent}");
        assert_eq!(world.call(&token, "PATCH", &place, Some(body)).status, 200);
    };
    change("one");
    let sending = || {
        let asked = "SELECT busy_until > clock_timestamp() FROM event_publisher";
        world.database.query(asked) == "t"
    };
    until(|| sending().then_some(()));
    change("two");
    let began = Instant::now();
    let unsealed = "SELECT count(*) FROM tenant_audit a WHERE NOT EXISTS (
        SELECT FROM audit_seals s WHERE s.tenant_id = a.tenant_id AND a.id = ANY(s.row_ids))";
    until(|| (world.database.query(unsealed) == "0").then_some(()));
    let took = began.elapsed();
    assert!(sending(), "Kafka has answered already");
    assert!(took < Duration::from_millis(2500), "{took:?}");
    // And nothing is lost by it.
    cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    let mut reader = Reader::new(&cluster, &["agent_lifecycle"]);
    reader.until(|seen| kinds(seen).iter().filter(|kind| **kind == "agent.updated").count() >= 2);
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
        let out = binary().args(["rebuild", "--config"]).arg(file).output().unwrap();
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
