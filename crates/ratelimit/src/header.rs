//! What clients see of their limits: `X-RateLimit-*`, `RateLimit` and `RateLimit-Policy` (structured fields,
//! RFC 9651) and `Retry-After` (RFC 9110 §10.2.3).
//! Knows no HTTP library.

use gatehouse_contract::header;

use crate::decision::Shown;

/// The policies that weigh on the request (draft-ietf-httpapi-ratelimit-headers).
pub const POLICY: &str = "ratelimit-policy";
/// The standing of the tightest.
pub const STATE: &str = "ratelimit";
/// On a refusal alone.
pub const RETRY_AFTER: &str = "retry-after";

/// Tells `tell` every header: its name in lower case, and its value. `limits` as [`crate::Decision::shown`] has them;
/// none when none weighed. One buffer serves all values.
pub fn each(
    limits: &[Shown<'_>],
    retry_after_s: Option<u32>,
    mut tell: impl FnMut(&'static str, &str),
) {
    let Some(first) = limits.first() else { return };
    let mut text = String::with_capacity(128);
    for (name, number) in [
        (header::RATE_LIMIT, first.limit),
        (header::RATE_REMAINING, first.remaining),
        (header::RATE_RESET, first.reset_s),
    ] {
        text.clear();
        put(&mut text, number);
        tell(name, &text);
    }
    text.clear();
    for limit in limits {
        text.push_str(if text.is_empty() { "\"" } else { ", \"" });
        text.push_str(limit.name);
        text.push_str("\";q=");
        put(&mut text, limit.limit);
        text.push_str(";w=");
        put(&mut text, limit.window_s);
    }
    tell(POLICY, &text);
    text.clear();
    text.push('"');
    text.push_str(first.name);
    text.push_str("\";r=");
    put(&mut text, first.remaining);
    text.push_str(";t=");
    put(&mut text, first.reset_s);
    tell(STATE, &text);
    if let Some(seconds) = retry_after_s {
        text.clear();
        put(&mut text, seconds);
        tell(RETRY_AFTER, &text);
    }
}

/// A number's digits: a formatter would cost more than all the rest of a header.
fn put(text: &mut String, number: u32) {
    text.push_str(itoa::Buffer::new().format(number));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_is_shown_and_every_policy_is_listed() {
        let limit = |name, limit, remaining, reset_s| Shown {
            name,
            limit,
            window_s: 60,
            remaining,
            reset_s,
        };
        let limits = [limit("endpoint", 10, 0, 12), limit("tenant", u32::MAX, 31, 0)];
        let mut shown = Vec::new();
        each(&limits, Some(12), |name, value| shown.push(format!("{name}: {value}")));
        assert_eq!(
            shown,
            [
                "x-ratelimit-limit: 10",
                "x-ratelimit-remaining: 0",
                "x-ratelimit-reset: 12",
                "ratelimit-policy: \"endpoint\";q=10;w=60, \"tenant\";q=4294967295;w=60",
                "ratelimit: \"endpoint\";r=0;t=12",
                "retry-after: 12",
            ]
        );
        each(&[], Some(12), |name, value| panic!("{name}: {value}"));
    }
}
