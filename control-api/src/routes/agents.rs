//! The registry: agents and their versions, within the caller's tenant.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use gatehouse_contract::{AgentId, AgentVersionId, Document, Reason};
use gatehouse_execution::{ImageName, ImageRef};
use gatehouse_service::{Reply, body::JsonBody};
use gatehouse_store::{
    agents::{Agent, AgentVersion},
    paging::Place,
};
use serde_json::{Value, json};
use tracing::error;

use crate::{
    access::Caller,
    condition::IfMatch,
    images,
    once::Once,
    paging::Listing,
    random,
    routes::{Api, door::own, path_id, refused, tenants::created, timestamp},
};

const MAX_DESCRIPTION_CHARS: usize = 2000;
const MAX_VERSION_BYTES: usize = 64;

/// `POST /api/v1/registry/agents`.
pub async fn create(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let (name, description) = body.read(|doc| {
        // An agent's name follows the rule of image names: a DNS label.
        let name = doc.parsed::<ImageName>("name", "1 to 63 characters of a-z, 0-9 and '-'");
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
    let mut tx = api.store.tenant(&op).await.map_err(refused)?;
    let found = tx.list_agents(&listing.page(), listing.filter("name")).await.map_err(refused)?;
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

/// `POST /api/v1/registry/agents/{agent}/versions`. The image must lie under the tenant's own prefix; another
/// tenant's is not there.
pub async fn create_version(
    State(api): State<Api>,
    caller: Caller,
    Path(agent): Path<String>,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let agent: AgentId = path_id(&agent)?;
    let (version, image) = body.read(|doc| {
        let version = version(doc);
        let image =
            doc.parsed::<ImageRef>("image", "name@sha256:<64 lower-case hex digits>, never a path");
        Some((version?, image?))
    })?;
    let there = images::exists(&api.image_store, caller.tenant, &image).await;
    let there = there.map_err(|error| {
        error!(%error, "the image store cannot be read");
        Reply::new(Reason::DependencyUnavailable)
    })?;
    if !there {
        return Err(Reason::NotFound.into());
    }
    let op = caller.op();
    let mut tx = own(&api, &op).await?;
    once.begin(&mut tx).await?;
    let within = tx.of_tenant()?;
    within.agent(agent).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    let id = AgentVersionId::new(random::id());
    let made = within.create_version(id, agent, &version, &image.to_string()).await;
    let answer = shown_version(&made.map_err(refused)?);
    // A version is read through its agent's list; it has no address of its own.
    once.end(&api, tx, created(&format!("/api/v1/registry/agents/{agent}/versions"), answer)).await
}

/// `GET /api/v1/registry/agents/{agent}/versions`.
pub async fn list_versions(
    State(api): State<Api>,
    caller: Caller,
    Path(agent): Path<String>,
    listing: Listing,
) -> Result<Response, Reply> {
    let agent: AgentId = path_id(&agent)?;
    let op = caller.op();
    let mut tx = api.store.tenant(&op).await.map_err(refused)?;
    tx.agent(agent).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    let found = tx.list_versions(agent, &listing.page()).await.map_err(refused)?;
    let place =
        |version: &AgentVersion| Place { created_at: version.created_at, id: version.id.as_uuid() };
    Ok(listing.answer(&found, place, shown_version))
}

fn shown(agent: &Agent) -> Value {
    json!({
        "id": agent.id,
        "name": agent.name,
        "description": agent.description,
        "created_at": timestamp(agent.created_at),
    })
}

fn shown_version(version: &AgentVersion) -> Value {
    json!({
        "id": version.id,
        "agent_id": version.agent,
        "version": version.version,
        "image": version.image,
        "created_at": timestamp(version.created_at),
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

/// Semantic Versioning 2.0.0, so that versions can be ordered one day.
fn version(doc: &Document<'_>) -> Option<String> {
    let version = doc.text("version")?;
    if is_semver(&version) {
        return Some(version);
    }
    doc.note("version", "not a semantic version", "write one such as \"1.0.0\"");
    None
}

fn is_semver(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, b)| (rest, Some(b)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, p)| (core, Some(p)));
    let number = |part: &str| {
        !part.is_empty()
            && part.len() <= 9
            && part.bytes().all(|c| c.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let identifier = |part: &str| {
        !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    let numeric = |part: &str| part.bytes().all(|c| c.is_ascii_digit());
    text.len() <= MAX_VERSION_BYTES
        && core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| {
            pre.split('.').all(|part| identifier(part) && (!numeric(part) || number(part)))
        })
        && build.is_none_or(|build| build.split('.').all(identifier))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_semantic() {
        for good in ["0.0.0", "1.0.0", "1.2.3-rc.1", "1.2.3-a-b+build.01", "10.20.30"] {
            assert!(is_semver(good), "{good}");
        }
        for bad in [
            "",
            "1",
            "1.0",
            "1.0.0.0",
            "v1.0.0",
            "01.0.0",
            "1.0.0-",
            "1.0.0+",
            "1.0.0-01",
            "1.0.x",
            "1.0.0 ",
            "1.0.0-a..b",
            "latest",
        ] {
            assert!(!is_semver(bad), "{bad}");
        }
        assert!(!is_semver(&format!("1.0.0-{}", "a".repeat(60))));
    }
}
