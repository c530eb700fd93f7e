//! Whole calls over a body in memory: what is asked, what is answered, what is refused.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use gatehouse_contract::sidecar::CheckAsk;
use gatehouse_ratelimit::{Decision, Name, Rule, Span, Standing, keys};
use http_body::Frame;

use super::*;

const TENANT: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";

/// A body that comes in pieces.
struct Pieces(VecDeque<Bytes>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

fn entries() -> Vec<wire::Entry> {
    let entry = |(key, value): (&str, &str)| wire::Entry { key: key.into(), value: value.into() };
    let all = [("tenant_id", TENANT), ("tier", "pro"), ("method", "GET"), ("route", "/x")];
    all.into_iter().map(entry).collect()
}

fn question() -> wire::RateLimitRequest {
    let descriptor = wire::Descriptor { entries: entries(), ..wire::Descriptor::default() };
    wire::RateLimitRequest { domain: DOMAIN.into(), descriptors: vec![descriptor], hits_addend: 0 }
}

fn prefixed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[flag], &length.to_be_bytes()[..], message].concat()
}

fn decided(allowed: bool) -> Decided {
    let wait = Some(std::time::Duration::from_secs(3));
    let pass_in = if allowed { Some(std::time::Duration::ZERO) } else { wait };
    let rule = |name| Rule::new(name, 600, Span::from_secs(60), keys::ANY);
    let standing = |used| Standing { used, free_in: wait, pass_in };
    Decided {
        rules: [rule(Name::Endpoint), rule(Name::Tenant)].into(),
        decision: Decision { allowed, standings: vec![standing(591), standing(593)] },
        lease: None,
        degraded: false,
        day_used_percent: None,
    }
}

fn owned(check: Check<'_>) -> CheckAsk {
    let Check { tenant, asked, cost, forced } = check;
    CheckAsk {
        tenant,
        tier: asked.tier,
        limits: asked.limits.cloned(),
        subject: asked.subject.map(str::to_owned),
        method: asked.method.to_owned(),
        route: asked.route.to_owned(),
        cost,
        forced,
    }
}

fn settings() -> Settings {
    Settings { domains: vec![DOMAIN.into()], window_s: 60 }
}

/// What was asked, and what came back: the status, or the message.
async fn ask(
    path: &str,
    pieces: Vec<Vec<u8>>,
    decided: Result<Decided, Unavailable>,
) -> (Option<CheckAsk>, Result<wire::RateLimitResponse, String>) {
    let body = Pieces(pieces.into_iter().map(Bytes::from).collect());
    let request = Request::post(path).header(CONTENT_TYPE, "application/grpc").body(body).unwrap();
    assert!(is_call(&request));
    let mut asked = None;
    let reply = call(&settings(), request, async |ask: Check<'_>| {
        asked = Some(owned(ask));
        decided
    })
    .await;
    assert_eq!(reply.status(), StatusCode::OK);
    assert_eq!(reply.headers()[gatehouse_contract::header::SIDECAR_MARKER], "1");
    if let Some(status) = reply.headers().get(frames::GRPC_STATUS) {
        return (asked, Err(status.to_str().unwrap().to_owned()));
    }
    let mut body = reply.into_body();
    let mut frames = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        frames.push(frame.unwrap());
    }
    let [message, trailers] = <[_; 2]>::try_from(frames).unwrap();
    assert_eq!(trailers.into_trailers().unwrap()[frames::GRPC_STATUS], "0");
    let mut message = message.into_data().unwrap();
    assert_eq!((message.get_u8(), message.get_u32() as usize), (0, message.len()));
    (asked, Ok(wire::RateLimitResponse::decode(message).unwrap()))
}

async fn check(question: wire::RateLimitRequest, expected: Result<CheckAsk, Invalid>) {
    let whole = prefixed(0, &question.encode_to_vec());
    let (asked, got) = ask(PATH, vec![whole], Ok(decided(true))).await;
    let invalid = expected.as_ref().err().copied();
    assert_eq!(asked, expected.ok(), "{question:?}");
    assert_eq!(got.err().as_deref(), invalid.map(|_| "3"), "{question:?}");
    let again = Question::read(&question, &settings());
    assert_eq!(again.err(), invalid, "{question:?}");
}

fn expected() -> CheckAsk {
    CheckAsk {
        tenant: TENANT.parse().unwrap(),
        tier: gatehouse_contract::Tier::Pro,
        limits: None,
        subject: None,
        method: "GET".into(),
        route: "/x".into(),
        cost: 1,
        forced: false,
    }
}

#[tokio::test]
async fn a_descriptor_is_a_check() {
    check(question(), Ok(expected())).await;
    let mut asked = question();
    asked.descriptors[0].entries.push(wire::Entry { key: "subject".into(), value: "u".into() });
    check(asked, Ok(CheckAsk { subject: Some("u".into()), ..expected() })).await;
}

#[tokio::test]
async fn hits_are_one_unless_told_and_none_only_where_none_is_written() {
    for (of_question, of_descriptor, cost) in
        [(0, None, 1), (7, None, 7), (7, Some(0), 0), (0, Some(3), 3), (MAX, None, MAX)]
    {
        let mut asked = question();
        asked.hits_addend = of_question;
        asked.descriptors[0].hits_addend = of_descriptor.map(|value| wire::UInt64Value { value });
        check(asked, Ok(CheckAsk { cost, ..expected() })).await;
    }
    const MAX: u32 = gatehouse_ratelimit::policy::MAX_LIMIT;
    for value in [u64::from(MAX) + 1, u64::MAX] {
        let mut asked = question();
        asked.descriptors[0].hits_addend = Some(wire::UInt64Value { value });
        check(asked, Err(Invalid::Hits)).await;
    }
    check(wire::RateLimitRequest { hits_addend: MAX + 1, ..question() }, Err(Invalid::Hits)).await;
    let mut asked = question();
    asked.descriptors[0].is_negative_hits = true;
    check(asked, Err(Invalid::Negative)).await;
}

#[tokio::test]
async fn an_override_is_the_tenants_limit_per_window_or_day() {
    use gatehouse_contract::sidecar::Overrides;
    use wire::Unit;
    let limited = |requests_per_unit, unit: i32| {
        let mut asked = question();
        asked.descriptors[0].limit = Some(wire::LimitOverride { requests_per_unit, unit });
        asked
    };
    let window = Overrides { per_window: Some(9), ..Overrides::default() };
    let ask = CheckAsk { limits: Some(window), ..expected() };
    check(limited(9, Unit::Minute as i32), Ok(ask)).await;
    let day = Overrides { per_day: Some(0), ..Overrides::default() };
    check(limited(0, Unit::Day as i32), Ok(CheckAsk { limits: Some(day), ..expected() })).await;
    for (requests, unit) in [
        (9, Unit::Second as i32),
        (9, Unit::Unknown as i32),
        (9, Unit::Year as i32),
        (9, 99),
        (1 << 24, Unit::Minute as i32),
    ] {
        check(limited(requests, unit), Err(Invalid::Limit)).await;
    }
}

#[tokio::test]
async fn what_is_not_understood_is_never_a_pass() {
    let edited = |edit: &dyn Fn(&mut wire::RateLimitRequest)| {
        let mut asked = question();
        edit(&mut asked);
        asked
    };
    type Edit<'a> = &'a dyn Fn(&mut wire::RateLimitRequest);
    let cases: [(Edit<'_>, Invalid); 13] = [
        (&|q| q.domain = "envoy".into(), Invalid::Domain),
        (&|q| q.descriptors.clear(), Invalid::Descriptors),
        (&|q| q.descriptors.push(q.descriptors[0].clone()), Invalid::Descriptors),
        (&|q| q.descriptors[0].entries[0].key = "generic_key".into(), Invalid::UnknownEntry),
        (&|q| q.descriptors[0].entries.push(entries()[0].clone()), Invalid::TwiceEntry),
        (&|q| q.descriptors[0].entries[3].value = String::new(), Invalid::Value),
        (&|q| q.descriptors[0].entries[3].value = "/".repeat(513), Invalid::Value),
        (&|q| drop(q.descriptors[0].entries.pop()), Invalid::Missing),
        (&|q| q.descriptors[0].entries[0].value = "acme".into(), Invalid::Tenant),
        (&|q| q.descriptors[0].entries[1].value = "gold".into(), Invalid::Tier),
        (&|q| q.descriptors[0].entries[2].value = "get".into(), Invalid::Method),
        (&|q| q.descriptors[0].entries[3].value = "x".into(), Invalid::Route),
        (&|q| q.descriptors[0].entries.clear(), Invalid::Missing),
    ];
    for (edit, invalid) in cases {
        check(edited(edit), Err(invalid)).await;
    }
}

#[tokio::test]
async fn calls_in_another_form_have_a_status_of_their_own() {
    let message = question().encode_to_vec();
    let whole = prefixed(0, &message);
    let status = async |path: &str, pieces: Vec<Vec<u8>>| {
        let (asked, got) = ask(path, pieces, Ok(decided(true))).await;
        assert_eq!(asked.is_some(), got.is_ok());
        got.err()
    };
    let in_pieces = whole.iter().map(|byte| vec![*byte]).collect();
    assert_eq!(status(PATH, in_pieces).await, None);
    for (pieces, expected) in [
        (vec![], "3"),
        (vec![whole[..whole.len() - 1].to_vec()], "3"),
        (vec![whole.clone(), vec![0]], "3"),
        (vec![prefixed(2, &message)], "3"),
        (vec![prefixed(0, &[0xff; 9])], "3"),
        (vec![prefixed(1, &message)], "12"),
        (vec![vec![0; 8 * 1024 + 1]], "8"),
    ] {
        assert_eq!(status(PATH, pieces).await.as_deref(), Some(expected));
    }
    assert_eq!(status("/grpc.health.v1.Health/Check", vec![whole.clone()]).await.unwrap(), "12");
    let (asked, got) = ask(PATH, vec![whole], Err(Unavailable)).await;
    assert!(asked.is_some());
    assert_eq!(got.unwrap_err(), "14");
}

/// Any bytes end in a status or in a check, and never in a pass of something else.
#[tokio::test]
async fn any_bytes_are_answered() {
    let good = question().encode_to_vec();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..4000 {
        let mut bytes = good.clone();
        for _ in 0..3 {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let at = (seed >> 33) as usize % bytes.len();
            bytes[at] = (seed >> 24) as u8;
        }
        let (asked, got) = ask(PATH, vec![prefixed(0, &bytes)], Ok(decided(true))).await;
        assert_eq!(asked.is_some(), got.is_ok());
    }
}

#[tokio::test]
async fn an_answer_tells_the_tightest_limit_and_what_the_client_sees() {
    let whole = prefixed(0, &question().encode_to_vec());
    for (allowed, code) in [(true, wire::Code::Ok), (false, wire::Code::OverLimit)] {
        let (_, got) = ask(PATH, vec![whole.clone()], Ok(decided(allowed))).await;
        let got = got.unwrap();
        assert_eq!((got.overall_code(), got.statuses[0].code()), (code, code));
        let status = &got.statuses[0];
        let limit = status.current_limit.as_ref().unwrap();
        assert_eq!(
            (&limit.name[..], limit.requests_per_unit, limit.unit()),
            (&b"tenant"[..], 600, wire::Unit::Minute)
        );
        assert_eq!((status.limit_remaining, status.duration_until_reset.unwrap().seconds), (7, 3));
        let headers: Vec<String> = got
            .response_headers_to_add
            .iter()
            .map(|header| format!("{}: {}", header.key.escape_ascii(), header.value))
            .collect();
        let mut expected = vec![
            "x-ratelimit-limit: 600",
            "x-ratelimit-remaining: 7",
            "x-ratelimit-reset: 3",
            "ratelimit-policy: \"tenant\";q=600;w=60, \"endpoint\";q=600;w=60",
            "ratelimit: \"tenant\";r=7;t=3",
        ];
        let body = String::from_utf8(got.raw_body.to_vec()).unwrap();
        if allowed {
            assert_eq!(body, "");
        } else {
            expected.extend(["retry-after: 3", "content-type: application/problem+json"]);
            assert!(body.contains("#quota-exceeded\""), "{body}");
        }
        assert_eq!(headers, expected);
    }
}
