//! What a result came from, as one document and its hash: image, version, configuration, input and output of one
//! attempt (specification §3.1 `provenance_hash`, PRD principle of a calculation that can be followed back).
//! The form that is hashed is RFC 8785's, so that other programs come to the same hash.
//! Knows nothing of who stores it or who signs what is stored.

use std::time::Duration;

use gatehouse_contract::{AgentId, AgentVersionId, ExecutionId, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Digest, ImageRef, Limits};

/// The form of the document. Another form has another name: what was hashed once is verified for ever.
pub const FORM: &str = "gatehouse.provenance.v1";

/// RFC 7493 §2.2: beyond this, two integers can be the same double, and with it the same in RFC 8785's form.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Where a result came from. Contents stand for themselves by their digests: who has a content finds it here, and who could
/// guess it does, too. The hash of the whole says nothing of them to anybody who has not the salt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// [`FORM`].
    pub form: String,
    /// 64 hexadecimal digits by chance, kept with the document and nowhere else: once it is erased, no content can be tried
    /// against a hash that was published.
    pub salt: String,
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
    /// The worker's version: what else an agent finds (mounts, environment, user) is its build's.
    pub worker: String,
    /// The version of the configuration that the worker ran it under.
    pub config_version: String,
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
    /// Processes.
    pub processes: u32,
    /// Open files per process.
    pub open_files: u32,
    /// The hosts that it may ask, in the version's order.
    pub egress: Vec<String>,
    /// How often.
    pub egress_requests: u32,
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
    /// What `driver` of version `runtime` made of `limits` and the hosts `egress`, in a worker of version `worker` under the
    /// configuration `config_version`. Durations and sizes beyond their types are their largest.
    pub fn new(
        (driver, runtime): (&str, &str),
        (worker, config_version): (&str, &str),
        limits: &Limits,
        egress: &[String],
    ) -> Self {
        Self {
            driver: driver.to_owned(),
            runtime: runtime.to_owned(),
            worker: worker.to_owned(),
            config_version: config_version.to_owned(),
            cpu_millis: limits.cpu_millis,
            memory_bytes: limits.memory_bytes,
            timeout_ms: u64::try_from(limits.timeout.as_millis()).unwrap_or(u64::MAX),
            scratch_bytes: limits.scratch_bytes,
            output_bytes: u64::try_from(limits.output_bytes).unwrap_or(u64::MAX),
            processes: limits.processes,
            open_files: limits.open_files,
            egress: egress.to_vec(),
            egress_requests: limits.egress_requests,
        }
    }

    /// The limits that a run had, to run it again.
    pub fn limits(&self) -> Limits {
        let limits = Limits::default();
        Limits {
            cpu_millis: self.cpu_millis,
            memory_bytes: self.memory_bytes,
            timeout: Duration::from_millis(self.timeout_ms),
            scratch_bytes: self.scratch_bytes,
            file_bytes: limits.file_bytes.max(self.scratch_bytes),
            output_bytes: usize::try_from(self.output_bytes).unwrap_or(usize::MAX),
            processes: self.processes,
            open_files: self.open_files,
            egress_requests: self.egress_requests,
            ..limits
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
