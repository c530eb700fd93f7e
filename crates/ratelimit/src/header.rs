//! What clients see of their limits: `X-RateLimit-*`, `RateLimit` and `RateLimit-Policy` (structured fields,
//! RFC 9651) and `Retry-After` (RFC 9110 §10.2.3).
//! Knows no HTTP library.

use std::fmt::Write;

use gatehouse_contract::{header, sidecar::CheckAnswer};

/// The policies that weigh on the request (draft-ietf-httpapi-ratelimit-headers).
pub const POLICY: &str = "ratelimit-policy";
/// The standing of the tightest.
pub const STATE: &str = "ratelimit";
/// On a refusal alone.
pub const RETRY_AFTER: &str = "retry-after";

/// Names in lower case, and values. Empty when no limit weighed.
pub fn values(answer: &CheckAnswer) -> Vec<(&'static str, String)> {
    let Some(first) = answer.limits.first() else { return Vec::new() };
    let mut policies = String::new();
    for limit in &answer.limits {
        let comma = if policies.is_empty() { "" } else { ", " };
        // Writing into a String cannot fail.
        write!(policies, "{comma}\"{}\";q={};w={}", limit.name, limit.limit, limit.window_s)
            .unwrap_or_default();
    }
    let state = format!("\"{}\";r={};t={}", first.name, first.remaining, first.reset_s);
    let mut values = vec![
        (header::RATE_LIMIT, first.limit.to_string()),
        (header::RATE_REMAINING, first.remaining.to_string()),
        (header::RATE_RESET, first.reset_s.to_string()),
        (POLICY, policies),
        (STATE, state),
    ];
    if let Some(seconds) = answer.retry_after_s {
        values.push((RETRY_AFTER, seconds.to_string()));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatehouse_contract::sidecar::LimitState;

    #[test]
    fn the_tightest_limit_is_shown_and_every_policy_is_listed() {
        let limit = |name: &str, limit, remaining, reset_s| LimitState {
            name: name.to_owned(),
            limit,
            window_s: 60,
            remaining,
            reset_s,
        };
        let answer = CheckAnswer {
            allowed: false,
            retry_after_s: Some(12),
            degraded: false,
            day_used_percent: None,
            limits: vec![limit("endpoint", 10, 0, 12), limit("tenant", 60, 31, 0)],
        };
        let shown: Vec<String> =
            values(&answer).iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(
            shown,
            [
                "x-ratelimit-limit: 10",
                "x-ratelimit-remaining: 0",
                "x-ratelimit-reset: 12",
                "ratelimit-policy: \"endpoint\";q=10;w=60, \"tenant\";q=60;w=60",
                "ratelimit: \"endpoint\";r=0;t=12",
                "retry-after: 12",
            ]
        );
    }
}
