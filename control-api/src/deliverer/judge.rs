//! What an answer, or none, means for a delivery: done, tried again and when, or over. The table is in docs/webhooks.md.
//! Pure: the caller brings the answer and the dice.

use std::time::Duration;

use gatehouse_outbound::{Error, Heard};
use gatehouse_store::deliveries::{Outcome, Seen};

use super::REST;

const GONE: u16 = 410;
/// Those that may say when to come back (RFC 9110 §15.6.4, RFC 6585 §4).
const BUSY: [u16; 2] = [429, 503];
/// How long an endpoint may ask to be left alone with one event, and as a whole.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);
const MAX_REST: Duration = Duration::from_secs(60);

/// What is waited for after each attempt but the last: the table that Standard Webhooks proposes. 75 h 35 min 5 s in all.
pub(super) const PAUSES: [Duration; 9] = [
    Duration::from_secs(5),
    minutes(5),
    minutes(30),
    minutes(2 * 60),
    minutes(5 * 60),
    minutes(10 * 60),
    minutes(14 * 60),
    minutes(20 * 60),
    minutes(24 * 60),
];
/// Each is longer or shorter by up to this part, so that what failed together does not come back together.
pub(super) const JITTER: f64 = 0.1;

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// What is done about a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Ended(Outcome),
    /// The endpoint is told no more.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judged {
    pub verdict: Verdict,
    pub seen: Seen,
    /// How long the endpoint is left alone, where nothing says that it works.
    pub rest: Option<Duration>,
}

// === impl Verdict ===

impl Verdict {
    /// Its name in logs and metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ended(Outcome::Delivered) => "delivered",
            Self::Ended(Outcome::Retry(_)) => "retried",
            Self::Ended(Outcome::Failed) => "failed",
            Self::Gone => "gone",
        }
    }
}

// === impl Judged ===

impl Judged {
    /// Of what cannot be sent at all.
    pub(super) const fn unreadable() -> Self {
        let seen = Seen { status: None, error: Some("unreadable") };
        Self { verdict: Verdict::Ended(Outcome::Failed), seen, rest: None }
    }
}

/// `attempts` were made before this one; `dice` is from 0 to 1.
pub(super) fn judge(heard: Result<Heard, Error>, attempts: u32, dice: f64) -> Judged {
    let (status, retry_after) = match &heard {
        Ok(heard) => (Some(heard.status), heard.retry_after),
        Err(_) => (None, None),
    };
    let seen = Seen { status, error: heard.as_ref().err().map(word) };
    if status.is_some_and(|status| (200..300).contains(&status)) {
        return Judged { verdict: Verdict::Ended(Outcome::Delivered), seen, rest: None };
    }
    if status == Some(GONE) {
        return Judged { verdict: Verdict::Gone, seen, rest: None };
    }
    let asked = retry_after.filter(|_| status.is_some_and(|status| BUSY.contains(&status)));
    let made = usize::try_from(attempts).unwrap_or(usize::MAX);
    let outcome = PAUSES.get(made).map_or(Outcome::Failed, |pause| {
        let pause = pause.mul_f64(1.0 - JITTER + 2.0 * JITTER * dice.clamp(0.0, 1.0));
        // Not sooner than the table says: an endpoint that is busy is not asked more often for saying so.
        Outcome::Retry(asked.map_or(pause, |asked| pause.max(asked.min(MAX_RETRY_AFTER))))
    });
    let rest = match &heard {
        Ok(_) => asked.map(|asked| asked.min(MAX_REST)),
        Err(Error::Late(_)) => Some(REST),
        Err(_) => None,
    };
    Judged { verdict: Verdict::Ended(outcome), seen, rest }
}

/// For the tenant: what went wrong, in a word that says nothing of networks that are not its own.
fn word(error: &Error) -> &'static str {
    match error {
        Error::Refused(_) => "address_refused",
        Error::Late(_) => "timeout",
        Error::Resolve(_) | Error::Connect(_) => "unreachable",
        Error::Tls(_) => "tls",
        Error::Http(_)
        | Error::Request(_)
        | Error::Redirect(_)
        | Error::Large(_)
        | Error::Encoded
        | Error::Kind(_) => "broken",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(heard: Result<Heard, Error>, attempts: u32, dice: f64, expected: &str) {
        let judged = judge(heard, attempts, dice);
        let pause = match judged.verdict {
            Verdict::Ended(Outcome::Retry(pause)) => {
                format!(" {}s", pause.as_millis() as f64 / 1e3)
            }
            _ => String::new(),
        };
        let rest = judged.rest.map_or_else(String::new, |rest| format!(" rest {}", rest.as_secs()));
        let error = judged.seen.error.map_or_else(String::new, |error| format!(" {error}"));
        assert_eq!(format!("{}{pause}{rest}{error}", judged.verdict.as_str()), expected);
    }

    fn answer(status: u16, retry_after: Option<u64>) -> Result<Heard, Error> {
        Ok(Heard { status, retry_after: retry_after.map(Duration::from_secs) })
    }

    #[test]
    fn aex4_33_each_answer_has_its_consequence() {
        for status in [200, 201, 204, 299] {
            check(answer(status, None), 0, 0.5, "delivered");
        }
        for status in [300, 301, 302, 307, 308, 400, 401, 404, 409, 500, 502, 504] {
            check(answer(status, None), 0, 0.5, "retried 5s");
        }
        check(answer(410, Some(5)), 0, 0.5, "gone");
        check(answer(410, None), 9, 0.5, "gone");
        // Who says when is heard, within bounds.
        check(answer(429, Some(120)), 0, 0.5, "retried 120s rest 60");
        check(answer(503, Some(1)), 0, 0.5, "retried 5s rest 1");
        check(answer(503, Some(u64::MAX)), 0, 0.5, "retried 86400s rest 60");
        check(answer(503, None), 0, 0.5, "retried 5s");
        check(answer(500, Some(120)), 0, 0.5, "retried 5s");
        check(Err(Error::Late(REST)), 0, 0.5, "retried 5s rest 30 timeout");
        let refused = std::io::Error::other("x");
        check(Err(Error::Connect(refused)), 0, 0.5, "retried 5s unreachable");
        check(Err(Error::Tls(std::io::Error::other("x"))), 9, 0.5, "failed tls");
    }

    #[test]
    fn aex4_an_event_is_tried_ten_times_within_some_75_hours() {
        let whole: Duration = PAUSES.iter().sum();
        assert_eq!(whole, Duration::from_secs(75 * 3600 + 35 * 60 + 5));
        let ends = |dice| -> Duration {
            let mut whole = Duration::ZERO;
            for attempts in 0..9 {
                let Verdict::Ended(Outcome::Retry(pause)) =
                    judge(answer(500, None), attempts, dice).verdict
                else {
                    panic!("attempt {attempts} is not the last");
                };
                whole += pause;
            }
            assert_eq!(judge(answer(500, None), 9, dice).verdict, Verdict::Ended(Outcome::Failed));
            whole
        };
        assert!(ends(0.0) > Duration::from_secs(68 * 3600) && ends(0.0) < whole);
        assert!(ends(1.0) < Duration::from_secs(84 * 3600) && ends(1.0) > whole);
    }
}
