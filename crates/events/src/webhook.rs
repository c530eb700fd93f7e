//! What a tenant's endpoint is told of an event: type, time and data, as Standard Webhooks advises. The same event is the
//! same bytes in every build: a receiver may keep them, and every attempt is signed anew over them.
//! Knows no HTTP.

use gatehouse_contract::TenantId;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{Aggregate, Kind, published::KEPT_BACK};

/// The body of an event whose published payload ([`crate::published::payload`]) is `payload`. `None` where that is no object
/// or the time cannot be written.
pub fn body(
    tenant: TenantId,
    kind: Kind,
    aggregate_id: &str,
    at: OffsetDateTime,
    payload: Value,
) -> Option<Vec<u8>> {
    let Value::Object(mut data) = payload else { return None };
    // What jobs tell is stored as it is told.
    data.retain(|name, _| !KEPT_BACK.contains(&name.as_str()));
    data.insert("tenant_id".to_owned(), json!(tenant));
    match kind.aggregate() {
        Aggregate::Agent => drop(data.insert("agent_id".to_owned(), json!(aggregate_id))),
        Aggregate::Execution => drop(data.insert("execution_id".to_owned(), json!(aggregate_id))),
        Aggregate::Tenant => {}
    }
    // Given up by the sweep: the event says that its worker was lost and what state followed.
    if kind == Kind::ExecutionGivenUp && data.remove("state").is_some() {
        data.insert("end_reason".to_owned(), json!("lost"));
    }
    let timestamp = at.format(&Rfc3339).ok()?;
    Some(
        json!({"type": kind.as_str(), "timestamp": timestamp, "data": data})
            .to_string()
            .into_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn check(kind: Kind, payload: Value, expected: &str) {
        let tenant = TenantId::new(Uuid::from_u128(1));
        let at = OffsetDateTime::from_unix_timestamp(1_767_225_600).unwrap();
        let at = at + time::Duration::microseconds(120_300);
        let body = body(tenant, kind, &Uuid::from_u128(2).to_string(), at, payload).unwrap();
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }

    /// Receivers have what was signed: these bytes never change for an event that was stored.
    #[test]
    fn the_bytes_of_an_event_are_the_same_in_every_build() {
        check(
            Kind::ExecutionCompleted,
            json!({"end_reason": "completed", "completed_at": "2026-01-01T00:00:00Z"}),
            r#"{"data":{"completed_at":"2026-01-01T00:00:00Z","end_reason":"completed","execution_id":"00000000-0000-0000-0000-000000000002","tenant_id":"00000000-0000-0000-0000-000000000001"},"timestamp":"2026-01-01T00:00:00.1203Z","type":"execution.completed"}"#,
        );
        check(
            Kind::ExecutionGivenUp,
            json!({"state": "dead_letter", "completed_at": "2026-01-01T00:00:00Z", "error": "x", "output": null}),
            r#"{"data":{"completed_at":"2026-01-01T00:00:00Z","end_reason":"lost","execution_id":"00000000-0000-0000-0000-000000000002","tenant_id":"00000000-0000-0000-0000-000000000001"},"timestamp":"2026-01-01T00:00:00.1203Z","type":"execution.given_up"}"#,
        );
        check(
            Kind::VersionPromoted,
            json!({"version_id": "x"}),
            r#"{"data":{"agent_id":"00000000-0000-0000-0000-000000000002","tenant_id":"00000000-0000-0000-0000-000000000001","version_id":"x"},"timestamp":"2026-01-01T00:00:00.1203Z","type":"version.promoted"}"#,
        );
        check(
            Kind::QuotaThresholdReached,
            json!({"quota": "executions", "percent": 80}),
            r#"{"data":{"percent":80,"quota":"executions","tenant_id":"00000000-0000-0000-0000-000000000001"},"timestamp":"2026-01-01T00:00:00.1203Z","type":"quota.threshold_reached"}"#,
        );
    }
}
