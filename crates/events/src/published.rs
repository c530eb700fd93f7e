//! What of an event leaves: its payload without what an agent read, wrote or said, within an envelope that names the
//! tenant and the aggregate again. The Avro schemas in `schemas/` are of this form.
//! Knows nothing of Kafka.

use gatehouse_contract::TenantId;
use serde_json::{Map, Value, json};

use crate::{Event, Unreadable};

/// Members of payloads that are never published: consumers that may have them ask the API.
pub const KEPT_BACK: [&str; 3] = ["input", "output", "error"];

/// What is published of `event`.
///
/// # Errors
/// As [`Event::payload`].
pub fn payload(event: &Event) -> Result<Value, Unreadable> {
    let mut payload = event.payload()?;
    if let Value::Object(members) = &mut payload {
        members.retain(|name, _| !KEPT_BACK.contains(&name.as_str()));
    }
    Ok(payload)
}

/// A message's whole value: the envelope around what [`payload`] has left.
pub fn message(tenant: TenantId, aggregate_id: &str, seq: u64, payload: Value) -> Value {
    let mut whole = match payload {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    whole.insert("tenant_id".to_owned(), json!(tenant));
    whole.insert("aggregate_id".to_owned(), json!(aggregate_id));
    whole.insert("seq".to_owned(), json!(seq));
    Value::Object(whole)
}

/// A message's key: what is in order is one aggregate of one tenant, and what compaction keeps is its newest message.
pub fn key(tenant: TenantId, aggregate_id: &str) -> String {
    format!("{tenant}:{aggregate_id}")
}

#[cfg(test)]
mod tests {
    use gatehouse_contract::{AgentId, AgentVersionId};
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::event::ExecutionSubmitted;

    #[test]
    fn inputs_are_kept_back() {
        let event = Event::ExecutionSubmitted(ExecutionSubmitted {
            agent_id: AgentId::new(Uuid::from_u128(1)),
            version_id: AgentVersionId::new(Uuid::from_u128(2)),
            input: json!({"secret": 1}),
            created_at: OffsetDateTime::UNIX_EPOCH,
        });
        let published = payload(&event).unwrap();
        assert!(event.payload().unwrap().get("input").is_some());
        assert!(published.get("input").is_none() && published.get("agent_id").is_some());
        let tenant = TenantId::new(Uuid::from_u128(3));
        let whole = message(tenant, "x", 7, published);
        assert_eq!(whole.get("tenant_id"), Some(&json!(tenant)));
        assert_eq!(whole.get("seq"), Some(&json!(7)));
        assert_eq!(key(tenant, "x"), format!("{tenant}:x"));
    }
}
