//! Tenants: made, read, changed. Only the platform changes one, through the admin door and with a reason.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{Document, Reason, TenantId, Tier};
use gatehouse_service::{Reply, body::JsonBody};
use gatehouse_store::{
    AdminTx,
    members::{Changed, Tenant},
};
use serde_json::{Value, json};

use crate::{
    access::Caller,
    bootstrap::PLATFORM_SLUG,
    condition::IfMatch,
    once::Once,
    random,
    routes::{Api, door::platform, path_id, refused, timestamp},
    cache::{Entity, Fresh},
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

/// `POST /api/v1/factory/tenants`.
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
    let made = tx.of_platform()?.create_tenant(id, &slug, &name, tier).await.map_err(refused)?;
    once.end(&api, tx, created(&format!("/api/v1/factory/tenants/{id}"), shown(&made))).await
}

/// `GET /api/v1/factory/tenants/{tenant}`.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
) -> Result<Json<Value>, Reply> {
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
        api.store.admin(&op, &reason).await.map_err(refused)?.tenant(tenant).await
    } else {
        Ok(None)
    };
    let found = found.map_err(refused)?.ok_or(Reason::NotFound)?;
    Ok(Json(shown(&found)))
}

/// `PATCH /api/v1/factory/tenants/{tenant}`: its tier, and nothing else of it.
pub async fn change(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    if_match: IfMatch,
    body: JsonBody,
    fresh: Fresh,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let reason = caller.platform_reason()?;
    let tier = body.read(|doc| doc.parsed::<Tier>("tier", "free, pro or enterprise"))?;
    let op = caller.op();
    let mut tx = api.store.admin(&op, &reason).await.map_err(refused)?;
    let before = tx.lock_tenant(tenant).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    if_match.check(&shown(&before))?;
    let done = tx.set_tier(tenant, tier).await.map_err(refused)?;
    let found = changed(&mut tx, tenant, done).await?;
    tx.commit().await.map_err(refused)?;
    Ok(Json(shown(&found)))
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
    let found = changed(admin, tenant, done).await?;
    once.end(api, tx, Json(shown(&found)).into_response()).await
}

async fn changed(tx: &mut AdminTx<'_>, tenant: TenantId, done: Changed) -> Result<Tenant, Reply> {
    if done == Changed::Missing {
        return Err(Reason::NotFound.into());
    }
    Ok(tx.tenant(tenant).await.map_err(refused)?.ok_or(Reason::NotFound)?)
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
    if RESERVED.contains(&slug.as_str()) {
        doc.note("slug", "reserved", "choose another");
        return None;
    }
    Some(slug)
}
