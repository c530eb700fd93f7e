//! What a descriptor is answered: the verdict, the tightest limit's standing, the headers that a client sees, and the
//! body of a refusal.
//! Knows no transport.

use std::sync::LazyLock;

use gatehouse_contract::{Problem, Reason, problem::MEDIA_TYPE};
use gatehouse_ratelimit::{decision::Shown, header};
use prost::bytes::Bytes;

use super::wire::{Code, Duration, Header, Limit, RateLimitResponse, Status, Unit};
use crate::engine::Decided;

/// The body of every refusal. Without a request id: only the proxy knows it.
static REFUSAL: LazyLock<Bytes> = LazyLock::new(|| {
    let text = serde_json::to_vec(&Problem::new(Reason::QuotaExceeded));
    // A problem is strings and a number: it can always be written.
    Bytes::from(text.unwrap_or_default())
});

/// More headers than a refusal tells.
const HEADERS: usize = 8;

/// The answer to the one descriptor that was asked.
pub fn of(decided: &Decided) -> RateLimitResponse {
    let decision = &decided.decision;
    let shown = decision.shown(&decided.rules);
    let code = if decision.allowed { Code::Ok } else { Code::OverLimit } as i32;
    let status = match shown.first() {
        Some(tightest) => status(code, tightest),
        None => Status { code, ..Status::default() },
    };
    let mut headers = Vec::with_capacity(HEADERS);
    let mut tell = |name: &'static str, value: &str| {
        headers.push(Header { key: Bytes::from_static(name.as_bytes()), value: value.to_owned() });
    };
    header::each(&shown, decision.retry_after_s(), &mut tell);
    let mut raw_body = Bytes::new();
    if !decision.allowed {
        // Envoy puts it over the content type of its own local reply.
        tell("content-type", MEDIA_TYPE);
        raw_body = REFUSAL.clone();
    }
    RateLimitResponse {
        overall_code: code,
        statuses: vec![status],
        response_headers_to_add: headers,
        raw_body,
    }
}

fn status(code: i32, limit: &Shown<'static>) -> Status {
    Status {
        code,
        current_limit: Some(Limit {
            requests_per_unit: limit.limit,
            unit: unit(limit.window_s) as i32,
            name: Bytes::from_static(limit.name.as_bytes()),
        }),
        limit_remaining: limit.remaining,
        duration_until_reset: Some(Duration { seconds: i64::from(limit.reset_s) }),
    }
}

/// Windows that have no unit are told by the headers alone.
const fn unit(window_s: u32) -> Unit {
    match window_s {
        1 => Unit::Second,
        60 => Unit::Minute,
        3600 => Unit::Hour,
        86_400 => Unit::Day,
        _ => Unit::Unknown,
    }
}
