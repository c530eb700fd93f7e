//! Publishes: idempotently, with all replicas' acknowledgement, in the order in which messages are given. Of each partition
//! a prefix is written: within the client no message runs out of time before the one in front of it. What takes too long
//! is given up as a whole, with the client, and is given again by whoever has it.
//! Knows nothing of where messages come from.

use std::{net::IpAddr, str::FromStr, sync::Arc, time::Duration};

use gatehouse_contract::TenantId;
use gatehouse_events::{Aggregate, Kind, Topic, published};
use rdkafka::{
    ClientConfig,
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer, PurgeConfig},
};
use serde_json::Value;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{Schemas, avro, header};

/// What a client may hold of messages that are not acknowledged yet, in KiB.
const QUEUE_KIB: &str = "65536";

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `host:port`, more than one with commas.
    pub brokers: String,
    /// What all topics' names begin with.
    pub topic_prefix: String,
    /// What keeps others from reading what goes there.
    pub transport: Transport,
}

/// What keeps others from reading what goes to the brokers: this client does not encrypt (ADR 0041).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// It does not leave the machine: brokers, also those that these name, that are elsewhere are not spoken to.
    Loopback,
    /// A mesh encrypts it.
    Mesh,
    /// Nothing does.
    Cleartext,
}

impl FromStr for Transport {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "loopback" => Ok(Self::Loopback),
            "mesh" => Ok(Self::Mesh),
            "cleartext" => Ok(Self::Cleartext),
            _ => Err(()),
        }
    }
}

/// Whether a broker's host is this machine: an address of loopback, or `localhost`.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().map_or(host == "localhost", |ip| ip.is_loopback())
}

/// A message to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Whose.
    pub tenant: TenantId,
    /// The event's id.
    pub id: Uuid,
    /// About what.
    pub aggregate: Aggregate,
    /// About which.
    pub aggregate_id: Uuid,
    /// Its number among the aggregate's; 0 where it has none.
    pub seq: u64,
    /// When it was told.
    pub at: OffsetDateTime,
    /// What it is.
    pub what: What,
    /// The trace of the request that made it.
    pub traceparent: Option<String>,
}

/// What is published.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// An event.
    Told {
        /// Its kind.
        kind: Kind,
        /// What it says, as `gatehouse_events::published::payload` leaves it.
        payload: Value,
    },
    /// Nothing: compacted topics forget what has this key.
    Tombstone,
}

/// A message as it goes onto the wire.
#[derive(Debug)]
pub struct Written {
    topic: String,
    key: String,
    headers: OwnedHeaders,
    payload: Option<Vec<u8>>,
}

/// Why a message cannot be written: giving it again does not help.
#[derive(Debug, thiserror::Error)]
pub enum Unwritable {
    /// The payload is not what its kind's schema says.
    #[error("writing an event")]
    Avro(#[from] avro::Error),
    /// A time that RFC 3339 cannot write.
    #[error("writing an event's time")]
    Time(#[from] time::error::Format),
}

/// Why messages were not published, or not all of them. All may be given again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The schemas of this build cannot be read.
    #[error("the schemas of events")]
    Schemas(#[from] avro::Error),
    /// The brokers refused it, or the client did.
    #[error("kafka")]
    Kafka(#[from] KafkaError),
    /// A broker that is named by another one is not where messages may go.
    #[error("the broker {0} is not of this machine: $.kafka.transport says what may go further")]
    Beyond(String),
    /// No acknowledgement came.
    #[error("no acknowledgement within {} s", .0.as_secs())]
    Silent(Duration),
}

/// The client.
pub struct Publisher {
    settings: Settings,
    schemas: Arc<Schemas>,
    client: Option<FutureProducer>,
}

// === impl Publisher ===

impl Publisher {
    /// Connects to nobody yet.
    ///
    /// # Errors
    /// Where the schemas of this build cannot be read.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        Ok(Self { settings, schemas: Arc::new(Schemas::new()?), client: None })
    }

    /// Whether some broker answers within `at_most`, and all that it names are where messages may go.
    ///
    /// # Errors
    /// [`Error::Kafka`] where none does, [`Error::Beyond`].
    pub async fn reach(&mut self, at_most: Duration) -> Result<(), Error> {
        let client = match self.client.take() {
            Some(client) => client,
            None => self.connect()?,
        };
        let asked = client.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let found = asked.client().fetch_metadata(None, at_most)?;
            let hosts = found.brokers().iter().map(|broker| broker.host().to_owned());
            Ok::<Vec<String>, KafkaError>(hosts.collect())
        });
        let hosts = answer.await.map_err(|_| KafkaError::Canceled)??;
        if self.settings.transport == Transport::Loopback
            && let Some(host) = hosts.into_iter().find(|host| !is_loopback(host))
        {
            return Err(Error::Beyond(host));
        }
        self.client = Some(client);
        Ok(())
    }

    /// Writes a message, for [`Self::publish`].
    ///
    /// # Errors
    /// [`Unwritable`]: of this message alone.
    pub fn write(&self, message: &Outgoing) -> Result<Written, Unwritable> {
        let aggregate_id = message.aggregate_id.to_string();
        let (kind, topic, payload) = match &message.what {
            What::Told { kind, payload } => {
                let (tenant, seq) = (message.tenant, message.seq);
                let whole = published::message(tenant, &aggregate_id, seq, payload.clone());
                (Some(*kind), kind.topic(), Some(self.schemas.write(*kind, whole)?))
            }
            What::Tombstone if message.aggregate == Aggregate::Execution => {
                (None, Topic::Execution, None)
            }
            What::Tombstone => (None, Topic::Lifecycle, None),
        };
        Ok(Written {
            topic: format!("{}{}", self.settings.topic_prefix, topic.as_str()),
            key: published::key(message.tenant, &aggregate_id),
            headers: headers(message, kind)?,
            payload,
        })
    }

    /// Publishes all of them, in order, within `at_most`. After an error some may be published, of each key the first
    /// ones; give all again.
    ///
    /// # Errors
    /// [`Error`], after which the client is made anew.
    pub async fn publish(
        &mut self,
        messages: Vec<Written>,
        at_most: Duration,
    ) -> Result<(), Error> {
        let client = match self.client.take() {
            Some(client) => client,
            None => self.connect()?,
        };
        let sent = async {
            let mut deliveries = Vec::with_capacity(messages.len());
            for message in messages {
                deliveries.push(enqueue(&client, message)?);
            }
            for delivery in deliveries {
                // A client that is gone delivers nothing.
                delivery.await.map_err(|_| KafkaError::Canceled)?.map_err(|(error, _)| error)?;
            }
            Ok(())
        };
        match timeout(at_most, sent).await {
            Ok(Ok(())) => {
                self.client = Some(client);
                Ok(())
            }
            Ok(Err(error)) => {
                client.purge(PurgeConfig::default().queue().inflight());
                Err(error)
            }
            Err(_) => {
                client.purge(PurgeConfig::default().queue().inflight());
                Err(Error::Silent(at_most))
            }
        }
    }

    fn connect(&self) -> Result<FutureProducer, KafkaError> {
        ClientConfig::new()
            .set("bootstrap.servers", &self.settings.brokers)
            .set("client.id", "gatehouse-control-api")
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // A message that ran out of time on its own would be overtaken by the one behind it.
            .set("message.timeout.ms", "0")
            .set("queue.buffering.max.kbytes", QUEUE_KIB)
            .set("linger.ms", "2")
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "1000")
            // As the Java clients do, so that they find a key where we put it.
            .set("partitioner", "murmur2_random")
            .create()
    }
}

fn enqueue(client: &FutureProducer, message: Written) -> Result<DeliveryFuture, KafkaError> {
    let Written { topic, key, headers, payload } = message;
    let mut record = FutureRecord::to(&topic).key(&key).headers(headers);
    if let Some(payload) = &payload {
        record = record.payload(payload);
    }
    client.send_result(record).map_err(|(error, _)| error)
}

fn headers(message: &Outgoing, kind: Option<Kind>) -> Result<OwnedHeaders, time::error::Format> {
    let at = message.at.to_offset(UtcOffset::UTC).format(&Rfc3339)?;
    let mut pairs = vec![
        (header::TENANT, message.tenant.to_string()),
        (header::ID, message.id.to_string()),
        (header::SOURCE_NAME, header::SOURCE.to_owned()),
        (header::TYPE, kind.map_or(header::TOMBSTONE, Kind::as_str).to_owned()),
        (header::SPEC, "1.0".to_owned()),
        (header::TIME, at),
        (header::SUBJECT, format!("{}/{}", message.aggregate.as_str(), message.aggregate_id)),
        (header::SEQUENCE, message.seq.to_string()),
    ];
    if let Some(kind) = kind {
        pairs.push((header::SCHEMA_VERSION, kind.schema_version().to_string()));
        pairs.push((header::CONTENT_TYPE, header::AVRO.to_owned()));
    }
    pairs.extend(message.traceparent.clone().map(|trace| (header::TRACEPARENT, trace)));
    let mut headers = OwnedHeaders::new_with_capacity(pairs.len());
    for (key, value) in &pairs {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_an_address_of_loopback_or_localhost() {
        for host in ["127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "10.0.0.1",
            "0.0.0.0",
            "kafka-1",
            "localhost.example",
            "127.0.0.1.example",
            "::",
            "",
            "[127.0.0.1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
