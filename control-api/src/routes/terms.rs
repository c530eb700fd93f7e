//! What the runs of a version may use, read, write and reach, and what is asked for one of them: read, refused with the
//! place of each mistake, and shown. Knows no table, and nothing of who enforces it.

use gatehouse_contract::{Document, Mistake, Reason, TenantId};
use gatehouse_execution::{
    Hooks, Limits,
    egress::{Host, MAX_HOSTS},
    limits::{Limit, Named},
};
use gatehouse_service::Reply;
use gatehouse_store::versions::{AgentVersion, Terms};
use gatehouse_validate::Schema;
use serde_json::Value;
use tracing::error;

use crate::{bodies, schemas::Schemas};

/// A schema that is larger costs each submit more than it tells.
const MAX_SCHEMA_BYTES: usize = 24 * 1024;

/// The terms of a new version.
pub fn read(doc: &Document<'_>) -> Option<Terms> {
    let limits = limits(doc);
    let input_schema = schema(doc, "input_schema");
    let output_schema = schema(doc, "output_schema");
    let egress = egress(doc);
    let hooks = doc.object_opt("hooks", Hooks::read);
    Some(Terms {
        limits: limits?,
        input_schema: input_schema?,
        output_schema: output_schema?,
        egress: egress?,
        hooks: hooks?.unwrap_or_default(),
    })
}

/// The limits that are named, each within the platform's bounds.
pub fn limits(doc: &Document<'_>) -> Option<Named> {
    let named = doc.object_opt("limits", |doc| {
        let mut named = Named::default();
        let mut fits = true;
        for limit in Limit::ALL {
            match doc.integer_opt(limit.name(), limit.range()) {
                Some(Some(value)) => fits &= named.set(*limit, value).is_ok(),
                Some(None) => {}
                None => fits = false,
            }
        }
        fits.then_some(named)
    })?;
    Some(named.unwrap_or_default())
}

/// The version's limits with those that are asked for in their place, none of which may be higher.
pub fn lowered(of_version: &Named, asked: &Named) -> Result<Named, Reply> {
    let whole = Limits::default().with(of_version);
    let mut named = of_version.clone();
    let mut mistakes = Vec::new();
    for (limit, value) in asked.iter() {
        let most = whole.of(limit);
        if value > most || named.set(limit, value).is_err() {
            mistakes.push(Mistake {
                path: format!("$.limits.{}", limit.name()),
                cause: format!("{value} is above the version's"),
                mend: format!("write at most {most}, or publish a version that may use more"),
            });
        }
    }
    if mistakes.is_empty() { Ok(named) } else { Err(Reply::mistakes(&mistakes)) }
}

/// Whether `input` fits the version's schema.
pub fn judge_input(
    schemas: &Schemas,
    (tenant, version): (TenantId, &AgentVersion),
    input: &Value,
) -> Result<(), Reply> {
    let Some(schema) = &version.terms.input_schema else { return Ok(()) };
    let judged = schemas.judge((tenant, version.id), schema, input.to_string().as_bytes());
    let judged = judged.map_err(|faults| {
        // It was compiled before it was stored.
        error!(?faults, "a version's schema is none for this build");
        Reply::new(Reason::Internal)
    })?;
    judged.map_err(|mut refusal| {
        for finding in &mut refusal.findings {
            finding.pointer.insert_str(0, "/input");
        }
        bodies::told(&refusal)
    })
}

/// A schema that is wholly in the body, and that a bounded judge can hold.
fn schema(doc: &Document<'_>, name: &'static str) -> Option<Option<Value>> {
    let Some(schema) = doc.raw(name) else { return Some(None) };
    let text = schema.to_string();
    if text.len() > MAX_SCHEMA_BYTES {
        doc.note(name, "larger than 24 KiB", "say less of it");
        return None;
    }
    if has_nul(schema) {
        doc.note(name, "has the character U+0000", "leave it out");
        return None;
    }
    match Schema::compile(schema) {
        Ok(_) => Some(Some(schema.clone())),
        Err(faults) => {
            for fault in faults {
                doc.note(name, fault, "write JSON Schema 2020-12 that refers to nothing elsewhere");
            }
            None
        }
    }
}

/// Whether PostgreSQL could not keep it as JSON.
pub fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => {
            members.iter().any(|(name, value)| name.contains('\0') || has_nul(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The hosts, each once, as they are written.
fn egress(doc: &Document<'_>) -> Option<Vec<String>> {
    let hosts: Vec<Host> = doc.parsed_list(
        "egress",
        "hosts such as \"api.example.com\", \"api.example.com:8443\" or \"*.example.com\"",
    )?;
    if hosts.len() > MAX_HOSTS {
        doc.note("egress", "too many hosts", format!("name at most {MAX_HOSTS}"));
        return None;
    }
    let mut texts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    texts.sort();
    texts.dedup();
    Some(texts)
}
