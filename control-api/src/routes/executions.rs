//! Executions: submitting, reading, cancelling and trying again, within the caller's tenant. What happens in between is the
//! worker's; what was given up is [`super::dead_letters`]'.

use std::str::FromStr;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{AgentId, AgentVersionId, Document, ExecutionId, Reason, Role};
use gatehouse_execution::{EndReason, ExecutionState, limits::Named, provenance};
use gatehouse_service::{Reply, body::JsonBody};
use gatehouse_store::{
    TenantTx,
    executions::{Execution, NewExecution, Terms, Wanted as Which},
    members::Changed,
    paging::{Page, Place},
    versions::AgentVersion,
};
use serde_json::{Value, json};

use crate::{
    access::Caller,
    once::Once,
    paging::Listing,
    random,
    routes::{
        Api, audit,
        door::{own, read_own},
        path_id, refused, terms, timestamp,
        versions::deprecation,
    },
};

/// What the list is narrowed by.
pub const FILTERS: &[&str] = &[
    "state",
    "agent_id",
    "agent_version_id",
    "end_reason",
    "priority",
    "created_after",
    "created_before",
];

/// Seconds after which a client looks again.
const LOOK_AGAIN_S: HeaderValue = HeaderValue::from_static("1");
const MAX_INPUT_BYTES: usize = 256 * 1024;
const MAX_ATTEMPTS: u64 = 10;
const PRIORITIES: [&str; 4] = ["p0", "p1", "p2", "p3"];

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

/// How urgent one is, 0 the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Priority(u8);

/// How it is to be run, where the caller says.
struct Asked {
    priority: Priority,
    limits: Named,
    max_attempts: u32,
}

/// `POST /api/v1/runtime/executions`.
pub async fn submit(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let (wanted, input, asked) = body.read(|doc| {
        let wanted = wanted(doc);
        let input = input(doc);
        let asked = asked(doc);
        Some((wanted?, input?, asked?))
    })?;
    let Asked { priority: Priority(priority), limits, max_attempts } = asked;
    may_be_urgent(&caller, priority)?;
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
    // Before anything is stored or charged: what could not run as it is asked does not wait.
    let limits = terms::lowered(&version.terms.limits, &limits)?;
    terms::judge_input(&api.schemas, (op.tenant, &version), &input)?;
    let terms = Terms { priority, limits, max_attempts, retry_of: None };
    let made = submitted(within, &version, input, terms).await?;
    once.end(&api, tx, accepted(made.id, made.state, &version)).await
}

/// `POST /api/v1/runtime/executions/{execution}/cancel`. Asked again it is the same: what there is to be said is the state.
pub async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    Path(execution): Path<String>,
    once: Once,
) -> Result<Response, Reply> {
    let execution: ExecutionId = path_id(&execution)?;
    let op = caller.op();
    let mut tx = own(&api, &op).await?;
    once.begin(&mut tx).await?;
    let within = tx.of_tenant()?;
    within.cancel_execution(execution).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    let found = within.execution(execution).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    once.end(&api, tx, answered(&found)).await
}

/// `POST /api/v1/runtime/executions/{execution}/retry`. What ended otherwise than completed is submitted again, as a new one
/// that names it; what was given up goes on under its own id.
pub async fn retry(
    State(api): State<Api>,
    caller: Caller,
    Path(execution): Path<String>,
    once: Once,
) -> Result<Response, Reply> {
    let execution: ExecutionId = path_id(&execution)?;
    let op = caller.op();
    let mut tx = own(&api, &op).await?;
    once.begin(&mut tx).await?;
    let within = tx.of_tenant()?;
    let found = within.execution(execution).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    may_be_urgent(&caller, found.terms.priority)?;
    let version = runnable(within, &found).await?;
    let (id, state) = match found.state {
        ExecutionState::DeadLetter => replayed(within, execution).await?,
        ExecutionState::Failed | ExecutionState::Timeout | ExecutionState::Cancelled => {
            let terms = Terms { retry_of: Some(execution), ..found.terms };
            let made = submitted(within, &version, found.input, terms).await?;
            (made.id, made.state)
        }
        ExecutionState::Completed => return Err(clash("it completed: submit another one")),
        ExecutionState::Pending
        | ExecutionState::Queued
        | ExecutionState::Running
        | ExecutionState::Retry => return Err(clash("it has not ended: cancel it first, or wait")),
    };
    once.end(&api, tx, accepted(id, state, &version)).await
}

/// Starts what was given up anew.
pub async fn replayed(
    tx: &mut TenantTx<'_>,
    id: ExecutionId,
) -> Result<(ExecutionId, ExecutionState), Reply> {
    match tx.replay_execution(id).await.map_err(refused)? {
        Changed::Yes => Ok((id, ExecutionState::Pending)),
        Changed::No => Err(clash("it is no dead letter")),
        Changed::Missing => Err(Reason::NotFound.into()),
    }
}

/// Its version, if it can still be run.
pub async fn runnable(tx: &mut TenantTx<'_>, of: &Execution) -> Result<AgentVersion, Reply> {
    let found = tx.version(of.version).await.map_err(refused)?;
    found.ok_or_else(|| clash("its agent is no longer registered"))
}

async fn submitted(
    tx: &mut TenantTx<'_>,
    version: &AgentVersion,
    input: Value,
    terms: Terms,
) -> Result<Execution, Reply> {
    let new = NewExecution {
        id: ExecutionId::new(random::id()),
        agent: version.agent,
        version: version.id,
        input,
        terms,
    };
    tx.submit_execution(&new).await.map_err(refused)
}

/// 202, and where to look.
pub fn accepted(id: ExecutionId, state: ExecutionState, version: &AgentVersion) -> Response {
    let answer = json!({
        "id": id,
        "state": state,
        "agent_version_id": version.id,
        "deprecation": deprecation(version),
    });
    let mut response = (StatusCode::ACCEPTED, Json(answer)).into_response();
    let headers = response.headers_mut();
    if let Ok(place) = HeaderValue::from_str(&format!("/api/v1/runtime/executions/{id}")) {
        headers.insert(header::LOCATION, place);
    }
    headers.insert(header::RETRY_AFTER, LOOK_AGAIN_S);
    response
}

/// P0 goes before everything else of the tenant, and ahead of other tenants' P1: it is for those who answer for agents.
fn may_be_urgent(caller: &Caller, priority: u8) -> Result<(), Reply> {
    if priority > 0 || caller.roles.iter().any(|role| role >= Role::Developer) {
        return Ok(());
    }
    Err(Reply::new(Reason::PermissionDenied)
        .detail("p0 is for developers and admins: submit with p1, or have one of them do it"))
}

fn clash(detail: &str) -> Reply {
    Reply::new(Reason::Conflict).detail(detail)
}

/// `GET /api/v1/runtime/executions`.
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    listing: Listing,
) -> Result<Response, Reply> {
    let state = |name: &str| listing.parsed::<ExecutionState>(name, "a state of an execution");
    let priority = listing.parsed::<Priority>("priority", "p0, p1, p2 or p3")?;
    let wanted = &Which {
        state: state("state")?,
        agent: listing.parsed::<AgentId>("agent_id", "an agent's id")?,
        version: listing.parsed::<AgentVersionId>("agent_version_id", "a version's id")?,
        end_reason: listing.parsed::<EndReason>("end_reason", "why an execution ended")?,
        priority: priority.map(|Priority(priority)| priority),
        created_after: audit::at(&listing, "created_after")?,
        created_before: audit::at(&listing, "created_before")?,
    };
    let op = caller.op();
    let page = &listing.page();
    let found =
        read_own(&api, &op, |mut tx| async move { tx.list_executions(page, wanted).await }).await?;
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
    Ok(answered(&found))
}

/// It, and when to look again while it goes on.
fn answered(execution: &Execution) -> Response {
    let mut response = Json(shown(execution)).into_response();
    if !execution.state.is_settled() {
        response.headers_mut().insert(header::RETRY_AFTER, LOOK_AGAIN_S);
    }
    response
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
        "priority": PRIORITIES.get(usize::from(execution.terms.priority)),
        "limits": execution.limits.shown(),
        "attempt": execution.attempt,
        "max_attempts": execution.terms.max_attempts,
        "losses": execution.losses,
        "retry_of": execution.terms.retry_of,
        "cancel_requested": execution.cancel_asked,
        "input": execution.input,
        "output": execution.output,
        "error": error,
        "created_at": timestamp(execution.created_at),
        "queued_at": execution.queued_at.map(timestamp),
        "due_at": execution.due_at.map(timestamp),
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

fn asked(doc: &Document<'_>) -> Option<Asked> {
    let priority = doc.parsed_or::<Priority>("priority", Priority(1), "p0, p1, p2 or p3");
    let limits = terms::limits(doc);
    let max_attempts = doc.integer("max_attempts", Some(3), 1..=MAX_ATTEMPTS);
    Some(Asked {
        priority: priority?,
        limits: limits?,
        max_attempts: u32::try_from(max_attempts?).ok()?,
    })
}

/// Any JSON that PostgreSQL can keep as it is.
fn input(doc: &Document<'_>) -> Option<Value> {
    let input = doc.raw("input").cloned().unwrap_or(Value::Null);
    if terms::has_nul(&input) {
        doc.note("input", "a string contains the character U+0000", "leave it out");
        return None;
    }
    // Of what has no canonical form nobody could say later that it was read.
    if provenance::judge(&input).is_err() {
        doc.note("input", "a whole number beyond ±(2^53 − 1)", "write it as a string");
        return None;
    }
    if input.to_string().len() > MAX_INPUT_BYTES {
        doc.note("input", "larger than 256 KiB", "store it elsewhere and pass a reference");
        return None;
    }
    Some(input)
}

// === impl Priority ===

impl FromStr for Priority {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let place = PRIORITIES.iter().position(|one| *one == text).ok_or(())?;
        u8::try_from(place).map(Self).map_err(drop)
    }
}
