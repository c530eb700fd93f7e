//! Conditional requests (RFC 9110 §13): every representation has a strong `ETag`; who reads one that it has gets 304; who
//! changes something says which state of it was meant, so that no change of another is lost.
//!
//! The tag is a hash of the representation, not a number of a row: a representation is made of several rows (a member and
//! its roles), and two that are equal are the same state to whoever read it (ADR 0032). Knows no resource.

use axum::{
    body::{Body, to_bytes},
    extract::{FromRequestParts, Request},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use gatehouse_contract::Reason;
use gatehouse_service::Reply;
use serde_json::Value;

use crate::random;

/// No answer of ours is larger; one that were would go without a tag.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Which state of a resource the request is for: `If-Match`. A handler that changes something that exists compares it,
/// within the transaction and with the row locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// Whatever it is: the header is `*`, or is not there where it need not be.
    Any,
    /// One of these.
    One(Vec<String>),
}

// === impl IfMatch ===

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Reply;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Reply> {
        Ok(match tags(&parts.headers, &header::IF_MATCH)? {
            None => Self::Any,
            Some(tags) if tags.iter().any(|tag| tag == "*") => Self::Any,
            Some(tags) => Self::One(tags),
        })
    }
}

impl IfMatch {
    /// Whether `current`, as it would be shown now, is what the request is for.
    ///
    /// # Errors
    /// 412 where it is not.
    pub fn check(&self, current: &Value) -> Result<(), Reply> {
        match self {
            Self::Any => Ok(()),
            Self::One(tags) if tags.contains(&tag(current.to_string().as_bytes())) => Ok(()),
            Self::One(_) => Err(Reason::PreconditionFailed.into()),
        }
    }
}

/// Stands before what changes something that exists: 428 where no state is named.
pub async fn require(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::IF_MATCH) {
        return next.run(request).await;
    }
    Reply::new(Reason::PreconditionMissing)
        .detail(
            "send the ETag that you read as If-Match, or If-Match: * to change whatever is there",
        )
        .into_response()
}

/// Stands around what is read: gives it its tag, and answers 304 to whoever has it.
pub async fn tagged(request: Request, next: Next) -> Response {
    let known = tags(request.headers(), &header::IF_NONE_MATCH);
    let response = next.run(request).await;
    let known = match known {
        Ok(known) => known.unwrap_or_default(),
        Err(reply) => return reply.into_response(),
    };
    if response.status() != StatusCode::OK {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, MAX_ANSWER_BYTES).await else {
        return Reply::new(Reason::Internal).into_response();
    };
    let tag = tag(&bytes);
    let Ok(value) = HeaderValue::from_str(&tag) else {
        return Reply::new(Reason::Internal).into_response();
    };
    parts.headers.insert(header::ETAG, value);
    // Whose answer it is depends on who asks: no shared cache may keep it, and a private one asks again.
    let cache = parts.headers.entry(header::CACHE_CONTROL);
    cache.or_insert(HeaderValue::from_static("private, no-cache"));
    // Weak comparison (RFC 9110 §13.1.2).
    let has = |known: &String| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag;
    if known.iter().any(has) {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(bytes))
}

/// 128 bits of the hash: nobody gains by making two states collide that it may write itself.
fn tag(representation: &[u8]) -> String {
    let hash = random::sha256(representation);
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(hash.split_at(16).0))
}

/// The entity tags of a header, as they are written; `None` where it is not there.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Vec<String>>, Reply> {
    let broken = || {
        Reply::new(Reason::HeaderInvalid).detail(format!("{name} is * or a list of quoted tags"))
    };
    let mut found: Option<Vec<String>> = None;
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| broken())?;
        let tags = found.get_or_insert_default();
        // No tag of ours has a comma in it; one of others that has matches nothing, in whichever pieces.
        for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            let opaque = tag.strip_prefix("W/").unwrap_or(tag);
            let quoted = opaque.len() >= 2 && opaque.starts_with('"') && opaque.ends_with('"');
            if tag != "*" && !quoted {
                return Err(broken());
            }
            tags.push(tag.to_owned());
        }
        if tags.is_empty() || tags.len() > 1 && tags.iter().any(|tag| tag == "*") {
            return Err(broken());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(sent: &[&str], expected: Result<Option<&[&str]>, u16>) {
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(header::IF_MATCH, HeaderValue::from_str(value).unwrap());
        }
        let got = tags(&headers, &header::IF_MATCH).map_err(|reply| reply.problem().status);
        let expected = expected.map(|tags| {
            tags.map(|tags| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>())
        });
        assert_eq!(got, expected, "{sent:?}");
    }

    #[test]
    fn tags_are_quoted_or_a_star() {
        check(&[], Ok(None));
        check(&["*"], Ok(Some(&["*"])));
        check(&[r#""a""#], Ok(Some(&[r#""a""#])));
        check(&[r#""a", W/"b""#, r#""c""#], Ok(Some(&[r#""a""#, r#"W/"b""#, r#""c""#])));
        for bad in ["", ",", "a", "\"", "W/a", "*, \"a\"", "\"a\", *", "\"a\" \"b\"x"] {
            check(&[bad], Err(400));
        }
    }

    #[test]
    fn only_the_state_that_was_read_is_changed() {
        let (now, before) = (json!({"a": 1}), json!({"a": 2}));
        let of = |value: &Value| tag(value.to_string().as_bytes());
        assert_eq!(of(&now).len(), 24);
        assert!(IfMatch::Any.check(&now).is_ok());
        assert!(IfMatch::One(vec![of(&before), of(&now)]).check(&now).is_ok());
        // Strong comparison (RFC 9110 §13.1.1): a weak tag never matches.
        for other in [of(&before), format!("W/{}", of(&now)), String::new()] {
            let refused = IfMatch::One(vec![other]).check(&now).unwrap_err();
            assert_eq!(refused.problem().code, "precondition_failed");
        }
    }
}
