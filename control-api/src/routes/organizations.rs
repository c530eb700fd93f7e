//! A tenant's organizations: a tree, read whole or in parts, changed in the state that was read.
//! Knows nothing of how the tree is kept one.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use gatehouse_contract::{Document, OrganizationId, Reason, TenantId};
use gatehouse_service::{Reply, body::JsonBody};
use gatehouse_store::{
    Error,
    organizations::{Edited, Organization, OrganizationFilter},
    paging::Place,
};
use serde_json::{Value, json};

use crate::{
    access::Caller,
    condition::IfMatch,
    once::Once,
    paging::Listing,
    random,
    routes::{
        Api,
        door::{self, open},
        path_id, refused,
        tenants::{created, named},
        timestamp,
    },
};

/// What the list can be narrowed by: `parent` is an id or `none`, `within` a subtree's root.
pub const FILTERS: &[&str] = &["parent", "within"];

/// `GET /api/v1/factory/tenants/{tenant}/organizations`.
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    listing: Listing,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let roots = listing.filter("parent") == Some("none");
    let parent =
        if roots { None } else { listing.parsed("parent", "an organization's id or none")? };
    let within = listing.parsed("within", "an organization's id")?;
    let op = caller.op();
    let (page, filter) = (&listing.page(), &OrganizationFilter { parent, roots, within });
    let found = door::read(&api, &op, caller.door_to(tenant)?, tenant, |mut tx| async move {
        tx.within().list_organizations(page, filter).await
    })
    .await?;
    let place = |one: &Organization| Place { created_at: one.created_at, id: one.id.as_uuid() };
    Ok(listing.answer(&found, place, shown))
}

/// `POST /api/v1/factory/tenants/{tenant}/organizations`.
pub async fn create(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let (name, parent) = body.read(|doc| {
        let (name, parent) = (named(doc), parent(doc));
        Some((name?, parent?))
    })?;
    let op = caller.op();
    let mut tx = open(&api, &op, caller.door_to(tenant)?, tenant).await?;
    once.begin(&mut tx).await?;
    let id = OrganizationId::new(random::id());
    let made = tx.within().create_organization(id, parent.flatten(), &name).await;
    let made = made.map_err(told)?;
    let place = format!("/api/v1/factory/tenants/{tenant}/organizations/{id}");
    once.end(&api, tx, created(&place, shown(&made))).await
}

/// `GET /api/v1/factory/tenants/{tenant}/organizations/{organization}`.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, organization)): Path<(String, String)>,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let id: OrganizationId = path_id(&organization)?;
    let op = caller.op();
    let mut tx = open(&api, &op, caller.door_to(tenant)?, tenant).await?;
    let found = tx.within().organization(id).await.map_err(refused)?;
    Ok(Json(shown(&found.ok_or(Reason::NotFound)?)))
}

/// `PATCH /api/v1/factory/tenants/{tenant}/organizations/{organization}`: another name, another place, or both.
pub async fn change(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, organization)): Path<(String, String)>,
    if_match: IfMatch,
    body: JsonBody,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let id: OrganizationId = path_id(&organization)?;
    let op = caller.op();
    let mut tx = open(&api, &op, caller.door_to(tenant)?, tenant).await?;
    let (name, parent) = body.read(|doc| {
        let name = doc.raw("name").map(|_| named(doc));
        let parent = parent(doc);
        Some((name.map_or(Some(None), |name| name.map(Some))?, parent?))
    })?;
    let before = tx.within().lock_organization(id).await.map_err(refused)?;
    let before = before.ok_or(Reason::NotFound)?;
    if_match.check(&shown(&before))?;
    let name = name.as_deref().unwrap_or(&before.name);
    let parent = parent.unwrap_or(before.parent);
    if name == before.name && parent == before.parent {
        return Ok(Json(shown(&before)));
    }
    let done = tx.within().change_organization(id, before.revision, name, parent).await;
    match done.map_err(told)? {
        Edited::Done(now) => {
            tx.commit().await?;
            Ok(Json(shown(&now)))
        }
        Edited::Missing => Err(Reason::NotFound.into()),
        Edited::Stale => Err(Reason::PreconditionFailed.into()),
    }
}

/// `DELETE /api/v1/factory/tenants/{tenant}/organizations/{organization}`: one with nothing below it.
pub async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, organization)): Path<(String, String)>,
    if_match: IfMatch,
) -> Result<StatusCode, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let id: OrganizationId = path_id(&organization)?;
    let op = caller.op();
    let mut tx = open(&api, &op, caller.door_to(tenant)?, tenant).await?;
    let before = tx.within().lock_organization(id).await.map_err(refused)?;
    if_match.check(&shown(&before.ok_or(Reason::NotFound)?))?;
    if !tx.within().delete_organization(id).await.map_err(|error| match error {
        Error::Conflict { .. } => Reply::new(Reason::Conflict)
            .detail("it has organizations below it: move or remove them first"),
        other => refused(other),
    })? {
        return Err(Reason::NotFound.into());
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the tree does not allow, in words.
fn told(error: Error) -> Reply {
    let detail = match &error {
        Error::Conflict { constraint } => match constraint.as_str() {
            "organizations_no_cycle" => "an organization cannot be below itself",
            "organizations_depth" => "organizations have at most 8 levels",
            _ => "an organization of this name stands beside it already",
        },
        Error::Missing { .. } => {
            return Reply::mistake(
                "$.parent_id",
                "names no organization",
                "name one of the tenant's",
            );
        }
        _ => return refused(error),
    };
    Reply::new(Reason::Conflict).detail(detail)
}

/// Where it is to stand: not said, below none, or below this one.
fn parent(doc: &Document<'_>) -> Option<Option<Option<OrganizationId>>> {
    match doc.raw("parent_id") {
        None if doc.is_null("parent_id") => Some(Some(None)),
        None => Some(None),
        Some(_) => Some(Some(Some(doc.parsed("parent_id", "an organization's id")?))),
    }
}

fn shown(one: &Organization) -> Value {
    json!({
        "id": one.id,
        "parent_id": one.parent,
        "name": one.name,
        "created_at": timestamp(one.created_at),
        "updated_at": timestamp(one.updated_at),
    })
}
