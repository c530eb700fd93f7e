//! Wraps JSON answers as `{"data": …, "meta": …, "error": null}` without touching a byte of them: the body is checked to
//! be JSON and text is put around it (acceptance X1–X6). What is not certain to be one whole JSON text passes as it is.
//! Knows no hosts: it is told what came, and says what goes in front and behind.

use gatehouse_contract::Reason;
use serde::de::IgnoredAny;

use crate::{
    config::{OnBroken, Suite},
    step::{Edit, Reply, RequestRecord},
    vary::Vary,
    view::{Dialect, Scan, Single},
};

/// The rules of one configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// Beginnings of paths.
    pub(crate) routes: Vec<String>,
    pub(crate) max_body_bytes: usize,
    pub(crate) on_broken: OnBroken,
}

/// A response that is to be wrapped once its body is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapping {
    /// The body is an error's.
    error: bool,
    max_body_bytes: usize,
    refuses: bool,
    edits: Vec<Edit>,
}

/// What goes around a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// In front of it.
    pub before: String,
    /// Behind it.
    pub after: String,
}

/// The header by which client and upstream ask for the bare answer.
const HEADER: &[u8] = b"x-envelope";

/// What says something of the bytes that are no more: lengths, marks, sums, ranges.
const OF_THE_BYTES: &[&str] = &[
    "content-length",
    "etag",
    "accept-ranges",
    "content-md5",
    "digest",
    "content-digest",
    "repr-digest",
];

impl Suite {
    /// Whether the answer to this request may be wrapped; notes what the answer depends on.
    pub(crate) fn note_envelope(
        &self,
        record: &mut RequestRecord,
        found: &Scan<'_>,
        method: &str,
        path: &str,
    ) {
        let Some(envelope) = self.envelope.as_ref().filter(|_| self.parts.shapes()) else { return };
        if !envelope.routes.iter().any(|route| path.starts_with(route.as_str())) {
            return;
        }
        record.vary.add(Vary::ENVELOPE);
        record.wraps = found.dialect == Dialect::Http
            && method != "HEAD"
            && method != "CONNECT"
            && !found.upgrades
            && !is_none(found.envelope);
    }

    /// Whether this response is to be wrapped, by its headers. One without a body is not.
    pub fn wrapping<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        record: &RequestRecord,
        headers: &[(N, V)],
    ) -> Option<Wrapping> {
        if !self.parts.shapes() || !record.wraps {
            return None;
        }
        let envelope = self.envelope.as_ref()?;
        let mut error = None;
        let mut json = false;
        let mut edits = Vec::new();
        for (name, value) in headers {
            let (name, value) = (name.as_ref(), value.as_ref());
            let is = |ours: &[u8]| name.eq_ignore_ascii_case(ours);
            if is(b":status") {
                error = is_wrapped(value);
            } else if is(b"content-type") {
                // Two types are none.
                if json || !is_json_type(value) {
                    return None;
                }
                json = true;
            } else if is(b"content-range")
                || is(HEADER) && is_none(Single::One(value))
                || is(b"content-encoding") && !value.eq_ignore_ascii_case(b"identity")
                || is(b"cache-control") && has_no_transform(value)
                || is(b"content-length") && is_more(value, envelope.max_body_bytes)
            {
                return None;
            }
            if let Some(known) = OF_THE_BYTES.iter().find(|known| is(known.as_bytes())) {
                edits.push(Edit::Remove((*known).into()));
            }
        }
        let refuses = envelope.on_broken == OnBroken::Refuse;
        let max_body_bytes = envelope.max_body_bytes;
        json.then_some(Wrapping { error: error?, max_body_bytes, refuses, edits })
    }

    /// The answer in the stead of one that should have been JSON.
    pub fn refuse_broken(&self, record: RequestRecord) -> Reply {
        self.refuse_late(record, Reason::UpstreamInvalid)
    }
}

// === impl Wrapping ===

impl Wrapping {
    /// Whether the headers wait for the body, as it may still be refused. Else they go ahead, changed.
    pub fn holds_headers(&self) -> bool {
        self.refuses
    }

    /// What the headers must not say any more.
    pub fn edits(&self) -> &[Edit] {
        &self.edits
    }

    /// Whether a body of so many bytes is let pass as it is.
    pub fn is_too_large(&self, bytes: usize) -> bool {
        bytes > self.max_body_bytes
    }

    /// What goes around `body`; `None` if it is not one JSON text.
    pub fn wrap(&self, record: &RequestRecord, body: &[u8]) -> Option<Wrapped> {
        // No value is built: numbers, order and escapes stay what they are, and depth costs nothing.
        let text = std::str::from_utf8(body).ok()?;
        let IgnoredAny = serde_json::from_str(text).ok()?;
        // Both are of letters that JSON takes as they are.
        let version = match &record.version {
            Some(version) => format!(",\"version\":\"{version}\""),
            None => String::new(),
        };
        let meta = format!("\"meta\":{{\"request_id\":\"{}\"{version}}}", record.request_id);
        Some(match self.error {
            false => Wrapped {
                before: "{\"data\":".to_owned(),
                after: format!(",{meta},\"error\":null}}"),
            },
            true => Wrapped {
                before: format!("{{\"data\":null,{meta},\"error\":"),
                after: "}".to_owned(),
            },
        })
    }
}

/// Whether a status' body is an error's; `None` for those that have none, or a part.
fn is_wrapped(status: &[u8]) -> Option<bool> {
    match status {
        b"204" | b"205" | b"206" | b"304" => None,
        [b'2' | b'3', ..] => Some(false),
        [b'4' | b'5', ..] => Some(true),
        _ => None,
    }
}

/// `application/json` and types built on it, but for the one that is an error's whole form (RFC 9457).
fn is_json_type(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else { return false };
    let mut parts = value.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let json = kind == "application/json"
        || kind.starts_with("application/") && kind.ends_with("+json") && kind != PROBLEM;
    // RFC 8259 knows one encoding.
    let utf8 = |parameter: &str| match parameter.split_once('=') {
        Some((name, set)) if name.trim().eq_ignore_ascii_case("charset") => {
            set.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    };
    json && parts.all(utf8)
}

const PROBLEM: &str = gatehouse_contract::problem::MEDIA_TYPE;

fn has_no_transform(value: &[u8]) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|word| word.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

fn is_none(value: Single<'_>) -> bool {
    matches!(value, Single::One(value) if value.trim_ascii().eq_ignore_ascii_case(b"none"))
}

fn is_more(length: &[u8], most: usize) -> bool {
    let length = std::str::from_utf8(length).ok().and_then(|length| length.parse::<usize>().ok());
    length.is_none_or(|length| length > most)
}

#[cfg(test)]
mod tests;
