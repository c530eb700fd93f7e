//! Tenants and who acts in them. A tenant's own admin goes through the tenant's door, the platform through the
//! admin door with a reason.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{ClientId, Document, Reason, Role, TenantId, Tier, UserId};
use gatehouse_service::{Reply, body::JsonBody};
use gatehouse_store::members::{NewClient, Tenant};
use serde_json::{Value, json};
use tracing::error;

use crate::{
    access::{Caller, Door},
    bootstrap::PLATFORM_SLUG,
    random::{self, ClientSecret},
    routes::{Api, path_id, refused, timestamp},
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
    let mut tx = api.store.admin(&op, &reason).await.map_err(refused)?;
    let id = TenantId::new(random::id());
    let made = tx.create_tenant(id, &slug, &name, tier).await.map_err(refused)?;
    tx.commit().await.map_err(refused)?;
    Ok(created(&format!("/api/v1/factory/tenants/{id}"), shown(&made)))
}

/// `GET /api/v1/factory/tenants/{tenant}`.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let op = caller.op();
    let found = if tenant == caller.tenant {
        api.store.tenant(&op).await.map_err(refused)?.record().await
    } else if caller.platform {
        let reason = caller.reason_or("reading a tenant's record");
        api.store.admin(&op, &reason).await.map_err(refused)?.tenant(tenant).await
    } else {
        Ok(None)
    };
    let found = found.map_err(refused)?.ok_or(Reason::NotFound)?;
    Ok(Json(shown(&found)))
}

/// `POST /api/v1/factory/tenants/{tenant}/users`.
pub async fn create_user(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    body: JsonBody,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let (email, role) = body.read(|doc| {
        let email = email(doc);
        let role = role(doc);
        Some((email?, role?))
    })?;
    let id = UserId::new(random::id());
    let op = caller.op();
    match door {
        Door::Own => {
            let mut tx = api.store.tenant(&op).await.map_err(refused)?;
            tx.within().create_user(id, &email, role).await.map_err(refused)?;
            tx.commit().await.map_err(refused)?;
        }
        Door::Platform(reason) => {
            let mut tx = api.store.admin(&op, &reason).await.map_err(refused)?;
            tx.within(tenant).create_user(id, &email, role).await.map_err(refused)?;
            tx.commit().await.map_err(refused)?;
        }
    }
    let answer = json!({"id": id, "email": email, "role": role});
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// `POST /api/v1/factory/tenants/{tenant}/clients`. The secret is in this answer and nowhere else.
pub async fn create_client(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    body: JsonBody,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let (name, role) = body.read(|doc| {
        let name = named(doc);
        let role = role(doc);
        Some((name?, role?))
    })?;
    let secret = ClientSecret::generate().map_err(|_| {
        error!("no random bytes");
        Reply::new(Reason::Internal)
    })?;
    let new =
        NewClient { id: ClientId::new(random::id()), name: &name, secret_sha256: secret.hash() };
    let op = caller.op();
    match door {
        Door::Own => {
            let mut tx = api.store.tenant(&op).await.map_err(refused)?;
            tx.within().create_client(&new, role).await.map_err(refused)?;
            tx.commit().await.map_err(refused)?;
        }
        Door::Platform(reason) => {
            let mut tx = api.store.admin(&op, &reason).await.map_err(refused)?;
            tx.within(tenant).create_client(&new, role).await.map_err(refused)?;
            tx.commit().await.map_err(refused)?;
        }
    }
    let answer = json!({
        "client_id": new.id,
        "client_secret": secret.expose(),
        "name": name,
        "role": role,
    });
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, no_store, Json(answer)).into_response())
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

fn named(doc: &Document<'_>) -> Option<String> {
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

fn email(doc: &Document<'_>) -> Option<String> {
    let email = doc.text("email")?;
    let parts = email.split_once('@');
    let fits = email.len() <= 254
        && email.bytes().all(|c| c.is_ascii_graphic())
        && parts.is_some_and(|(local, domain)| {
            !local.is_empty() && domain.contains('.') && !domain.contains('@')
        });
    if fits {
        return Some(email);
    }
    doc.note("email", "not an e-mail address", "write one such as \"name@example.com\"");
    None
}

fn role(doc: &Document<'_>) -> Option<Role> {
    doc.parsed("role", "viewer, operator, developer or admin")
}
