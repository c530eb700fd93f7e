//! What a result came from, as one document and its hash: image, version, configuration, input and output of one
//! attempt (specification §3.1 `provenance_hash`, PRD principle of a calculation that can be followed back).
//! The form that is hashed is RFC 8785's, so that other programs come to the same hash.
//! Knows nothing of who stores it or who signs what is stored.

use gatehouse_contract::{AgentId, AgentVersionId, ExecutionId, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Digest, ImageRef, Limits};

/// The form of the document. Another form has another name: what was hashed once is verified for ever.
pub const FORM: &str = "gatehouse.provenance.v1";

/// RFC 7493 §2.2: beyond this, two integers can be the same double, and with it the same in RFC 8785's form.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Where a result came from. Contents stand for themselves by their digests: the document can be shown to whoever
/// may not see the input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// [`FORM`].
    pub form: String,
    /// Whose execution.
    pub tenant: TenantId,
    /// Which.
    pub execution: ExecutionId,
    /// Which attempt of it, from 1.
    pub attempt: u32,
    /// The agent.
    pub agent: AgentId,
    /// Its version.
    pub version: AgentVersionId,
    /// What ran: the name and the digest of the image's manifest.
    pub image: ImageRef,
    /// What it ran under.
    pub config: Config,
    /// Of what it read.
    pub input: Digest,
    /// Of its result.
    pub output: Digest,
}

/// What can change a result beside image and input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The driver's name: `runsc`, `process`, `sim`.
    pub driver: String,
    /// Its version, as it says it.
    pub runtime: String,
    /// Thousandths of one core.
    pub cpu_millis: u32,
    /// Memory of the whole sandbox.
    pub memory_bytes: u64,
    /// Wall time.
    pub timeout_ms: u64,
    /// Size of `/tmp`.
    pub scratch_bytes: u64,
    /// Largest result.
    pub output_bytes: u64,
}

/// Why there is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An integer that RFC 8785 would change (RFC 7493 §2.2): write it as a string.
    #[error(
        "a whole number beyond ±(2^53 − 1) has no canonical form (RFC 7493); write it as a string"
    )]
    Number,
    /// The document cannot be written.
    #[error("the document has no canonical form")]
    Form,
}

// === impl Provenance ===

impl Provenance {
    /// The hash: SHA-256 over the document in the form of RFC 8785.
    ///
    /// # Errors
    /// [`Error`]; a document that this build made has a hash.
    pub fn hash(&self) -> Result<Digest, Error> {
        let document = serde_json::to_value(self).map_err(|_| Error::Form)?;
        digest(&document)
    }
}

impl Config {
    /// What `driver` of version `runtime` made of `limits`. Durations and sizes beyond their types are their largest.
    pub fn new(driver: &str, runtime: &str, limits: &Limits) -> Self {
        Self {
            driver: driver.to_owned(),
            runtime: runtime.to_owned(),
            cpu_millis: limits.cpu_millis,
            memory_bytes: limits.memory_bytes,
            timeout_ms: u64::try_from(limits.timeout.as_millis()).unwrap_or(u64::MAX),
            scratch_bytes: limits.scratch_bytes,
            output_bytes: u64::try_from(limits.output_bytes).unwrap_or(u64::MAX),
        }
    }
}

/// SHA-256 over `value` in the form of RFC 8785: members in the order of their UTF-16 names, numbers as ECMAScript writes
/// them, no space.
///
/// # Errors
/// [`Error::Number`] for an integer that this form would change.
pub fn digest(value: &Value) -> Result<Digest, Error> {
    judge(value)?;
    serde_json_canonicalizer::to_vec(value).map(|bytes| Digest::of(&bytes)).map_err(|_| Error::Form)
}

/// Whether `value` has a canonical form that no other value has.
///
/// # Errors
/// [`Error::Number`]. As deep as `value` is, which its reader has bounded.
pub fn judge(value: &Value) -> Result<(), Error> {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Number(number) => {
            let whole = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            if whole.is_some_and(|whole| whole > MAX_INTEGER) { Err(Error::Number) } else { Ok(()) }
        }
        Value::Array(values) => values.iter().try_for_each(judge),
        Value::Object(members) => members.values().try_for_each(judge),
    }
}

#[cfg(test)]
mod tests;
