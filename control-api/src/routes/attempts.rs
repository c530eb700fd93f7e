//! What an execution's attempts left behind: how each ended and what it used, and where the result came from.
//! Knows nothing of how either is counted or made.

use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use gatehouse_contract::{ExecutionId, Reason};
use gatehouse_service::Reply;
use gatehouse_store::{
    metering::{Attempt, Spent},
    paging::Place,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    access::Caller,
    paging::Listing,
    routes::{Api, door::read_own, path_id, timestamp},
};

/// `GET /api/v1/runtime/executions/{execution}/attempts`.
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    Path(execution): Path<String>,
    listing: Listing,
) -> Result<Response, Reply> {
    let execution: ExecutionId = path_id(&execution)?;
    let op = caller.op();
    let page = &listing.page();
    let found = read_own(&api, &op, |mut tx| async move {
        let found = tx.attempts(execution, page).await?;
        // One that has not begun has none, and is there all the same.
        let is_there = !found.is_empty() || tx.execution(execution).await?.is_some();
        Ok(is_there.then_some(found))
    })
    .await?;
    let found = found.ok_or(Reason::NotFound)?;
    let place = |one: &Attempt| Place { created_at: one.started_at, id: Uuid::nil() };
    Ok(listing.answer(&found, place, shown))
}

/// `GET /api/v1/runtime/executions/{execution}/provenance`: what `gatehouse verify execution` takes.
pub async fn provenance(
    State(api): State<Api>,
    caller: Caller,
    Path(execution): Path<String>,
) -> Result<Json<Value>, Reply> {
    let execution: ExecutionId = path_id(&execution)?;
    let op = caller.op();
    let found = read_own(&api, &op, |mut tx| async move { tx.provenance(execution).await }).await?;
    let proven = found.ok_or(Reason::NotFound)?.ok_or_else(|| {
        Reply::new(Reason::NotFound)
            .detail("only a result has a provenance, and the execution has none")
    })?;
    Ok(Json(json!({
        "provenance": proven.document,
        "hash": proven.hash,
        "input": proven.input,
        "output": proven.output,
    })))
}

fn shown(attempt: &Attempt) -> Value {
    let used = |used: &Spent| {
        json!({
            "wall_ms": used.wall_ms,
            "cpu_ms": used.cpu_ms,
            "peak_memory_bytes": used.peak_memory_bytes,
            "tokens": used.tokens,
            "egress_requests": used.egress_requests,
            "charged": used.charged,
        })
    };
    json!({
        "attempt": attempt.attempt,
        "lease_epoch": attempt.lease_epoch,
        "started_at": timestamp(attempt.started_at),
        "ended_at": attempt.ended_at.map(timestamp),
        "reason": attempt.reason,
        "used": attempt.used.as_ref().map(used),
    })
}
