//! What a descriptor is answered: the verdict, the tightest limit's standing, the headers that a client sees, and the
//! body of a refusal.
//! Knows no transport.

use std::sync::LazyLock;

use gatehouse_contract::{
    Problem, Reason,
    problem::MEDIA_TYPE,
    sidecar::{CheckAnswer, LimitState},
};
use gatehouse_ratelimit::header;
use prost::bytes::Bytes;

use super::wire::{Code, Duration, Header, Limit, RateLimitResponse, Status, Unit};

/// The body of every refusal. Without a request id: only the proxy knows it.
static REFUSAL: LazyLock<Bytes> = LazyLock::new(|| {
    let text = serde_json::to_vec(&Problem::new(Reason::QuotaExceeded));
    // A problem is strings and a number: it can always be written.
    Bytes::from(text.unwrap_or_default())
});

/// The answer to the one descriptor that was asked.
pub fn of(answer: &CheckAnswer) -> RateLimitResponse {
    let code = if answer.allowed { Code::Ok } else { Code::OverLimit } as i32;
    let status = match answer.limits.first() {
        Some(tightest) => status(code, tightest),
        None => Status { code, ..Status::default() },
    };
    let named = |(name, value): (&str, String)| Header { key: name.to_owned(), value };
    let mut headers: Vec<Header> = header::values(answer).into_iter().map(named).collect();
    let mut raw_body = Bytes::new();
    if !answer.allowed {
        // Envoy puts it over the content type of its own local reply.
        headers.push(named(("content-type", MEDIA_TYPE.to_owned())));
        raw_body = REFUSAL.clone();
    }
    RateLimitResponse {
        overall_code: code,
        statuses: vec![status],
        response_headers_to_add: headers,
        raw_body,
    }
}

fn status(code: i32, limit: &LimitState) -> Status {
    Status {
        code,
        current_limit: Some(Limit {
            requests_per_unit: limit.limit,
            unit: unit(limit.window_s) as i32,
            name: limit.name.clone(),
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
