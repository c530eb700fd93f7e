//! The filter's document as an instance uses it. Knows nothing of the hosts that load it.

use std::{fs, path::Path};

use anyhow::Context;
use serde_json::Value;

use crate::{
    render::{DOCUMENT, Document},
    repo,
    report::{Faults, exit},
};

/// The filter's document, and what of it the control API must agree with.
pub struct Policy {
    /// With the limiter's patience of a developer's machine.
    pub document: Document,
    /// Of the platform's own issuer, which is the first.
    pub issuer: String,
    /// See above.
    pub audience: String,
}

impl Policy {
    /// Reads `file`, the repository's example when absent. All its mistakes are told at once.
    pub fn read(file: Option<&Path>) -> anyhow::Result<Self> {
        let file = match file {
            Some(file) => file.to_owned(),
            None => repo::root()?.join(DOCUMENT),
        };
        let shown = file.display();
        let text = fs::read_to_string(&file).map_err(|error| {
            let line = format!("config {shown}: cannot be read: {error}; name an existing file");
            Faults::one(exit::USAGE, line)
        })?;
        // Judged by the very code that the filter runs: what passes here, Envoy takes.
        if let Err(mistakes) = gatehouse_edge::Suite::compile(&text, gatehouse_edge::Parts::Suite) {
            let lines =
                mistakes.iter().map(|mistake| format!("config {shown}: {mistake}")).collect();
            return Err(Faults { lines, exit: exit::USAGE }.into());
        }
        let document = patient(Document::parse(&text)?);
        let member = |pointer: &str| {
            let found = document.value().pointer(pointer).and_then(Value::as_str);
            found.map(str::to_owned).with_context(|| format!("config {shown}: no {pointer}"))
        };
        let issuer = member("/issuers/0/issuer")?;
        let audience = member("/issuers/0/audiences/0")?;
        Ok(Self { document, issuer, audience })
    }
}

/// The document with a limiter that may take its time. The 50 ms of the example are for a gateway; on a developer's
/// machine, which builds meanwhile, they would refuse requests that nobody limits.
fn patient(document: Document) -> Document {
    let mut sidecar = document.value().get("sidecar").cloned().unwrap_or_default();
    if let Some(members) = sidecar.as_object_mut() {
        members.insert("timeout_ms".to_owned(), SIDECAR_MS.into());
    }
    document.with("sidecar", sidecar)
}

/// How long the filter waits for the sidecar, here. More than the sidecar waits for Redis.
const SIDECAR_MS: u64 = 1000;
