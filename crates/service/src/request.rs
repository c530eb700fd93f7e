//! A request's id: taken from the edge when it is well formed, else made here.
//! Knows nothing of logs or replies.

use std::{convert::Infallible, fmt};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, request::Parts},
};
use gatehouse_contract::header;
use uuid::Uuid;

/// Longest id that is taken over, in bytes.
const MAX_BYTES: usize = 128;

/// The id under which a request is logged, audited and reported to its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The incoming `X-Request-ID`, when there is exactly one of 1 to 128 letters, digits, `-`, `_`, `.` or
    /// `:`; anything else could break a log line and is replaced.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(header::REQUEST_ID).iter();
        match (values.next(), values.next()) {
            (Some(value), None) if is_plain(value.as_bytes()) => Self(value.clone()),
            _ => Self::fresh(),
        }
    }

    /// A new one (UUID v7).
    pub fn fresh() -> Self {
        let text = Uuid::now_v7().hyphenated().to_string();
        Self(HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unknown")))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or("unknown")
    }

    /// Its text as a header's value.
    pub fn to_header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Within [`crate::app::finish`] the id is always there.
impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self::of(&parts.headers)))
    }
}

/// The trace that a request belongs to (W3C Trace Context §3.2): the one that it names soundly, else a new one.
pub(crate) fn trace_id(headers: &HeaderMap) -> String {
    let mut values = headers.get_all("traceparent").iter();
    let named = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().and_then(trace_in),
        _ => None,
    };
    named.map_or_else(|| Uuid::now_v7().simple().to_string(), str::to_owned)
}

fn trace_in(parent: &str) -> Option<&str> {
    let hex = |text: &str, len| {
        text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let mut parts = parent.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // A later version may have more behind it.
    let whole = version != "00" || parts.next().is_none();
    let sound =
        hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
    let named = trace.bytes().any(|b| b != b'0') && span.bytes().any(|b| b != b'0');
    (whole && sound && named).then_some(trace)
}

fn is_plain(bytes: &[u8]) -> bool {
    (1..=MAX_BYTES).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sent: &[&str], kept: bool) {
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(header::REQUEST_ID, HeaderValue::from_str(value).unwrap());
        }
        let id = RequestId::of(&headers);
        assert_eq!(sent.first() == Some(&id.as_str()), kept, "{sent:?} -> {id}");
    }

    #[test]
    fn a_trace_is_the_one_that_is_named_soundly_or_a_new_one() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let of = |sent: &[String]| {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append("traceparent", HeaderValue::from_str(value).unwrap());
            }
            trace_id(&headers)
        };
        let sound = format!("00-{trace}-00f067aa0ba902b7-01");
        assert_eq!(of(std::slice::from_ref(&sound)), trace);
        assert_eq!(of(&[format!("01-{trace}-00f067aa0ba902b7-01-more")]), trace);
        for bad in [
            format!("00-{trace}-00f067aa0ba902b7-01-more"),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("ff-{trace}-00f067aa0ba902b7-01"),
            format!("00-{trace}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            trace.to_owned(),
            String::new(),
        ] {
            let made = of(std::slice::from_ref(&bad));
            assert!(made != trace && made.len() == 32, "{bad} -> {made}");
        }
        assert_ne!(of(&[sound.clone(), sound]), trace, "two say nothing");
    }

    #[test]
    fn takes_one_plain_id_and_makes_its_own_otherwise() {
        check(&["0191d6b0-7c3e-7aaa-8bbb-0123456789ab"], true);
        check(&["a.b_c:1"], true);
        for bad in ["", "a b", "a\"b", &"x".repeat(129)] {
            check(&[bad], false);
        }
        check(&["one", "two"], false);
        check(&[], false);
    }
}
