//! What happened to an agent or an execution, and what either was at a time: read from their events, which nobody changes.
//! What is no longer there has its history still. Knows no table.

use axum::{
    Json,
    extract::{Path, State},
    http::Uri,
    response::Response,
};
use gatehouse_contract::{AgentId, ExecutionId, Reason};
use gatehouse_events::Aggregate;
use gatehouse_service::Reply;
use gatehouse_store::{OffsetDateTime, events::Recorded, paging::Place};
use serde::Serialize;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::{
    access::Caller,
    paging::Listing,
    routes::{Api, door::read_own, path_id, timestamp},
};

/// `GET /api/v1/registry/agents/{agent}/history`.
pub async fn of_agent(
    State(api): State<Api>,
    caller: Caller,
    Path(agent): Path<String>,
    listing: Listing,
) -> Result<Response, Reply> {
    let agent: AgentId = path_id(&agent)?;
    list(&api, &caller, Aggregate::Agent, agent.as_uuid(), &listing).await
}

/// `GET /api/v1/runtime/executions/{execution}/history`.
pub async fn of_execution(
    State(api): State<Api>,
    caller: Caller,
    Path(execution): Path<String>,
    listing: Listing,
) -> Result<Response, Reply> {
    let execution: ExecutionId = path_id(&execution)?;
    list(&api, &caller, Aggregate::Execution, execution.as_uuid(), &listing).await
}

async fn list(
    api: &Api,
    caller: &Caller,
    of: Aggregate,
    id: Uuid,
    listing: &Listing,
) -> Result<Response, Reply> {
    let op = caller.op();
    let page = listing.page();
    // An event's number in the place of an id; the first page begins above every number.
    let before = u64::try_from(page.after.id.as_u128()).ok();
    let limit = u32::try_from(page.limit).unwrap_or(u32::MAX);
    let found =
        read_own(api, &op, |mut tx| async move { tx.history(of, id, before, limit).await }).await?;
    // Every aggregate has a first event; behind it nothing is found either.
    if found.is_empty() && before.is_none() {
        return Err(Reason::NotFound.into());
    }
    let place = |told: &Recorded| Place {
        created_at: OffsetDateTime::UNIX_EPOCH,
        id: Uuid::from_u128(u128::from(told.seq)),
    };
    Ok(listing.answer(&found, place, shown))
}

/// `GET /api/v1/registry/agents/{agent}/state`: as it was at `at`, now where no time is said.
pub async fn agent_state(
    State(api): State<Api>,
    caller: Caller,
    Path(agent): Path<String>,
    uri: Uri,
) -> Result<Json<Value>, Reply> {
    let agent: AgentId = path_id(&agent)?;
    let at = at(&uri)?;
    let op = caller.op();
    let found = read_own(&api, &op, |mut tx| async move { tx.agent_at(agent, at).await }).await?;
    was(at, found)
}

/// `GET /api/v1/runtime/executions/{execution}/state`.
pub async fn execution_state(
    State(api): State<Api>,
    caller: Caller,
    Path(execution): Path<String>,
    uri: Uri,
) -> Result<Json<Value>, Reply> {
    let execution: ExecutionId = path_id(&execution)?;
    let at = at(&uri)?;
    let op = caller.op();
    let found =
        read_own(&api, &op, |mut tx| async move { tx.execution_at(execution, at).await }).await?;
    was(at, found)
}

fn was(at: Option<OffsetDateTime>, state: Option<impl Serialize>) -> Result<Json<Value>, Reply> {
    let state = state.ok_or(Reason::NotFound)?;
    let state = serde_json::to_value(state).map_err(|_| Reason::Internal)?;
    Ok(Json(json!({"at": at.map(timestamp), "state": state})))
}

/// The one parameter.
fn at(uri: &Uri) -> Result<Option<OffsetDateTime>, Reply> {
    let invalid = |detail| Reply::new(Reason::QueryInvalid).detail(detail);
    let mut at = None;
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        if name != "at" || at.is_some() {
            return Err(invalid("known here is at, once"));
        }
        let read = OffsetDateTime::parse(&value, &Rfc3339);
        // PostgreSQL's times are finer than a second and end long after this.
        let read = read.ok().filter(|at| (1970..=9999).contains(&at.year()));
        at = Some(read.ok_or_else(|| {
            invalid("at is a time such as 2026-01-31T00:00:00Z (RFC 3339; a + in it is %2B)")
        })?);
    }
    Ok(at)
}

pub fn shown(told: &Recorded) -> Value {
    let kind = told.event.kind();
    json!({
        "seq": told.seq,
        "id": told.id,
        "at": timestamp(told.at),
        "kind": kind.as_str(),
        "schema_version": kind.schema_version(),
        "subject": told.subject,
        "request_id": told.request_id,
        "payload": told.event.payload().unwrap_or_default(),
    })
}
