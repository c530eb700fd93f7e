//! Judges request bodies by JSON Schema, by the same document and the same crate as the gateway's module `validate`: a
//! body that came past the gateway, or through one without that module, is refused alike. Runs behind the guard: who may
//! not call learns nothing of what a body should be. Knows no operation; what a schema cannot say the operations say.

use std::borrow::Cow;

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use gatehouse_contract::Mistake;
use gatehouse_service::Reply;
use gatehouse_validate::{Awaited, Begin, Refusal, Validator};

use crate::routes::Api;

const DOCUMENT: &str = include_str!("../bodies.json");

/// The rules that this build ships do not hold together.
#[derive(Debug, thiserror::Error)]
#[error("bodies.json: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Broken(Vec<Mistake>);

/// The rules that this build ships.
pub fn builtin() -> Result<Validator, Broken> {
    Validator::compile(DOCUMENT).map_err(Broken)
}

/// Refuses a body that does not fit; what has no schema passes unread.
pub async fn judge(State(api): State<Api>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let pseudo = [
        (b":method".as_slice(), request.method().as_str().as_bytes()),
        (b":path".as_slice(), path.as_bytes()),
    ];
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    let pairs: Vec<_> = pseudo.into_iter().chain(headers).collect();
    let begun = api.bodies.begin(&pairs, |_| Some(Cow::Borrowed(path)));
    let awaited = match begun {
        Begin::Pass => return next.run(request).await,
        Begin::Refuse(refusal) => return reply(&refusal),
        Begin::Await(awaited) => awaited,
    };
    match whole(&api.bodies, &awaited, request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => reply(&refusal),
    }
}

/// Reads the body, judges it, and gives the request back as it came.
async fn whole(rules: &Validator, awaited: &Awaited, request: Request) -> Result<Request, Refusal> {
    let (parts, body) = request.into_parts();
    // Too large, or the client left, whom no answer reaches.
    let bytes =
        to_bytes(body, rules.max_body_bytes(awaited)).await.map_err(|_| Refusal::too_large())?;
    rules.end(awaited, &bytes)?;
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

fn reply(refusal: &Refusal) -> Response {
    told(refusal).into_response()
}

/// A judge's refusal as ours.
pub fn told(refusal: &Refusal) -> Reply {
    let problem = refusal.problem();
    let reply = Reply::new(refusal.reason).detail(refusal.detail);
    let members = problem.extensions.into_iter();
    members.fold(reply, |reply, (name, value)| reply.with(&name, value))
}
