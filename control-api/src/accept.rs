//! Which answers a client takes (RFC 9110 §12.5.1): `Accept` against the one media type that an operation answers in. Runs
//! behind the guard and before anything is done, so that who may not call learns nothing and nobody is refused the news of
//! what took effect. Which version a vendor's media type names is the gateway's to judge.
//! Bytes of a client: what is read is bounded. Knows no operation.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use gatehouse_contract::{
    Reason,
    field::{FULL, Parts, parameter, weight_of},
};
use gatehouse_service::Reply;
use serde_json::json;

use crate::routes::logs;

/// The most that is read of all `Accept` headers that came, in bytes and in ranges: as at the gateway.
const MAX_BYTES: usize = 4096;
const MAX_RANGES: usize = 32;

const JSON: &[u8] = b"application/json";
/// Our own JSON, by whichever version and resource: `application/vnd.greenlang.agents.v1+json`.
const VENDOR: &[u8] = b"application/vnd.greenlang";
/// One of those, for whoever is told what is supported.
const VENDOR_V1: &str = "application/vnd.greenlang.v1+json";

/// There is more to read than is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TooLong;

/// What an operation answers in.
#[derive(Debug, Clone, Copy)]
pub struct Media {
    /// Always, or unless it is asked to go on telling.
    pub usual: &'static str,
    /// Then.
    pub followed: Option<&'static str>,
}

/// Stands before an operation that answers in `media`.
pub async fn judge(State(media): State<Media>, request: Request, next: Next) -> Response {
    let media = match media.followed {
        Some(followed) if logs::follows(request.uri()) => followed,
        _ => media.usual,
    };
    match accepts(request.headers(), media) {
        Ok(true) => next.run(request).await,
        Ok(false) => Reply::new(Reason::MediaTypeNotAcceptable)
            .with("supported", json!(names(media)))
            .into_response(),
        Err(TooLong) => Reply::new(Reason::HeaderInvalid)
            .detail("Accept has at most 4096 bytes and 32 media types")
            .into_response(),
    }
}

/// The media types by which an answer in `media` can be asked for.
fn names(media: &'static str) -> Vec<&'static str> {
    match essence(media.as_bytes()) {
        JSON => vec![media, VENDOR_V1],
        other if is_json(other) => vec![media, "application/json"],
        _ => vec![media],
    }
}

/// Whether `media` will do. A range that cannot be read says nothing, and who says nothing takes anything.
fn accepts(headers: &HeaderMap, media: &str) -> Result<bool, TooLong> {
    let media = essence(media.as_bytes());
    let (mut bytes, mut ranges, mut said) = (0_usize, 0_usize, false);
    // How closely the closest range names it, and with which weight.
    let mut closest = (0_u8, 0_u16);
    for value in headers.get_all(header::ACCEPT) {
        bytes = bytes.saturating_add(value.len());
        if bytes > MAX_BYTES {
            return Err(TooLong);
        }
        for range in Parts::of(value.as_bytes(), b',') {
            ranges = ranges.saturating_add(1);
            if ranges > MAX_RANGES {
                return Err(TooLong);
            }
            let Some((range, weight)) = read(range) else { continue };
            said = true;
            // Of two that are as close the heavier one.
            closest = closest.max((closeness(range, media, weight), weight));
        }
    }
    let (closeness, weight) = closest;
    Ok(!said || (closeness > 0 && weight > 0))
}

/// A media range and its weight; `None` where it is none.
fn read(text: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = Parts::of(text, b';');
    let range = parts.next()?.trim_ascii();
    let (kind, sub) = halves(range)?;
    if !(is_token(kind) && is_token(sub)) || (kind == b"*" && sub != b"*") {
        return None;
    }
    // Other parameters say nothing: there is one form of each answer.
    let weight = parts.filter_map(parameter).find(|(name, _)| name.eq_ignore_ascii_case(b"q"));
    let weight = weight.map_or(Some(FULL), |(_, value)| weight_of(value))?;
    Some((range, weight))
}

/// 0: not at all; 1: whatever it is; 2: by its kind; 3: by its name, or by another that it goes by. By that it can be asked
/// for and not excluded: it is not what is sent.
fn closeness(range: &[u8], media: &[u8], weight: u16) -> u8 {
    if range == b"*/*" {
        return 1;
    }
    let other = || is_json(media) && (range.eq_ignore_ascii_case(JSON) || is_vendors(range));
    if range.eq_ignore_ascii_case(media) || (weight > 0 && other()) {
        return 3;
    }
    match (halves(range), halves(media)) {
        (Some((kind, b"*")), Some((ours, _))) if kind.eq_ignore_ascii_case(ours) => 2,
        _ => 0,
    }
}

fn is_json(media: &[u8]) -> bool {
    media == JSON || media.ends_with(b"+json")
}

fn is_vendors(range: &[u8]) -> bool {
    let Some((start, rest)) = range.split_at_checked(VENDOR.len()) else { return false };
    let mut halves = rest.splitn(2, |byte| *byte == b'+');
    let within = matches!(halves.next().and_then(<[u8]>::first), None | Some(b'.'));
    let json = halves.next().is_none_or(|suffix| suffix.eq_ignore_ascii_case(b"json"));
    start.eq_ignore_ascii_case(VENDOR) && within && json
}

/// Without its parameters.
fn essence(media: &[u8]) -> &[u8] {
    Parts::of(media, b';').next().unwrap_or_default().trim_ascii()
}

fn halves(media: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = media.iter().position(|byte| *byte == b'/')?;
    let (kind, rest) = media.split_at_checked(at)?;
    Some((kind, rest.get(1..)?))
}

/// RFC 9110 §5.6.2.
fn is_token(text: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(fits)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn check(media: &str, sent: &[&str], expected: Result<bool, TooLong>) {
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(header::ACCEPT, HeaderValue::from_str(value).unwrap());
        }
        assert_eq!(accepts(&headers, media), expected, "{media} by {sent:?}");
    }

    #[test]
    fn who_names_it_or_nothing_takes_it() {
        for sent in [
            &[][..],
            &[""],
            &[" , ,"],
            &["application/json"],
            &["APPLICATION/JSON; charset=utf-8"],
            &["image/png, application/*;q=0.001"],
            &["image/png", "*/*;q=0.1"],
            &["application/vnd.greenlang.v1+json"],
            &["application/vnd.greenlang.agents.V9+JSON"],
            &["application/vnd.greenlang+json;version=1"],
            &["application/json;q=0, application/vnd.greenlang.v1+json"],
            // Excluding a version is the gateway's matter.
            &["application/vnd.greenlang.v1+json;q=0, */*"],
            &["application/json;q=0, application/json"],
            &[r#"image/png;x="a,b", application/json"#],
            // What a client of old sends, and what is nothing.
            &["text/html, image/gif, *; q=.2, */*; q=.2, */*;q=0.2"],
            &["json"],
            &["*/json"],
            &["image/png;q=2"],
        ] {
            check("application/json", sent, Ok(true));
        }
    }

    #[test]
    fn the_closest_range_decides() {
        for sent in [
            &["image/png"][..],
            &["application/problem+json"],
            &["application/json;q=0"],
            &["application/json;q=0.000, */*"],
            &["application/*;q=0, */*"],
            &["*/*;q=0"],
            &["text/*, image/*"],
            &["application/vnd.greenlangs.v1+json"],
            &["application/vnd.greenlang.v1+xml"],
            &["application/vnd.greenlang.v1+json;q=0"],
            &["application/jsonp"],
            &["json, image/png"],
        ] {
            check("application/json", sent, Ok(false));
        }
        check("application/json", &["application/*;q=0, application/json;q=0.1"], Ok(true));
    }

    #[test]
    fn what_is_json_goes_by_that_name_and_nothing_else_does() {
        let document = "application/vnd.oai.openapi+json;version=3.1";
        for (media, sent, expected) in [
            (document, "application/json", true),
            (document, "application/vnd.oai.openapi+json", true),
            (document, "application/json;q=0, */*", true),
            ("application/jwk-set+json", "application/json", true),
            ("application/x-ndjson", "application/json", false),
            ("application/x-ndjson", "application/x-ndjson", true),
            ("text/html; charset=utf-8", "text/html,application/xhtml+xml", true),
            ("text/html; charset=utf-8", "application/json", false),
            ("text/html; charset=utf-8", "application/vnd.greenlang.v1+json", false),
        ] {
            check(media, &[sent], Ok(expected));
            let whole = names(media);
            assert!(whole.contains(&media));
            for name in whole {
                check(media, &[name], Ok(true));
            }
        }
    }

    #[test]
    fn what_is_read_is_bounded() {
        check("application/json", &["*/*"; MAX_RANGES], Ok(true));
        check("application/json", &[&["*/*"; MAX_RANGES + 1].join(",")], Err(TooLong));
        check("application/json", &["a/b"; MAX_RANGES + 1], Err(TooLong));
        let long = format!("application/json;x=\"{}\"", ",".repeat(MAX_BYTES));
        check("application/json", &[&long], Err(TooLong));
        check("application/json", &[&long[..MAX_BYTES]], Ok(true));
    }
}
