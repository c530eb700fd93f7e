//! Tenants: listed, made, read, changed, removed. Only the platform changes one, through the admin door and with a reason;
//! what has to reach others is an operation.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{Document, OperationId, Reason, TenantId, Tier};
use gatehouse_service::{Reply, body::JsonBody};
use gatehouse_store::{
    AdminTx,
    members::{Changed, Tenant},
    operations::{Operation, OperationKind},
    paging::Place,
    tenants::{Listed, TenantFilter},
};
use serde_json::{Value, json};

use crate::{
    access::Caller,
    bootstrap::PLATFORM_SLUG,
    cache::{Entity, Fresh},
    condition::IfMatch,
    once::Once,
    paging::Listing,
    random,
    routes::{Api, door::platform, operations::accepted, path_id, refused, timestamp},
};

/// Slugs that would be mistaken for parts of the product.
const RESERVED: &[&str] = &[
    PLATFORM_SLUG,
    "admin",
    "api",
    "auth",
    "default",
    "gatehouse",
    "internal",
    "root",
    "status",
    "support",
    "system",
    "www",
];

const MAX_NAME_CHARS: usize = 200;

/// What the list can be narrowed by.
pub const FILTERS: &[&str] = &["slug", "status", "tier"];

const STATUSES: &[&str] = &["provisioning", "active", "suspended", "deleting", DELETED];
/// Shown in the place of the record's status once nothing of a tenant is left.
const DELETED: &str = "deleted";

/// `GET /api/v1/factory/tenants`.
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    listing: Listing,
) -> Result<Response, Reply> {
    let status = listing.one_of("status", STATUSES)?;
    let erased = match status {
        Some(DELETED) => Some(true),
        Some("deleting") => Some(false),
        _ => None,
    };
    let status = status.filter(|status| *status != DELETED).and_then(|status| status.parse().ok());
    let tier = listing.parsed("tier", "free, pro or enterprise")?;
    let filter = TenantFilter { slug: listing.filter("slug"), tier, status, erased };
    let op = caller.op();
    let reason = caller.reason_or("listing tenants");
    let mut tx = api.store.admin(&op, &reason).await.map_err(refused)?;
    let found = tx.list_tenants(&listing.page(), &filter).await.map_err(refused)?;
    let place =
        |one: &Listed| Place { created_at: one.tenant.created_at, id: one.tenant.id.as_uuid() };
    Ok(listing.answer(&found, place, listed))
}

/// `POST /api/v1/factory/tenants`: 202, and an active tenant as soon as that is answered.
pub async fn create(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let (name, slug, tier) = body.read(|doc| {
        let name = named(doc);
        let slug = slug(doc);
        let tier = doc.parsed::<Tier>("tier", "free, pro or enterprise");
        Some((name?, slug?, tier?))
    })?;
    let op = caller.op();
    let reason = caller.reason_or("a new tenant");
    let id = TenantId::new(random::id());
    let mut tx = platform(&api, &op, &reason, id).await?;
    once.begin(&mut tx).await?;
    let admin = tx.of_platform()?;
    admin.create_tenant(id, &slug, &name, tier).await.map_err(refused)?;
    let begun = begin(admin, id, OperationKind::Create, true).await?;
    once.end(&api, tx, accepted(&begun)).await
}

/// `GET /api/v1/factory/tenants/{tenant}`.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    fresh: Fresh,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let op = caller.op();
    if tenant == caller.tenant {
        let record = async {
            let found = api.store.tenant(&op).await.map_err(refused)?.record().await;
            Ok(shown(&found.map_err(refused)?.ok_or(Reason::NotFound)?))
        };
        return api.cache.document((tenant, Entity::Tenant), fresh, record).await;
    }
    let found = if caller.platform {
        let reason = caller.reason_or("reading a tenant's record");
        api.store.admin(&op, &reason).await.map_err(refused)?.listed_tenant(tenant).await
    } else {
        Ok(None)
    };
    let found = found.map_err(refused)?.ok_or(Reason::NotFound)?;
    Ok(Json(listed(&found)).into_response())
}

/// `PATCH /api/v1/factory/tenants/{tenant}`: its name, its tier, or both.
pub async fn change(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    if_match: IfMatch,
    body: JsonBody,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let reason = caller.platform_reason()?;
    let (name, tier) = body.read(|doc| {
        let name = doc.raw("name").map(|_| named(doc));
        let tier = doc.parsed_opt::<Tier>("tier", "free, pro or enterprise");
        Some((name.map_or(Some(None), |name| name.map(Some))?, tier?))
    })?;
    let op = caller.op();
    let mut tx = api.store.admin(&op, &reason).await.map_err(refused)?;
    let before = tx.lock_tenant(tenant).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    if_match.check(&shown(&before))?;
    if tenant == caller.tenant && tier.is_some_and(|tier| tier != before.tier) {
        return Err(Reply::new(Reason::Conflict).detail("the platform's own tier stays"));
    }
    let done = tx.change_tenant(tenant, name.as_deref(), tier).await.map_err(refused)?;
    let found = changed(&mut tx, tenant, done).await?;
    tx.commit().await.map_err(refused)?;
    Ok(Json(shown(&found)))
}

/// `DELETE /api/v1/factory/tenants/{tenant}`: from now on nobody of it acts; then its rows go, and its key.
pub async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    if_match: IfMatch,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let reason = caller.platform_reason()?;
    let op = caller.op();
    let mut tx = api.store.admin(&op, &reason).await.map_err(refused)?;
    tx.lock_tenant(tenant).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    let before = tx.listed_tenant(tenant).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    if_match.check(&listed(&before))?;
    if tenant == caller.tenant {
        return Err(Reply::new(Reason::Conflict).detail("the platform's own tenant stays"));
    }
    // Asked for again it is the operation of before.
    let done = tx.request_erasure(tenant).await.map_err(refused)?;
    let begun = begin(&mut tx, tenant, OperationKind::Delete, done == Changed::Yes).await?;
    tx.commit().await.map_err(refused)?;
    Ok(accepted(&begun))
}

/// `POST /api/v1/factory/tenants/{tenant}/suspend`.
pub async fn suspend(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    once: Once,
) -> Result<Response, Reply> {
    set_suspended(&api, &caller, &tenant, &once, true).await
}

/// `POST /api/v1/factory/tenants/{tenant}/resume`.
pub async fn resume(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    once: Once,
) -> Result<Response, Reply> {
    set_suspended(&api, &caller, &tenant, &once, false).await
}

async fn set_suspended(
    api: &Api,
    caller: &Caller,
    tenant: &str,
    once: &Once,
    suspended: bool,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(tenant)?;
    let reason = caller.platform_reason()?;
    if suspended && tenant == caller.tenant {
        return Err(Reply::new(Reason::Conflict).detail("nobody could let it act again"));
    }
    let op = caller.op();
    let mut tx = platform(api, &op, &reason, tenant).await?;
    once.begin(&mut tx).await?;
    let admin = tx.of_platform()?;
    let done = admin.set_tenant_suspended(tenant, suspended).await.map_err(refused)?;
    if done == Changed::Missing {
        return Err(Reason::NotFound.into());
    }
    let kind = if suspended { OperationKind::Suspend } else { OperationKind::Resume };
    let begun = begin(admin, tenant, kind, done == Changed::Yes).await?;
    once.end(api, tx, accepted(&begun)).await
}

async fn begin(
    tx: &mut AdminTx<'_>,
    tenant: TenantId,
    kind: OperationKind,
    changed: bool,
) -> Result<Operation, Reply> {
    let id = OperationId::new(random::id());
    tx.begin_operation(id, tenant, kind, changed).await.map_err(refused)
}

async fn changed(tx: &mut AdminTx<'_>, tenant: TenantId, done: Changed) -> Result<Tenant, Reply> {
    if done == Changed::Missing {
        return Err(Reason::NotFound.into());
    }
    Ok(tx.tenant(tenant).await.map_err(refused)?.ok_or(Reason::NotFound)?)
}

fn listed(one: &Listed) -> Value {
    let mut value = shown(&one.tenant);
    if let (Some(_), Some(members)) = (one.erased_at, value.as_object_mut()) {
        members.insert("status".to_owned(), DELETED.into());
    }
    value
}

fn shown(tenant: &Tenant) -> Value {
    json!({
        "id": tenant.id,
        "slug": tenant.slug,
        "name": tenant.name,
        "tier": tenant.tier,
        "status": tenant.status,
        "created_at": timestamp(tenant.created_at),
    })
}

/// 201 with the place of what was made.
pub fn created(location: &str, body: Value) -> Response {
    let mut response = (StatusCode::CREATED, Json(body)).into_response();
    if let Ok(value) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

pub fn named(doc: &Document<'_>) -> Option<String> {
    let name = doc.text("name")?;
    if name.chars().count() <= MAX_NAME_CHARS && !name.chars().any(char::is_control) {
        return Some(name);
    }
    doc.note("name", "too long, or with control characters", "write 1 to 200 characters");
    None
}

fn slug(doc: &Document<'_>) -> Option<String> {
    let slug = doc.text("slug")?;
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let (first, last) = (slug.bytes().next(), slug.bytes().last());
    let fits = (3..=63).contains(&slug.len())
        && slug.bytes().all(inner)
        && first.is_some_and(|c| c.is_ascii_lowercase())
        && last != Some(b'-');
    if !fits {
        doc.note(
            "slug",
            "not a slug",
            "write 3 to 63 characters of a-z, 0-9 and '-', a letter first and no '-' last",
        );
        return None;
    }
    // A deleted tenant's place has such a name.
    if RESERVED.contains(&slug.as_str()) || slug.starts_with("deleted-") {
        doc.note("slug", "reserved", "choose another");
        return None;
    }
    Some(slug)
}
