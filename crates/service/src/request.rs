//! A request's id and the trace that it belongs to: taken over where they are well formed, else made here.
//! Knows nothing of logs or replies.

use std::{convert::Infallible, fmt};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, request::Parts},
};
use gatehouse_contract::{header, trace};
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

/// The trace that a request belongs to, as `traceparent` has it (W3C Trace Context §3.2): the one that it names soundly,
/// else a new one that nobody samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace(String);

impl Trace {
    /// The incoming `traceparent`, when there is exactly one and it is sound by the letter.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(header::TRACEPARENT).iter();
        let named = match (values.next(), values.next()) {
            (Some(value), None) => trace::carried(value.as_bytes()),
            _ => None,
        };
        named.map_or_else(Self::fresh, Self)
    }

    fn fresh() -> Self {
        let parent = Uuid::new_v4().as_u64_pair().0;
        Self(format!("00-{}-{parent:016x}-00", Uuid::now_v7().simple()))
    }

    /// The value of `traceparent`, of version 00: 55 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trace's id alone, as logs have it.
    pub fn id(&self) -> &str {
        trace::id(&self.0)
    }
}

/// Within [`crate::app::finish`] the trace is always there.
impl<S: Sync> FromRequestParts<S> for Trace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self::of(&parts.headers)))
    }
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
        let of = |sent: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append("traceparent", HeaderValue::from_str(value).unwrap());
            }
            Trace::of(&headers)
        };
        let sound = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let named = of(&[sound]);
        assert_eq!((named.as_str(), named.id()), (sound, "4bf92f3577b34da6a3ce929d0e0e4736"));
        for bad in [&["4bf92f3577b34da6a3ce929d0e0e4736"][..], &[""], &[], &[sound, sound]] {
            let made = of(bad);
            assert_ne!(made, named, "{bad:?}");
            assert_eq!(trace::carried(made.as_str().as_bytes()).as_deref(), Some(made.as_str()));
            assert_ne!(of(bad), made, "a new one for each");
        }
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
