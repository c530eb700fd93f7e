//! What clients see of their limits: `X-RateLimit-*`, and `RateLimit` and `RateLimit-Policy` as structured fields
//! (draft-ietf-httpapi-ratelimit-headers, RFC 9651). The texts that do not change are made once per answer of the
//! sidecar, not once per response.
//! Knows no HTTP.

use std::{fmt::Write, rc::Rc};

use gatehouse_contract::sidecar::CheckAnswer;

use crate::{config::Reset, local::SPAN, text::Text};

/// The tightest limit, and the names of all: what answers to one lease have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The value of `RateLimit-Policy`.
    pub(crate) policy: Rc<str>,
    /// The beginning of the value of `RateLimit`, up to the number that is left.
    item: Box<str>,
    /// Requests per window.
    pub(crate) limit: u32,
    /// The value of the warning header, once most of the day's quota is used.
    pub(crate) warning: Option<Rc<str>>,
}

/// What a client may know of a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What is left.
    pub remaining: u32,
    /// Seconds until at least one more passes, rounded up.
    pub reset_s: u32,
    /// The same as clients see it in `X-RateLimit-Reset`.
    pub(crate) reset_shown: u32,
    pub(crate) shown: Rc<Shown>,
}

impl Shown {
    /// The limit that a VM keeps by itself.
    pub(crate) fn local(limit: u32) -> Self {
        Self {
            policy: format!("\"tenant\";q={limit};w={}", SPAN.seconds()).into(),
            item: item("tenant"),
            limit,
            warning: None,
        }
    }

    /// What an answer says; `None` when no limit weighed.
    pub(crate) fn of(answer: &CheckAnswer) -> Option<Self> {
        let first = answer.limits.first()?;
        let mut policy = String::new();
        for limit in &answer.limits {
            let comma = if policy.is_empty() { "" } else { ", " };
            let name = plain(&limit.name);
            // Writing into a String cannot fail.
            write!(policy, "{comma}\"{name}\";q={};w={}", limit.limit, limit.window_s)
                .unwrap_or_default();
        }
        let warning = answer.day_used_percent.map(|used| format!("\"day\";used={used}").into());
        Some(Self { policy: policy.into(), item: item(&first.name), limit: first.limit, warning })
    }
}

impl Standing {
    /// `now_s` is the time since the Unix epoch in seconds.
    pub(crate) fn new(
        shown: Rc<Shown>,
        remaining: u32,
        reset_s: u32,
        reset: Reset,
        now_s: u64,
    ) -> Self {
        let reset_shown = match reset {
            Reset::Delta => reset_s,
            Reset::Epoch => {
                u32::try_from(now_s.saturating_add(u64::from(reset_s))).unwrap_or(u32::MAX)
            }
        };
        Self { remaining, reset_s, reset_shown, shown }
    }

    /// Requests per window.
    pub fn limit(&self) -> u32 {
        self.shown.limit
    }

    /// The value of `RateLimit`; its time is always from now.
    pub(crate) fn item(&self) -> String {
        let [left, seconds] = [self.remaining, self.reset_s].map(Text::from);
        [&*self.shown.item, &left, ";t=", &seconds].concat()
    }
}

fn item(name: &str) -> Box<str> {
    format!("\"{}\";r=", plain(name)).into()
}

/// A name goes into a quoted string of a header (RFC 9651 §3.3.3): only what needs no escape stays.
fn plain(name: &str) -> String {
    let fits = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    name.chars().filter(fits).collect()
}

#[cfg(test)]
mod tests {
    use gatehouse_contract::sidecar::LimitState;

    use super::*;

    #[test]
    fn r11_policies_and_standing_are_structured_fields() {
        let limit = |name: &str, limit, window_s, remaining, reset_s| LimitState {
            name: name.to_owned(),
            limit,
            window_s,
            remaining,
            reset_s,
        };
        let answer = CheckAnswer {
            allowed: false,
            retry_after_s: Some(12),
            degraded: false,
            day_used_percent: Some(85),
            limits: vec![limit("endpoint", 10, 60, 0, 12), limit("ten\"ant\r", 60, 60, 31, 0)],
        };
        let shown = Rc::new(Shown::of(&answer).unwrap());
        assert_eq!(&*shown.policy, "\"endpoint\";q=10;w=60, \"tenant\";q=60;w=60");
        assert_eq!(shown.warning.as_deref(), Some("\"day\";used=85"));
        let delta = Standing::new(Rc::clone(&shown), 0, 12, Reset::Delta, 1_800_000_000);
        assert_eq!((delta.item().as_str(), delta.reset_shown), ("\"endpoint\";r=0;t=12", 12));
        let epoch = Standing::new(shown, 0, 12, Reset::Epoch, 1_800_000_000);
        assert_eq!((epoch.item().as_str(), epoch.reset_shown), (&*delta.item(), 1_800_000_012));
        assert_eq!(Shown::of(&CheckAnswer { limits: Vec::new(), ..answer }), None);
    }
}
