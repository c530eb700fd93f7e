//! Executions that were given up, within the caller's tenant: found, looked into and started anew, one or many.
//! Knows nothing of why one was given up.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use gatehouse_contract::{Document, ExecutionId, Reason};
use gatehouse_execution::EndReason;
use gatehouse_service::{Reply, body::JsonBody};
use gatehouse_store::{
    OffsetDateTime,
    dead_letters::{AT_ONCE, DeadLetter, Filter},
    paging::Place,
};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use crate::{
    access::Caller,
    once::Once,
    paging::Listing,
    routes::{
        Api, audit,
        door::{own, read_own},
        executions::{accepted, replayed, runnable},
        path_id, refused, timestamp,
    },
};

/// What the list is narrowed by.
pub const FILTERS: &[&str] = &["reason", "before"];

/// `GET /api/v1/runtime/dead-letters`.
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    listing: Listing,
) -> Result<Response, Reply> {
    let filter = Filter {
        reason: listing.parsed::<EndReason>("reason", "why an execution ended")?,
        before: audit::at(&listing, "before")?,
    };
    let op = caller.op();
    let page = listing.page();
    // The last one given up comes first: that is what a page is behind.
    let below = (page.after.created_at, ExecutionId::new(page.after.id));
    let found = read_own(&api, &op, |mut tx| async move {
        tx.dead_letters(filter, Some(below), page.limit).await
    })
    .await?;
    let place = |one: &DeadLetter| Place { created_at: one.given_up_at, id: one.id.as_uuid() };
    Ok(listing.answer(&found, place, shown))
}

/// `GET /api/v1/runtime/dead-letters/{dead_letter}`.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Reply> {
    let id: ExecutionId = path_id(&id)?;
    let op = caller.op();
    let mut tx = api.store.tenant(&op).await.map_err(refused)?;
    let found = tx.dead_letter(id).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    Ok(Json(shown(&found)))
}

/// `POST /api/v1/runtime/dead-letters/{dead_letter}/replay`. It goes on under its own id.
pub async fn replay(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    once: Once,
) -> Result<Response, Reply> {
    let id: ExecutionId = path_id(&id)?;
    let op = caller.op();
    let mut tx = own(&api, &op).await?;
    once.begin(&mut tx).await?;
    let within = tx.of_tenant()?;
    let found = within.execution(id).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    let version = runnable(within, &found).await?;
    let (id, state) = replayed(within, id).await?;
    once.end(&api, tx, accepted(id, state, &version)).await
}

/// `POST /api/v1/runtime/dead-letters/replay`. The oldest first, as many as are asked for at once; asked again it goes on.
pub async fn replay_all(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let (filter, limit) = body.read(which)?;
    let op = caller.op();
    let mut tx = own(&api, &op).await?;
    once.begin(&mut tx).await?;
    let within = tx.of_tenant()?;
    let replayed = within.replay_dead_letters(filter, limit).await.map_err(refused)?;
    let more = !within.dead_letters(filter, None, 1).await.map_err(refused)?.is_empty();
    let answer = json!({"replayed": replayed.len(), "executions": replayed, "more": more});
    once.end(&api, tx, (StatusCode::ACCEPTED, Json(answer)).into_response()).await
}

fn which(doc: &Document<'_>) -> Option<(Filter, u32)> {
    let reason = doc.parsed_opt::<EndReason>("reason", "why an execution ended");
    let before = time(doc);
    let limit = doc.integer("limit", Some(AT_ONCE.into()), 1..=AT_ONCE.into());
    let filter = Filter { reason: reason?, before: before? };
    Some((filter, u32::try_from(limit?).ok()?))
}

fn time(doc: &Document<'_>) -> Option<Option<OffsetDateTime>> {
    let Some(text) = doc.text_opt("before")? else { return Some(None) };
    let parsed = OffsetDateTime::parse(&text, &Rfc3339);
    if parsed.is_err() {
        doc.note("before", "not a time", "write one such as \"2026-01-01T00:00:00Z\"");
    }
    parsed.ok().map(Some)
}

fn shown(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "agent_id": letter.agent,
        "agent_version_id": letter.version,
        "reason": letter.reason,
        "message": letter.message,
        "attempts": letter.attempts,
        "losses": letter.losses,
        "created_at": timestamp(letter.created_at),
        "given_up_at": timestamp(letter.given_up_at),
        "execution": format!("/api/v1/runtime/executions/{}", letter.id),
    })
}
