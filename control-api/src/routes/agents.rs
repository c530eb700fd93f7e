//! The registry: agents, within the caller's tenant.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use gatehouse_contract::{AgentId, Document, Reason};
use gatehouse_execution::ImageName;
use gatehouse_service::{Reply, body::JsonBody};
use gatehouse_store::{agents::Agent, paging::Place};
use serde_json::{Value, json};

use crate::{
    access::Caller,
    condition::IfMatch,
    once::Once,
    paging::Listing,
    random,
    routes::{
        Api,
        door::{own, read_own},
        path_id, refused,
        tenants::created,
        timestamp,
    },
};

const MAX_DESCRIPTION_CHARS: usize = 2000;
const NAME: &str = "1 to 63 characters of a-z, 0-9 and '-'";

/// `POST /api/v1/registry/agents`.
pub async fn create(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let (name, description) = body.read(|doc| {
        // An agent's name follows the rule of image names: a DNS label.
        let name = doc.parsed::<ImageName>("name", NAME);
        let description = description(doc);
        Some((name?, description?))
    })?;
    let op = caller.op();
    let mut tx = own(&api, &op).await?;
    once.begin(&mut tx).await?;
    let id = AgentId::new(random::id());
    let made = tx.of_tenant()?.create_agent(id, name.as_str(), description.as_deref()).await;
    let made = made.map_err(refused)?;
    once.end(&api, tx, created(&format!("/api/v1/registry/agents/{id}"), shown(&made))).await
}

/// `GET /api/v1/registry/agents`.
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    listing: Listing,
) -> Result<Response, Reply> {
    let op = caller.op();
    let (page, name) = (&listing.page(), listing.filter("name"));
    let found =
        read_own(&api, &op, |mut tx| async move { tx.list_agents(page, name).await }).await?;
    let place = |agent: &Agent| Place { created_at: agent.created_at, id: agent.id.as_uuid() };
    Ok(listing.answer(&found, place, shown))
}

/// `GET /api/v1/registry/agents/{agent}`.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(agent): Path<String>,
) -> Result<Json<Value>, Reply> {
    let agent: AgentId = path_id(&agent)?;
    let op = caller.op();
    let mut tx = api.store.tenant(&op).await.map_err(refused)?;
    let found = tx.agent(agent).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    Ok(Json(shown(&found)))
}

/// `DELETE /api/v1/registry/agents/{agent}`.
pub async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Path(agent): Path<String>,
    if_match: IfMatch,
) -> Result<StatusCode, Reply> {
    let agent: AgentId = path_id(&agent)?;
    let op = caller.op();
    let mut tx = api.store.tenant(&op).await.map_err(refused)?;
    let before = tx.lock_agent(agent).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    if_match.check(&shown(&before))?;
    if !tx.delete_agent(agent).await.map_err(refused)? {
        return Err(Reason::NotFound.into());
    }
    tx.commit().await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PATCH /api/v1/registry/agents/{agent}`: what is named is replaced (RFC 7396).
pub async fn change(
    State(api): State<Api>,
    caller: Caller,
    Path(agent): Path<String>,
    if_match: IfMatch,
    body: JsonBody,
) -> Result<Json<Value>, Reply> {
    let agent: AgentId = path_id(&agent)?;
    let op = caller.op();
    let mut tx = api.store.tenant(&op).await.map_err(refused)?;
    let before = tx.lock_agent(agent).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    let (name, described) = body.read(|doc| {
        let name = match doc.raw("name") {
            Some(_) => doc.parsed::<ImageName>("name", NAME).map(|name| name.to_string()),
            None => Some(before.name.clone()),
        };
        let described = match doc.raw("description") {
            Some(_) => description(doc),
            None if doc.is_null("description") => Some(None),
            None => Some(before.description.clone()),
        };
        Some((name?, described?))
    })?;
    if_match.check(&shown(&before))?;
    let now = tx.update_agent(&before, &name, described.as_deref()).await.map_err(refused)?;
    tx.commit().await.map_err(refused)?;
    Ok(Json(shown(&now)))
}

fn shown(agent: &Agent) -> Value {
    json!({
        "id": agent.id,
        "name": agent.name,
        "description": agent.description,
        "created_at": timestamp(agent.created_at),
    })
}

fn description(doc: &Document<'_>) -> Option<Option<String>> {
    let description = doc.text_opt("description")?;
    let fits = description
        .as_ref()
        .is_none_or(|text| text.chars().count() <= MAX_DESCRIPTION_CHARS && !text.contains('\0'));
    if !fits {
        doc.note("description", "too long, or with U+0000", "write at most 2000 characters");
        return None;
    }
    Some(description)
}
