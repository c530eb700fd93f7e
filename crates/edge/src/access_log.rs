//! What a gateway's access log may say of a request beside what its host knows: one line of `name=value`, as the shell
//! hands it to the host. Words, numbers and ids of ours only, so that nothing needs an escape: no header, no path, no
//! credential, no name of a person. Knows neither hosts nor formats.

use gatehouse_authn::revocation;
use gatehouse_contract::{AuthMethod, Reason, sidecar::PrincipalFacts};

use crate::{Suite, step::RequestRecord, text::Text};

/// A line's usual length.
const LENGTH: usize = 192;

/// The caller's part, the same for all of its requests. `caller` tells callers of one tenant apart and names none: a
/// hash of tenant and subject.
pub(crate) fn caller(facts: &PrincipalFacts, method: AuthMethod) -> String {
    let tenant = facts.tenant.to_string();
    let mark = revocation::mark(&tenant, &facts.subject);
    format!("tenant={tenant} tier={} auth={method} caller={mark}", facts.tier)
}

impl Suite {
    /// The line, where the document asks for it. `reason` is why the request was refused.
    pub fn access_line(&self, record: &RequestRecord, reason: Option<Reason>) -> Option<String> {
        if !self.access_log {
            return None;
        }
        let mut line = String::with_capacity(LENGTH);
        line.push_str(record.logged.as_deref().unwrap_or_default());
        // By hand, as every request's: what formats is much code that nothing else of a request runs through.
        let mut say = |name: &str, value: &str| {
            if !line.is_empty() {
                line.push(' ');
            }
            for part in [name, "=", value] {
                line.push_str(part);
            }
        };
        if let Some(version) = &record.version {
            say("version", version);
        }
        if let Some(source) = record.source {
            say("version_by", source.as_str());
        }
        if let Some(limit) = limit(record, reason) {
            say("limit", limit);
        }
        if let Some(standing) = &record.limit {
            say("remaining", &Text::from(standing.remaining));
        }
        if let Some(shadowed) = record.shadowed {
            say("shadowed", shadowed.code());
        }
        if let Some(reason) = reason {
            say("reason", reason.code());
        }
        Some(line)
    }
}

/// How the limits stand, in a word; `None` where none was asked.
fn limit(record: &RequestRecord, reason: Option<Reason>) -> Option<&'static str> {
    match reason {
        Some(Reason::QuotaExceeded) => Some("denied"),
        Some(Reason::LimiterUnavailable) => Some("unavailable"),
        _ if record.degraded => Some("degraded"),
        _ => record.limit.as_ref().map(|_| "allowed"),
    }
}
