//! Who decides rates, and what happens while nobody does. Knows no rates.

use std::num::NonZeroU32;

use gatehouse_contract::Document;

use super::{Warnings, words::Parts};

/// Who decides rates, and what happens while nobody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limiter {
    /// The sidecar; while it is away requests are refused.
    Closed,
    /// The sidecar; while it is away requests pass, and the response says so.
    Open,
    /// This VM by itself: each worker counts its own requests.
    Local {
        /// Requests of one tenant in any 60 s.
        per_minute: NonZeroU32,
    },
    /// Nobody: another module limits.
    Elsewhere,
}

const EXPECTED: &str = "\"closed\", \"open\" or {\"local\": {\"per_minute\": 600}}";
const MAX_PER_MINUTE: u64 = 1_000_000;

pub(super) fn read(
    doc: &Document<'_>,
    parts: Parts,
    record: bool,
    warnings: &mut Warnings,
) -> Option<Limiter> {
    let limiter = match doc.raw("limiter") {
        None => Some(Limiter::Closed),
        Some(value) if value.is_object() => doc.object("limiter", |doc| {
            doc.object("local", |doc| {
                let per_minute = doc.integer("per_minute", None, 1..=MAX_PER_MINUTE)?;
                let per_minute = NonZeroU32::new(u32::try_from(per_minute).ok()?)?;
                Some(Limiter::Local { per_minute })
            })
        }),
        Some(value) => match value.as_str() {
            Some("closed") => Some(Limiter::Closed),
            Some("open") => Some(Limiter::Open),
            _ => {
                doc.note("limiter", format!("{value} does not fit"), format!("write {EXPECTED}"));
                None
            }
        },
    }?;
    if parts == Parts::Auth {
        return Some(Limiter::Elsewhere);
    }
    match limiter {
        Limiter::Closed if !record => {
            let mend = format!("name a sidecar, or write {}", "{\"local\": {\"per_minute\": 600}}");
            doc.note("limiter", "without a sidecar every request would be refused", mend);
        }
        Limiter::Open => warnings.add(
            "$.limiter",
            "without a limiter nothing is limited; write \"closed\" to refuse instead",
        ),
        Limiter::Local { .. } => warnings.add(
            "$.limiter",
            "every worker of every gateway counts by itself; write \"closed\" to have the sidecar decide",
        ),
        Limiter::Closed | Limiter::Elsewhere => {}
    }
    Some(limiter)
}
