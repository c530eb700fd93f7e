//! The versions of an agent, within the caller's tenant: published, promoted, deprecated. What a version is never changes.
//! Knows nothing of what runs.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use gatehouse_contract::{AgentId, AgentVersionId, Document, Reason};
use gatehouse_execution::{ImageRef, Limits};
use gatehouse_service::{Reply, body::JsonBody};
use gatehouse_store::{
    TenantTx,
    paging::Place,
    versions::{AgentVersion, NewVersion, Wanted},
};
use serde_json::{Value, json};
use tracing::error;

use crate::{
    access::Caller,
    images,
    once::Once,
    paging::Listing,
    random,
    routes::{
        Api,
        door::{own, read_own},
        path_id, refused,
        tenants::created,
        terms, timestamp,
    },
};

const MAX_VERSION_BYTES: usize = 64;
const MAX_MESSAGE_CHARS: usize = 500;

/// Agent and version in the path.
type Ids = Path<(String, String)>;

/// `POST /api/v1/registry/agents/{agent}/versions`. The image must lie under the tenant's own prefix; another
/// tenant's is not there.
pub async fn create(
    State(api): State<Api>,
    caller: Caller,
    Path(agent): Path<String>,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let agent: AgentId = path_id(&agent)?;
    let (version, image, terms) = body.read(|doc| {
        let version = version(doc);
        let image =
            doc.parsed::<ImageRef>("image", "name@sha256:<64 lower-case hex digits>, never a path");
        let terms = terms::read(doc);
        Some((version?, image?, terms?))
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
    let new = NewVersion { id, agent, version, image: image.to_string(), terms };
    let made = within.create_version(&new).await;
    let answer = shown(&made.map_err(refused)?);
    let place = format!("/api/v1/registry/agents/{agent}/versions/{id}");
    once.end(&api, tx, created(&place, answer)).await
}

/// `GET /api/v1/registry/agents/{agent}/versions`.
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    Path(agent): Path<String>,
    listing: Listing,
) -> Result<Response, Reply> {
    let agent: AgentId = path_id(&agent)?;
    let op = caller.op();
    let page = &listing.page();
    let wanted = Wanted {
        version: listing.filter("version"),
        deprecated: yes_or_no(&listing, "deprecated")?,
        promoted: yes_or_no(&listing, "promoted")?,
    };
    let found = read_own(&api, &op, |mut tx| async move {
        match tx.agent(agent).await? {
            Some(_) => tx.list_versions(agent, page, wanted).await.map(Some),
            None => Ok(None),
        }
    })
    .await?
    .ok_or(Reason::NotFound)?;
    let place =
        |version: &AgentVersion| Place { created_at: version.created_at, id: version.id.as_uuid() };
    Ok(listing.answer(&found, place, shown))
}

/// `GET /api/v1/registry/agents/{agent}/versions/{version}`.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path((agent, version)): Ids,
) -> Result<Json<Value>, Reply> {
    let (agent, version) = (path_id(&agent)?, path_id(&version)?);
    let op = caller.op();
    let mut tx = api.store.tenant(&op).await.map_err(refused)?;
    Ok(Json(shown(&found(&mut tx, agent, version).await?)))
}

/// `POST /api/v1/registry/agents/{agent}/versions/{version}/promote`.
pub async fn promote(
    State(api): State<Api>,
    caller: Caller,
    Path((agent, version)): Ids,
    once: Once,
) -> Result<Response, Reply> {
    let (agent, version) = (path_id(&agent)?, path_id(&version)?);
    let op = caller.op();
    let mut tx = own(&api, &op).await?;
    once.begin(&mut tx).await?;
    let within = tx.of_tenant()?;
    within.lock_agent(agent).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    let version = found(within, agent, version).await?;
    if version.deprecated_at.is_some() {
        return Err(Reply::new(Reason::Conflict)
            .detail("the version is deprecated: promote one that is not"));
    }
    let now = within.promote_version(&version).await.map_err(refused)?;
    once.end(&api, tx, (StatusCode::OK, Json(shown(&now))).into_response()).await
}

/// `POST /api/v1/registry/agents/{agent}/versions/{version}/deprecate`. It can still be run, and whoever does is told.
pub async fn deprecate(
    State(api): State<Api>,
    caller: Caller,
    Path((agent, version)): Ids,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let (agent, version) = (path_id(&agent)?, path_id(&version)?);
    let op = caller.op();
    let mut tx = own(&api, &op).await?;
    once.begin(&mut tx).await?;
    let within = tx.of_tenant()?;
    within.lock_agent(agent).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    let version = found(within, agent, version).await?;
    let message = body.read(message)?;
    let now = within.deprecate_version(&version, message.as_deref()).await.map_err(refused)?;
    once.end(&api, tx, (StatusCode::OK, Json(shown(&now))).into_response()).await
}

/// The version, if it is this agent's.
async fn found(
    tx: &mut TenantTx<'_>,
    agent: AgentId,
    version: AgentVersionId,
) -> Result<AgentVersion, Reply> {
    let found = tx.version(version).await.map_err(refused)?;
    Ok(found.filter(|found| found.agent == agent).ok_or(Reason::NotFound)?)
}

/// When a version was deprecated and what to do instead; `null` where it is not.
pub fn deprecation(version: &AgentVersion) -> Value {
    version.deprecated_at.map_or(
        Value::Null,
        |at| json!({"deprecated_at": timestamp(at), "message": version.deprecation}),
    )
}

fn message(doc: &Document<'_>) -> Option<Option<String>> {
    let message = doc.text_opt("message")?;
    let fits = |text: &String| text.chars().count() <= MAX_MESSAGE_CHARS && !text.contains('\0');
    if !message.as_ref().is_none_or(fits) {
        doc.note("message", "too long, or with U+0000", "write at most 500 characters");
        return None;
    }
    Some(message)
}

fn yes_or_no(listing: &Listing, name: &str) -> Result<Option<bool>, Reply> {
    match listing.filter(name) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(Reply::new(Reason::QueryInvalid).detail(format!("{name} is true or false"))),
    }
}

fn shown(version: &AgentVersion) -> Value {
    json!({
        "id": version.id,
        "agent_id": version.agent,
        "version": version.version,
        "image": version.image,
        "limits": Limits::default().with(&version.terms.limits).shown(),
        "input_schema": version.terms.input_schema,
        "output_schema": version.terms.output_schema,
        "egress": version.terms.egress,
        "hooks": version.terms.hooks.to_json(),
        "created_at": timestamp(version.created_at),
        "promoted_at": version.promoted_at.map(timestamp),
        "deprecation": deprecation(version),
    })
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
