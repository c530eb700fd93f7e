//! The committed schemas: none is changed once it is published, every version of a kind reads every other one's records
//! (FULL_TRANSITIVE), and each payload is whole in its schema.

use std::{collections::BTreeMap, fs, path::PathBuf};

use apache_avro::{Schema, schema_compatibility::SchemaCompatibility};
use gatehouse_contract::{AgentId, AgentVersionId, TenantId};
use gatehouse_events::{
    Event, Kind,
    event::{
        AgentCreated, AgentDeleted, AgentUpdated, AuditRecorded, ExecutionEnded, ExecutionLost,
        ExecutionStarted, ExecutionSubmitted, ExecutionTimeRunsOut, Nothing, QuotaThresholdReached,
        VersionDeprecated, VersionPromoted, VersionPublished,
    },
    published,
};
use gatehouse_execution::{Digest, EndReason, ExecutionState};
use gatehouse_kafka_kit::{Schemas, avro::fingerprint};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

const AT: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../events/schemas")
}

/// Every committed schema by kind and version.
fn committed() -> BTreeMap<(String, u16), Schema> {
    let files = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
    let schemas = files.filter(|path| path.extension().is_some_and(|end| end == "avsc"));
    schemas
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let (kind, version) = name.rsplit_once('.').expect("<kind>.<version>.avsc");
            let schema = Schema::parse_str(&fs::read_to_string(&path).unwrap());
            ((kind.to_owned(), version.parse().unwrap()), schema.expect(&name))
        })
        .collect()
}

#[test]
fn each_version_of_a_schema_reads_what_every_other_one_wrote() {
    let all = committed();
    for kind in Kind::ALL {
        let of: Vec<(&u16, &Schema)> = all
            .iter()
            .filter(|((name, _), _)| name == kind.as_str())
            .map(|((_, version), schema)| (version, schema))
            .collect();
        let numbers: Vec<u16> = of.iter().map(|(version, _)| **version).collect();
        assert_eq!(numbers, (1..=kind.schema_version()).collect::<Vec<_>>(), "{kind}");
        for (one, writer) in &of {
            for (other, reader) in &of {
                let found = SchemaCompatibility::mutual_read(writer, reader);
                assert!(found.is_ok(), "{kind}: versions {one} and {other}: {found:?}");
            }
        }
    }
    let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert!(all.keys().all(|(name, _)| names.contains(&name.as_str())), "a schema of no kind");
}

#[test]
fn an_incompatible_schema_would_be_noticed() {
    let parse = |fields: &str| {
        let text = format!(r#"{{"type":"record","name":"x","fields":[{fields}]}}"#);
        Schema::parse_str(&text).unwrap()
    };
    let old = parse(r#"{"name":"a","type":"string"}"#);
    let with_default =
        r#"{"name":"a","type":"string"},{"name":"b","type":["null","string"],"default":null}"#;
    assert!(SchemaCompatibility::mutual_read(&old, &parse(with_default)).is_ok());
    for bad in [
        r#"{"name":"a","type":"string"},{"name":"b","type":"string"}"#,
        r#"{"name":"a","type":"long"}"#,
        r#"{"name":"c","type":"string"}"#,
    ] {
        assert!(SchemaCompatibility::mutual_read(&old, &parse(bad)).is_err(), "{bad}");
    }
}

/// What was published once stands for ever: consumers find a schema by its fingerprint.
#[test]
fn a_committed_schema_is_never_changed() {
    let mut found = String::new();
    for ((kind, version), schema) in committed() {
        let hex: String = fingerprint(&schema).iter().map(|byte| format!("{byte:02x}")).collect();
        found += &format!("{kind} {version} {hex}\n");
    }
    let file = folder().join("fingerprints.txt");
    let before = fs::read_to_string(&file).unwrap_or_default();
    for line in before.lines() {
        assert!(
            found.lines().any(|one| one == line),
            "{line} was changed: leave it, and write the kind's next version beside it"
        );
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, &found).unwrap();
    } else {
        assert_eq!(found, before, "a new schema: UPDATE_GOLDEN=1 notes its fingerprint");
    }
}

fn events() -> Vec<Event> {
    let version_id = AgentVersionId::new(Uuid::from_u128(2));
    let text = || "x".to_owned();
    let ended = |completed_at| ExecutionEnded {
        end_reason: EndReason::Completed,
        output: Some(json!({"kg": 1})),
        error: Some(text()),
        completed_at,
        provenance_hash: None,
    };
    vec![
        Event::AgentCreated(AgentCreated { name: text(), description: None, created_at: AT }),
        Event::AgentUpdated(AgentUpdated { name: text(), description: Some(text()) }),
        Event::AgentDeleted(AgentDeleted { deleted_at: AT }),
        Event::VersionPublished(VersionPublished {
            version_id,
            version: text(),
            image: text(),
            created_at: AT,
        }),
        Event::VersionPromoted(VersionPromoted { version_id, promoted_at: AT }),
        Event::VersionDeprecated(VersionDeprecated {
            version_id,
            message: Some(text()),
            deprecated_at: AT,
        }),
        Event::ExecutionSubmitted(ExecutionSubmitted {
            agent_id: AgentId::new(Uuid::from_u128(1)),
            version_id,
            input: json!({"litres": 1}),
            created_at: AT,
        }),
        Event::ExecutionQueued(Nothing {}),
        Event::ExecutionUnqueued(Nothing {}),
        Event::ExecutionStarted(ExecutionStarted {
            worker: text(),
            lease_epoch: u64::from(u32::MAX) + 1,
            attempt: 1,
            started_at: AT,
        }),
        Event::ExecutionReleased(Nothing {}),
        Event::ExecutionLost(ExecutionLost { state: ExecutionState::Queued, completed_at: None }),
        Event::ExecutionCompleted(ExecutionEnded {
            provenance_hash: Some(Digest::of(b"a document")),
            ..ended(Some(AT))
        }),
        Event::ExecutionFailed(ended(Some(AT))),
        Event::ExecutionTimedOut(ended(Some(AT))),
        Event::ExecutionRetried(ended(None)),
        Event::ExecutionGivenUp(ended(Some(AT))),
        Event::ExecutionCancelled(ended(Some(AT))),
        Event::ExecutionReplayed(Nothing {}),
        Event::ExecutionTimeRunsOut(ExecutionTimeRunsOut {
            lease_epoch: 3,
            attempt: 2,
            timeout_s: 300,
        }),
        Event::QuotaThresholdReached(QuotaThresholdReached {
            quota: text(),
            percent: 80,
            day: text(),
            used: 8,
            limit: 10,
        }),
        Event::TenantErased(Nothing {}),
        Event::AuditRecorded(AuditRecorded {
            row: 1,
            hash: text(),
            action: text(),
            target_kind: text(),
        }),
    ]
}

#[test]
fn what_is_published_is_whole_in_its_schema_and_read_back() {
    let schemas = Schemas::new().unwrap();
    let events = events();
    assert_eq!(events.len(), Kind::ALL.len(), "every kind");
    for event in events {
        let kind = event.kind();
        let payload = published::payload(&event).unwrap();
        let whole = published::message(TenantId::new(Uuid::from_u128(3)), "a", 1, payload);
        let bytes = schemas.write(kind, whole.clone()).unwrap();
        assert_eq!(schemas.read(&bytes).unwrap(), (kind, whole), "{kind}");
    }
}
