//! Requests that a client may repeat without doing something twice: `Idempotency-Key` on POST (design §4,
//! draft-ietf-httpapi-idempotency-key-header). A successful answer is kept for 24 hours, sealed, in the transaction of the
//! effect that it tells of; what was refused had no effect and is judged anew. Knows no operation.

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use gatehouse_contract::Reason;
use gatehouse_service::{Reply, body::bytes};
use gatehouse_store::{Error, OpCtx, idempotency::Repeatable};
use serde_json::{Map, Value, json};
use tracing::error;

use crate::{
    access::Caller,
    random,
    routes::{Api, door::Tx, refused},
};

/// The header.
pub const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// On an answer that was given before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

const MAX_KEY_BYTES: usize = 255;
/// What of an answer's headers is its own; all others are made anew.
const KEPT_HEADERS: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::LOCATION, header::CACHE_CONTROL, header::RETRY_AFTER];
/// No answer to a POST is larger.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// The request's key, if it has one. Whoever makes something opens its transaction and answers through it.
#[derive(Debug, Clone, Default)]
pub struct Once(Option<Repeatable>);

/// Stands around every POST behind the guard.
pub async fn layer(
    State(api): State<Api>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Response {
    match asked(&api, &caller, request, next).await {
        Ok(response) => response,
        Err(reply) => reply.into_response(),
    }
}

async fn asked(
    api: &Api,
    caller: &Caller,
    request: Request,
    next: Next,
) -> Result<Response, Reply> {
    let Some(key) = key(request.headers())? else { return Ok(next.run(request).await) };
    let (mut parts, body) = request.into_parts();
    let body = bytes(Request::from_parts(parts.clone(), body), &()).await?;
    let of = Repeatable {
        key_sha256: joined(&[
            caller.tenant.to_string().as_bytes(),
            caller.subject.as_bytes(),
            key.as_bytes(),
        ]),
        request_sha256: joined(&[
            parts.method.as_str().as_bytes(),
            parts.uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes(),
            &body,
        ]),
    };
    let op = caller.op();
    if let Some(answer) = before(api, &op, &of).await? {
        return Ok(answer);
    }
    parts.extensions.insert(Once(Some(of)));
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    if response.status().is_success() {
        return Ok(response);
    }
    // The first one may have ended between the look above and this one's refusal.
    Ok(before(api, &op, &of).await?.unwrap_or(response))
}

/// The answer of before, or the refusal of a key that was another request's.
async fn before(api: &Api, op: &OpCtx, of: &Repeatable) -> Result<Option<Response>, Reply> {
    let Some(kept) = api.store.kept_answer(op, &of.key_sha256).await.map_err(refused)? else {
        return Ok(None);
    };
    if kept.request_sha256 != of.request_sha256 {
        return Err(Reply::new(Reason::KeyReused).detail(
            "a new request needs a new Idempotency-Key; a repeated one is sent unchanged",
        ));
    }
    let plain = api.sealer.open(&name(of), &kept.sealed_answer);
    let answer = plain.ok().and_then(|plain| read(&plain)).ok_or_else(|| {
        error!("a kept answer cannot be read");
        Reply::new(Reason::Internal)
    })?;
    Ok(Some(answer))
}

// === impl Once ===

impl<S: Sync> FromRequestParts<S> for Once {
    type Rejection = Reply;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Reply> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

impl Once {
    /// Keeps others with this key out of the transaction's way.
    ///
    /// # Errors
    /// 409 while another request with it runs.
    pub async fn begin(&self, tx: &mut Tx<'_>) -> Result<(), Reply> {
        let Some(of) = &self.0 else { return Ok(()) };
        let had = match tx {
            Tx::Own(tx) => tx.begin_repeatable(&of.key_sha256).await,
            Tx::Platform(tx, _) => tx.begin_repeatable(&of.key_sha256).await,
        };
        if had.map_err(refused)? {
            return Ok(());
        }
        Err(Reply::new(Reason::KeyInFlight)
            .header(header::RETRY_AFTER, HeaderValue::from_static("1")))
    }

    /// Keeps the answer and makes the transaction last, both or neither.
    pub async fn end(
        &self,
        api: &Api,
        mut tx: Tx<'_>,
        response: Response,
    ) -> Result<Response, Reply> {
        let Some(of) = &self.0 else {
            tx.commit().await?;
            return Ok(response);
        };
        let (parts, body) = response.into_parts();
        let broken = || {
            error!("an answer cannot be kept");
            Reply::new(Reason::Internal)
        };
        let body = to_bytes(body, MAX_ANSWER_BYTES).await.map_err(|_| broken())?;
        let plain = write(parts.status, &parts.headers, &body);
        let sealed = api.sealer.seal(&name(of), plain.as_bytes()).map_err(|_| broken())?;
        let kept = match &mut tx {
            Tx::Own(tx) => tx.keep_answer(of, &sealed).await,
            Tx::Platform(tx, _) => tx.keep_answer(of, &sealed).await,
        };
        match kept {
            Ok(true) => tx.commit().await?,
            // Somebody else's came first: this transaction leaves no trace, and the layer finds the other's answer.
            Ok(false) | Err(Error::Conflict { .. }) => return Err(Reason::KeyInFlight.into()),
            Err(error) => return Err(refused(error)),
        }
        Ok(Response::from_parts(parts, Body::from(body)))
    }
}

/// The one key of a request.
fn key(headers: &HeaderMap) -> Result<Option<String>, Reply> {
    let mut values = headers.get_all(KEY).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().ok(),
        (Some(_), Some(_)) => None,
    };
    // The draft has it as a quoted string (RFC 9651 §3.3.3); most clients send it bare.
    let bare = |text: &str| -> Option<String> {
        let text = text.strip_prefix('"').map_or(Some(text), |rest| rest.strip_suffix('"'))?;
        let fits = (1..=MAX_KEY_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte));
        fits.then(|| text.to_owned())
    };
    value.and_then(bare).map(Some).ok_or_else(|| {
        Reply::new(Reason::HeaderInvalid)
            .detail("Idempotency-Key is one of 1 to 255 visible ASCII characters, such as a UUID")
    })
}

/// No two lists of parts have the same hash.
fn joined(parts: &[&[u8]]) -> [u8; 32] {
    let mut whole = Vec::new();
    for part in parts {
        whole.extend_from_slice(&part.len().to_be_bytes());
        whole.extend_from_slice(part);
    }
    random::sha256(&whole)
}

/// A sealed answer opens as the answer under this key and no other.
fn name(of: &Repeatable) -> String {
    format!("gatehouse/answer/{}", URL_SAFE_NO_PAD.encode(of.key_sha256))
}

fn write(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> String {
    let headers: Map<String, Value> = KEPT_HEADERS
        .iter()
        .filter_map(|name| Some((name.to_string(), headers.get(name)?.to_str().ok()?.into())))
        .collect();
    json!({"status": status.as_u16(), "headers": headers, "body": STANDARD.encode(body)})
        .to_string()
}

fn read(plain: &[u8]) -> Option<Response> {
    let kept: Value = serde_json::from_slice(plain).ok()?;
    let status = u16::try_from(kept.get("status")?.as_u64()?).ok()?;
    let body = Bytes::from(STANDARD.decode(kept.get("body")?.as_str()?).ok()?);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    for name in KEPT_HEADERS {
        if let Some(value) = kept.get("headers")?.get(name.as_str()) {
            response.headers_mut().insert(name, HeaderValue::from_str(value.as_str()?).ok()?);
        }
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sent: &[&str], expected: Result<Option<&str>, u16>) {
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(KEY, HeaderValue::from_str(value).unwrap());
        }
        let got = key(&headers).map_err(|reply| reply.problem().status);
        assert_eq!(got, expected.map(|key| key.map(str::to_owned)), "{sent:?}");
    }

    #[test]
    fn a_key_is_one_plain_text_quoted_or_bare() {
        check(&[], Ok(None));
        check(
            &["8e03978e-40d5-43dd-bc93-6894a57f9324"],
            Ok(Some("8e03978e-40d5-43dd-bc93-6894a57f9324")),
        );
        check(&["\"a\""], Ok(Some("a")));
        check(&[&"a".repeat(255)], Ok(Some(&"a".repeat(255))));
        for bad in ["", "\"\"", "\"a", "a\"", "a b", "a\\b", &"a".repeat(256)] {
            check(&[bad], Err(400));
        }
        check(&["a", "a"], Err(400));
    }

    #[test]
    fn parts_of_other_lengths_are_other_requests() {
        assert_ne!(joined(&[b"ab", b"c"]), joined(&[b"a", b"bc"]));
        assert_ne!(joined(&[b"a", b""]), joined(&[b"a"]));
    }

    #[tokio::test]
    async fn an_answer_comes_back_as_it_was() {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, HeaderValue::from_static("/x"));
        headers.insert(header::SET_COOKIE, HeaderValue::from_static("a=b"));
        let plain = write(StatusCode::CREATED, &headers, b"{\"a\":1}");
        let back = read(plain.as_bytes()).unwrap();
        assert_eq!(back.status(), StatusCode::CREATED);
        assert_eq!(back.headers()[header::LOCATION], "/x");
        assert_eq!(back.headers().len(), 2, "{:?}", back.headers());
        assert_eq!(back.headers()[REPLAYED], "true");
        assert_eq!(to_bytes(back.into_body(), 99).await.unwrap(), "{\"a\":1}");
        assert!(read(b"{}").is_none());
    }
}
