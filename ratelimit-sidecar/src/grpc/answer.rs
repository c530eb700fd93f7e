//! What a descriptor is answered: the verdict, the tightest limit's standing, the headers that a client sees, and the
//! body of a refusal, written once into the bytes that are sent. Numbers are those of Envoy's `rls.proto`.
//! Knows no connection.

use std::sync::LazyLock;

use axum::body::Bytes;
use gatehouse_contract::{Problem, Reason, problem::MEDIA_TYPE};
use gatehouse_ratelimit::{decision::Shown, header};

use super::{PREFIX, ask, wire};
use crate::engine::Decided;

/// More than an answer of four limits takes.
const ANSWER_BYTES: usize = 512;
/// `RateLimitResponse.Code`.
const OK: u32 = 1;
const OVER_LIMIT: u32 = 2;

/// The body of every refusal. Without a request id: only the proxy knows it.
static REFUSAL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    // A problem is strings and a number: it can always be written.
    serde_json::to_vec(&Problem::new(Reason::QuotaExceeded)).unwrap_or_default()
});

/// The answer to the one descriptor that was asked, behind its prefix.
pub fn framed(decided: &Decided) -> Bytes {
    let decision = &decided.decision;
    let shown = decision.shown(&decided.rules);
    let mut out = Vec::with_capacity(ANSWER_BYTES);
    out.extend_from_slice(&[0; PREFIX]);
    let code = if decision.allowed { OK } else { OVER_LIMIT };
    wire::number(&mut out, 1, code);
    wire::message(&mut out, 2, |out| status(out, code, shown.first()));
    let mut tell = |name: &'static str, value: &str| {
        wire::message(&mut out, 3, |out| {
            wire::bytes(out, 1, name.as_bytes());
            wire::bytes(out, 2, value.as_bytes());
        });
    };
    header::each(&shown, decision.retry_after_s(), &mut tell);
    if !decision.allowed {
        // Envoy puts it over the content type of its own local reply.
        tell("content-type", MEDIA_TYPE);
        wire::bytes(&mut out, 5, &REFUSAL);
    }
    let length = u32::try_from(out.len() - PREFIX).unwrap_or(u32::MAX).to_be_bytes();
    // Not compressed, and so long.
    for (place, byte) in out.iter_mut().skip(1).zip(length) {
        *place = byte;
    }
    // Not `from`, which would move it to a place of its exact size.
    Bytes::from_owner(out)
}

fn status(out: &mut Vec<u8>, code: u32, tightest: Option<&Shown<'_>>) {
    wire::number(out, 1, code);
    let Some(limit) = tightest else { return };
    wire::message(out, 2, |out| {
        wire::number(out, 1, limit.limit);
        wire::number(out, 2, ask::unit(limit.window_s));
        wire::bytes(out, 3, limit.name.as_bytes());
    });
    wire::number(out, 3, limit.remaining);
    wire::message(out, 4, |out| wire::number(out, 1, limit.reset_s));
}
