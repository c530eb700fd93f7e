//! The headers of a message: the tenant, and the event's attributes in CloudEvents' binary mode for Kafka.

/// Whose it is; the same as in the key and in the payload.
pub const TENANT: &str = "tenant-id";
/// The event's id: a message that comes twice has it twice.
pub const ID: &str = "ce_id";
/// Who tells: always [`SOURCE`].
pub const SOURCE_NAME: &str = "ce_source";
/// Its kind.
pub const TYPE: &str = "ce_type";
/// Of CloudEvents.
pub const SPEC: &str = "ce_specversion";
/// When it was told (RFC 3339).
pub const TIME: &str = "ce_time";
/// About what: `agent/<uuid>`.
pub const SUBJECT: &str = "ce_subject";
/// The number of the event among those of its subject.
pub const SEQUENCE: &str = "ce_sequence";
/// The version of the kind's schema.
pub const SCHEMA_VERSION: &str = "ce_schemaversion";
/// How the payload is written.
pub const CONTENT_TYPE: &str = "content-type";
/// The trace of the request (W3C Trace Context), where there was one.
pub const TRACEPARENT: &str = "traceparent";

/// The value of [`SOURCE_NAME`].
pub const SOURCE: &str = "/gatehouse";
/// The value of [`CONTENT_TYPE`]: Avro's single-object encoding, which names the schema by its fingerprint.
pub const AVRO: &str = "application/avro";
/// The `ce_type` of a tombstone.
pub const TOMBSTONE: &str = "tombstone";
