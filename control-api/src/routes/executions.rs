//! Executions: submitting and reading, within the caller's tenant. What happens in between is the worker's.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{AgentVersionId, Document, ExecutionId, Reason};
use gatehouse_service::{Reply, body::JsonBody};
use gatehouse_store::{
    TenantTx,
    executions::{Execution, NewExecution, Terms, Wanted as Which},
    paging::{Page, Place},
};
use serde_json::{Value, json};

use crate::{
    access::Caller,
    once::Once,
    paging::Listing,
    random,
    routes::{
        Api,
        door::{own, read_own},
        path_id, refused, timestamp,
        versions::deprecation,
    },
};

/// Seconds after which a client looks again.
const LOOK_AGAIN_S: HeaderValue = HeaderValue::from_static("1");
const MAX_INPUT_BYTES: usize = 256 * 1024;

/// How a version is named.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Id(AgentVersionId),
    /// The agent's promoted version where none is named.
    Named {
        agent: String,
        version: Option<String>,
    },
}

/// `POST /api/v1/runtime/executions`.
pub async fn submit(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let (wanted, input) = body.read(|doc| {
        let wanted = wanted(doc);
        let input = input(doc);
        Some((wanted?, input?))
    })?;
    let op = caller.op();
    let mut tx = own(&api, &op).await?;
    once.begin(&mut tx).await?;
    let within = tx.of_tenant()?;
    let version = match &wanted {
        Wanted::Id(id) => within.version(*id).await,
        Wanted::Named { agent, version } => within.version_named(agent, version.as_deref()).await,
    };
    let Some(version) = version.map_err(refused)? else {
        return Err(nothing_to_run(within, &wanted).await);
    };
    let new = NewExecution {
        id: ExecutionId::new(random::id()),
        agent: version.agent,
        version: version.id,
        input,
        terms: Terms::default(),
    };
    let made = within.submit_execution(&new).await.map_err(refused)?;
    let answer = json!({
        "id": made.id,
        "state": made.state,
        "agent_version_id": version.id,
        "deprecation": deprecation(&version),
    });
    let mut response = (StatusCode::ACCEPTED, Json(answer)).into_response();
    let headers = response.headers_mut();
    if let Ok(place) = HeaderValue::from_str(&format!("/api/v1/runtime/executions/{}", made.id)) {
        headers.insert(header::LOCATION, place);
    }
    headers.insert(header::RETRY_AFTER, LOOK_AGAIN_S);
    once.end(&api, tx, response).await
}

/// `GET /api/v1/runtime/executions`.
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    listing: Listing,
) -> Result<Response, Reply> {
    let op = caller.op();
    let page = &listing.page();
    let found =
        read_own(
            &api,
            &op,
            |mut tx| async move { tx.list_executions(page, &Which::default()).await },
        )
        .await?;
    let place = |one: &Execution| Place { created_at: one.created_at, id: one.id.as_uuid() };
    Ok(listing.answer(&found, place, shown))
}

/// `GET /api/v1/runtime/executions/{execution}`.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(execution): Path<String>,
) -> Result<Response, Reply> {
    let execution: ExecutionId = path_id(&execution)?;
    let op = caller.op();
    let mut tx = api.store.tenant(&op).await.map_err(refused)?;
    let found = tx.execution(execution).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    let mut response = Json(shown(&found)).into_response();
    if !found.state.is_settled() {
        response.headers_mut().insert(header::RETRY_AFTER, LOOK_AGAIN_S);
    }
    Ok(response)
}

fn shown(execution: &Execution) -> Value {
    let error = match (execution.end_reason, &execution.error) {
        (Some(reason), Some(message)) => json!({"reason": reason, "message": message}),
        _ => Value::Null,
    };
    json!({
        "id": execution.id,
        "state": execution.state,
        "agent_id": execution.agent,
        "agent_version_id": execution.version,
        "attempt": execution.attempt,
        "input": execution.input,
        "output": execution.output,
        "error": error,
        "created_at": timestamp(execution.created_at),
        "started_at": execution.started_at.map(timestamp),
        "completed_at": execution.completed_at.map(timestamp),
    })
}

/// Why there is no such version: an agent that has none promoted is there.
async fn nothing_to_run(tx: &mut TenantTx<'_>, wanted: &Wanted) -> Reply {
    let Wanted::Named { agent, version: None } = wanted else { return Reason::NotFound.into() };
    match tx.list_agents(&Page::first(1), Some(agent)).await {
        Ok(found) if found.is_empty() => Reason::NotFound.into(),
        Ok(_) => Reply::new(Reason::Conflict)
            .detail("the agent has no promoted version: promote one, or name a version"),
        Err(error) => refused(error),
    }
}

/// Either the version's id, or the names of agent and version.
fn wanted(doc: &Document<'_>) -> Option<Wanted> {
    let id = doc.parsed_opt::<AgentVersionId>("agent_version_id", "a version's id");
    let agent = doc.text_opt("agent");
    let version = doc.text_opt("version");
    match (id?, agent?, version?) {
        (Some(id), None, None) => Some(Wanted::Id(id)),
        (None, Some(agent), version) => Some(Wanted::Named { agent, version }),
        (None, None, _) => {
            doc.note(
                "agent_version_id",
                "missing",
                "write a version's id, or \"agent\" by name, with \"version\" unless its promoted one is meant",
            );
            None
        }
        (Some(_), ..) => {
            doc.note(
                "agent_version_id",
                "stands beside \"agent\" or \"version\"",
                "write either the id or the two names",
            );
            None
        }
    }
}

/// Any JSON that PostgreSQL can keep as it is.
fn input(doc: &Document<'_>) -> Option<Value> {
    let input = doc.raw("input").cloned().unwrap_or(Value::Null);
    if has_nul(&input) {
        doc.note("input", "a string contains the character U+0000", "leave it out");
        return None;
    }
    if input.to_string().len() > MAX_INPUT_BYTES {
        doc.note("input", "larger than 256 KiB", "store it elsewhere and pass a reference");
        return None;
    }
    Some(input)
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => {
            members.iter().any(|(name, value)| name.contains('\0') || has_nul(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
