//! The protocol against librdkafka's own broker, which listens on TCP and can be taken away: what arrives, in which order,
//! with which headers; and what a consumer refuses.

use std::time::Duration;

use gatehouse_contract::TenantId;
use gatehouse_events::{Aggregate, Kind};
use gatehouse_kafka_kit::{
    Outgoing, Publisher, Received, Refused, Schemas, What,
    publish::{Error, Settings, Transport, Unwritable},
    received::receive,
};
use rdkafka::{
    ClientConfig, Timestamp,
    consumer::{Consumer, StreamConsumer},
    message::{Header, Headers, Message, OwnedHeaders, OwnedMessage},
    mocking::MockCluster,
    producer::DefaultProducerContext,
};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn publisher(cluster: &Cluster) -> Publisher {
    let settings = Settings {
        brokers: cluster.bootstrap_servers(),
        topic_prefix: "test.".to_owned(),
        transport: Transport::Loopback,
    };
    Publisher::new(settings).unwrap()
}

fn told(tenant: TenantId, agent: u128, seq: u64) -> Outgoing {
    Outgoing {
        tenant,
        id: Uuid::new_v4(),
        aggregate: Aggregate::Agent,
        aggregate_id: Uuid::from_u128(agent),
        seq,
        at: OffsetDateTime::UNIX_EPOCH,
        what: What::Told {
            kind: Kind::AgentUpdated,
            payload: json!({"name": format!("agent-{seq}"), "description": null}),
        },
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
    }
}

fn tenant(n: u128) -> TenantId {
    TenantId::new(Uuid::from_u128(n))
}

/// The first `count` messages of a topic.
async fn consumed(cluster: &Cluster, topic: &str, count: usize) -> Vec<OwnedMessage> {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", Uuid::new_v4().to_string())
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let mut messages = Vec::new();
    while messages.len() < count {
        let message = tokio::time::timeout(PATIENCE, consumer.recv()).await;
        messages.push(message.expect("a message").unwrap().detach());
    }
    messages
}

fn header<'m>(message: &'m OwnedMessage, name: &str) -> &'m str {
    let found = message.headers().unwrap().iter().find(|header| header.key == name);
    std::str::from_utf8(found.unwrap_or_else(|| panic!("no {name}")).value.unwrap()).unwrap()
}

async fn give(
    publisher: &mut Publisher,
    messages: &[Outgoing],
    at_most: Duration,
) -> Result<(), Error> {
    let written = messages.iter().map(|message| publisher.write(message).unwrap()).collect();
    publisher.publish(written, at_most).await
}

#[test]
fn what_is_not_of_its_schema_is_refused_alone() {
    let cluster = MockCluster::new(1).unwrap();
    let publisher = publisher(&cluster);
    let of = |payload| {
        let what = What::Told { kind: Kind::AgentUpdated, payload };
        publisher.write(&Outgoing { what, ..told(tenant(1), 7, 1) })
    };
    assert!(of(json!({"name": "a", "description": null})).is_ok());
    for payload in [json!({}), json!([]), json!({"name": 1, "description": null})] {
        let refused = of(payload).unwrap_err();
        assert!(matches!(refused, Unwritable::Avro(_)), "{refused:?}");
    }
}

#[tokio::test]
async fn an_event_arrives_with_its_headers_and_is_read_back() {
    let cluster = MockCluster::new(3).unwrap();
    let sent = told(tenant(1), 7, 3);
    give(&mut publisher(&cluster), std::slice::from_ref(&sent), PATIENCE).await.unwrap();
    let messages = consumed(&cluster, "test.agent_lifecycle", 1).await;
    let message = &messages[0];
    let aggregate = Uuid::from_u128(7);
    assert_eq!(message.key().unwrap(), format!("{}:{aggregate}", tenant(1)).as_bytes());
    for (name, value) in [
        ("tenant-id", tenant(1).to_string()),
        ("ce_id", sent.id.to_string()),
        ("ce_source", "/gatehouse".to_owned()),
        ("ce_type", "agent.updated".to_owned()),
        ("ce_specversion", "1.0".to_owned()),
        ("ce_time", "1970-01-01T00:00:00Z".to_owned()),
        ("ce_subject", format!("agent/{aggregate}")),
        ("ce_sequence", "3".to_owned()),
        ("traceparent", sent.traceparent.clone().unwrap()),
    ] {
        assert_eq!(header(message, name), value);
    }
    let received = receive(&Schemas::new().unwrap(), message).unwrap();
    let content = json!({"tenant_id": tenant(1), "aggregate_id": aggregate, "seq": 3,
        "name": "agent-3", "description": null});
    let expected = Received {
        tenant: tenant(1),
        id: sent.id,
        aggregate_id: aggregate.to_string(),
        told: Some((Kind::AgentUpdated, content)),
    };
    assert_eq!(received, expected);
}

#[tokio::test]
async fn an_aggregate_keeps_its_order_and_a_tombstone_has_no_payload() {
    let cluster = MockCluster::new(3).unwrap();
    let mut publisher = publisher(&cluster);
    let mut messages: Vec<Outgoing> =
        (1..=300).flat_map(|seq| [7, 8, 9].map(|agent| told(tenant(1), agent, seq))).collect();
    for batch in messages.chunks(100) {
        give(&mut publisher, batch, PATIENCE).await.unwrap();
    }
    let stone = Outgoing { what: What::Tombstone, ..told(tenant(1), 7, 301) };
    give(&mut publisher, std::slice::from_ref(&stone), PATIENCE).await.unwrap();
    messages.push(stone);
    let arrived = consumed(&cluster, "test.agent_lifecycle", messages.len()).await;
    let schemas = Schemas::new().unwrap();
    for agent in [7_u128, 8, 9] {
        let id = Uuid::from_u128(agent).to_string();
        let of: Vec<Received> = arrived
            .iter()
            .map(|one| receive(&schemas, one).unwrap())
            .filter(|one| one.aggregate_id == id)
            .collect();
        let numbers: Vec<u64> =
            of.iter().filter_map(|one| one.told.as_ref()?.1.get("seq")?.as_u64()).collect();
        assert_eq!(numbers, (1..=300).collect::<Vec<u64>>(), "{agent}");
        assert_eq!(of.last().unwrap().told.is_none(), agent == 7);
    }
}

#[tokio::test]
async fn brokers_that_are_away_are_said_to_be_and_come_back() {
    let cluster = MockCluster::new(1).unwrap();
    let mut publisher = publisher(&cluster);
    let messages = [told(tenant(1), 7, 1), told(tenant(1), 7, 2)];
    cluster.broker_down(1).unwrap();
    let error = give(&mut publisher, &messages, Duration::from_millis(700)).await.unwrap_err();
    assert!(matches!(error, Error::Silent(_)), "{error:?}");
    cluster.broker_up(1).unwrap();
    give(&mut publisher, &messages, PATIENCE).await.unwrap();
    // What was given up was purged with its client: it arrives once.
    give(&mut publisher, &[told(tenant(1), 7, 3)], PATIENCE).await.unwrap();
    let schemas = Schemas::new().unwrap();
    let arrived = consumed(&cluster, "test.agent_lifecycle", 3).await;
    let numbers: Vec<String> =
        arrived.iter().map(|one| header(one, "ce_sequence").to_owned()).collect();
    assert_eq!(numbers, ["1", "2", "3"]);
    assert!(arrived.iter().all(|one| receive(&schemas, one).is_ok()));
}

/// A message with these headers, key and payload.
fn made(headers: &[(&str, &str)], key: &str, payload: Option<Vec<u8>>) -> OwnedMessage {
    let mut all = OwnedHeaders::new();
    for &(key, value) in headers {
        all = all.insert(Header { key, value: Some(value) });
    }
    let key = Some(key.as_bytes().to_vec());
    OwnedMessage::new(payload, key, "t".to_owned(), Timestamp::NotAvailable, 0, 0, Some(all))
}

#[test]
fn a_message_whose_tenants_differ_is_refused() {
    let schemas = Schemas::new().unwrap();
    let (a, b) = (tenant(1).to_string(), tenant(2).to_string());
    let aggregate = Uuid::from_u128(7).to_string();
    let payload = |tenant: &str, aggregate: &str| {
        let value = json!({"tenant_id": tenant, "aggregate_id": aggregate, "seq": 1, "name": "x"});
        Some(schemas.write(Kind::AgentUpdated, value).unwrap())
    };
    let id = Uuid::from_u128(9).to_string();
    let whole = [("tenant-id", &*a), ("ce_id", &*id), ("ce_type", "agent.updated")];
    let key = format!("{a}:{aggregate}");
    receive(&schemas, &made(&whole, &key, payload(&a, &aggregate))).unwrap();
    let check = |headers: &[(&str, &str)], key: &str, payload: Option<Vec<u8>>, expected: &str| {
        let refused: Refused = receive(&schemas, &made(headers, key, payload)).unwrap_err();
        assert!(format!("{refused:?}").starts_with(expected), "{refused:?} is not {expected}");
    };
    let twice = [&whole[..], &[("tenant-id", &*a)]].concat();
    let other = [("tenant-id", &*b), whole[1], whole[2]];
    let spelled = a.to_uppercase().replace('0', "O");
    check(&whole[1..], &key, payload(&a, &aggregate), "Header(\"tenant-id\")");
    check(&twice, &key, payload(&a, &aggregate), "Header(\"tenant-id\")");
    check(&[("tenant-id", &*spelled), whole[1], whole[2]], &key, None, "Id(\"tenant-id\")");
    check(&whole[..2], &key, payload(&a, &aggregate), "Header(\"ce_type\")");
    check(&other, &key, payload(&a, &aggregate), "OtherTenant(\"the key\")");
    check(
        &other,
        &format!("{b}:{aggregate}"),
        payload(&a, &aggregate),
        "OtherTenant(\"the payload\")",
    );
    check(&whole, &aggregate, payload(&a, &aggregate), "OtherTenant(\"the key\")");
    check(&whole, &key, payload(&a, &Uuid::from_u128(8).to_string()), "Id(");
    check(&whole, &key, None, "OtherKind");
    check(
        &[whole[0], whole[1], ("ce_type", "agent.deleted")],
        &key,
        payload(&a, &aggregate),
        "OtherKind",
    );
    for broken in [vec![], vec![0xc3, 0x01], vec![0xc3, 0x01, 1, 2, 3, 4, 5, 6, 7, 8, 9]] {
        check(&whole, &key, Some(broken), "Payload");
    }
}
