//! What a consumer does before it believes a message: the tenant of the header, of the key and of the payload is one, or
//! the message is refused. A header alone could be anybody's; a payload alone would have to be opened to be filtered.
//! Knows no topic.

use gatehouse_contract::TenantId;
use gatehouse_events::Kind;
use rdkafka::message::{Headers, Message};
use serde_json::Value;
use uuid::Uuid;

use crate::{Schemas, avro, header};

/// A message that is whose it says it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// Whose.
    pub tenant: TenantId,
    /// The event's id: one that was seen before is the same event.
    pub id: Uuid,
    /// The aggregate's id.
    pub aggregate_id: String,
    /// Kind and content; `None` is a tombstone: forget the aggregate.
    pub told: Option<(Kind, Value)>,
}

/// Why a message is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A header that is not there, is there twice, or is no text.
    #[error("the header {0} is not there once")]
    Header(&'static str),
    /// No id where there should be one.
    #[error("{0} is no id")]
    Id(&'static str),
    /// Header, key and payload name different tenants.
    #[error("{0} and the header name different tenants")]
    OtherTenant(&'static str),
    /// Header and payload name different kinds.
    #[error("the payload is of another kind than the header says")]
    OtherKind,
    /// The payload cannot be read.
    #[error("the payload")]
    Payload(#[from] avro::Error),
}

/// Reads a message, or refuses it.
///
/// # Errors
/// [`Refused`]; whoever consumes puts such a message aside and does not act on it.
pub fn receive(schemas: &Schemas, message: &impl Message) -> Result<Received, Refused> {
    let tenant: TenantId =
        once(message, header::TENANT)?.parse().map_err(|_| Refused::Id(header::TENANT))?;
    let id = Uuid::try_parse(once(message, header::ID)?).map_err(|_| Refused::Id(header::ID))?;
    let kind = once(message, header::TYPE)?;
    let key = message.key().and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
    let (of_key, aggregate_id) = key.split_once(':').ok_or(Refused::OtherTenant("the key"))?;
    if of_key.parse() != Ok(tenant) {
        return Err(Refused::OtherTenant("the key"));
    }
    let aggregate_id = aggregate_id.to_owned();
    let Some(payload) = message.payload() else {
        if kind != header::TOMBSTONE {
            return Err(Refused::OtherKind);
        }
        return Ok(Received { tenant, id, aggregate_id, told: None });
    };
    let (found, value) = schemas.read(payload)?;
    if found.as_str() != kind {
        return Err(Refused::OtherKind);
    }
    let of = |name| value.get(name).and_then(Value::as_str);
    if of("tenant_id").and_then(|text| text.parse().ok()) != Some(tenant) {
        return Err(Refused::OtherTenant("the payload"));
    }
    if of("aggregate_id") != Some(&aggregate_id) {
        return Err(Refused::Id("the payload's aggregate"));
    }
    Ok(Received { tenant, id, aggregate_id, told: Some((found, value)) })
}

/// The text of a header that is there once.
fn once<'m>(message: &'m impl Message, name: &'static str) -> Result<&'m str, Refused> {
    let refused = Refused::Header(name);
    let Some(headers) = message.headers() else { return Err(refused) };
    let mut found = None;
    for index in 0..headers.count() {
        let header = headers.get(index);
        if header.key == name && found.replace(header.value).is_some() {
            return Err(refused);
        }
    }
    let bytes = found.flatten().ok_or(Refused::Header(name))?;
    std::str::from_utf8(bytes).map_err(|_| refused)
}
