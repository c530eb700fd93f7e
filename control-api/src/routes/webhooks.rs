//! Where a tenant wants to be told of what happened (Standard Webhooks): its endpoints and their secrets, and what became
//! of each delivery. A secret is shown once; nothing that an endpoint answered but its status is ever shown.
//! Knows nothing of how a delivery is made.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use gatehouse_contract::{Document, Reason, TenantId, WebhookId, document as contract};
use gatehouse_outbound::Guard;
use gatehouse_service::{
    Reply,
    body::{JsonBody, wire},
};
use gatehouse_store::{
    paging::Place,
    webhooks::{Delivery, Settings, Webhook},
};
use serde_json::{Map, Value, json};
use time::Duration;
use tracing::error;

use crate::{
    access::Caller,
    condition::IfMatch,
    federation::merge,
    once::Once,
    paging::Listing,
    random,
    routes::{
        Api,
        door::{self, open},
        endpoint::Endpoint,
        members::shown_once,
        path_id, refused, timestamp,
    },
};

/// What an endpoint can be told of: kinds of `gatehouse_events` that say how something ended, or soon will.
pub const EVENTS: [&str; 13] = [
    "agent.created",
    "agent.updated",
    "agent.deleted",
    "version.published",
    "version.promoted",
    "version.deprecated",
    "execution.time_runs_out",
    "execution.completed",
    "execution.failed",
    "execution.timed_out",
    "execution.cancelled",
    "execution.given_up",
    "quota.threshold_reached",
];
/// What deliveries can be narrowed by.
const FILTERS: &[&str] = &["state"];
/// What is told of an attempt that had no answer.
const ERRORS: [&str; 6] =
    ["address_refused", "timeout", "unreachable", "tls", "broken", "unreadable"];
const STATES: [&str; 3] = ["pending", "delivered", "failed"];

/// What the text of a secret starts with (Standard Webhooks).
const PREFIX: &str = "whsec_";
/// How long a secret signs beside its successor, unless the caller says otherwise; at most a week.
const OVERLAP_S: u64 = 24 * 3600;
const MAX_OVERLAP_S: u64 = 7 * 24 * 3600;
/// That of https, and the one that servers without its privilege take for it. Any other would let the tenant's endpoint
/// be a way to services that were never meant to be asked from here.
const PORTS: [u16; 2] = [443, 8443];
const MAX_DESCRIPTION_CHARS: usize = 500;

type Ids = Path<(String, String)>;

/// The endpoints.
pub fn endpoints(tenant: &str) -> Vec<Endpoint> {
    let all = format!("{tenant}/webhooks");
    let one = format!("{all}/{{webhook}}");
    vec![
        Endpoint::list(&all, "listWebhooks", "The newest first, without their secrets", list)
            .answers(200, "Webhook"),
        Endpoint::act(
            &all,
            "createWebhook",
            "Has an address told of what happens; its secret is shown this once",
            create,
        )
        .takes("NewWebhook")
        .answers(201, "WebhookMade"),
        Endpoint::read(&one, "readWebhook", "An endpoint, without its secret", read)
            .answers(200, "Webhook"),
        Endpoint::change(
            ("PATCH", &one),
            "changeWebhook",
            "Replaces what is named (RFC 7396)",
            update,
        )
        .takes("WebhookChange")
        .answers(200, "Webhook"),
        Endpoint::remove(
            &one,
            "deleteWebhook",
            "Removes an endpoint; what waits is not delivered",
            delete,
        ),
        Endpoint::act(
            &format!("{one}/rotate-secret"),
            "rotateWebhookSecret",
            "Gives an endpoint another secret, shown this once; both sign until the overlap ends",
            rotate,
        )
        .takes("WebhookRotation")
        .answers(200, "WebhookSecret"),
        Endpoint::list(
            &format!("{one}/deliveries"),
            "listDeliveries",
            "What became of each event, the newest first",
            deliveries,
        )
        .answers(200, "WebhookDelivery")
        .narrowed_by(FILTERS),
    ]
}

/// `POST …/webhooks`. The secret is in this answer and nowhere else.
async fn create(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let guard = guard(&api);
    let settings = body.read(|doc| settings(doc, &guard))?;
    let id = WebhookId::new(random::id());
    let (text, sealed) = secret(&api, id)?;
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    once.begin(&mut tx).await?;
    let made = tx.within().create_webhook(id, &settings, &sealed).await.map_err(refused)?;
    let mut answer = shown(&made);
    insert(&mut answer, "secret", text.into());
    let mut response = shown_once(StatusCode::CREATED, answer);
    let location = format!("/api/v1/factory/tenants/{tenant}/webhooks/{id}");
    if let Ok(value) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    once.end(&api, tx, response).await
}

/// `GET …/webhooks`.
async fn list(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    listing: Listing,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let op = caller.op();
    let page = &listing.page();
    let found = door::read(&api, &op, caller.door_to(tenant)?, tenant, |mut tx| async move {
        tx.within().list_webhooks(page).await
    })
    .await?;
    let place = |one: &Webhook| Place { created_at: one.created_at, id: one.id.as_uuid() };
    Ok(listing.answer(&found, place, shown))
}

/// `GET …/webhooks/{webhook}`.
async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, webhook)): Ids,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let id: WebhookId = path_id(&webhook)?;
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    let found = tx.within().webhook(id).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    Ok(Json(shown(&found)))
}

/// `PATCH …/webhooks/{webhook}`: what is named is replaced, and the whole is read again.
async fn update(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, webhook)): Ids,
    if_match: IfMatch,
    body: JsonBody,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let id: WebhookId = path_id(&webhook)?;
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    let before = tx.within().lock_webhook(id).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    if_match.check(&shown(&before))?;
    let patch: Map<String, Value> = wire(&body.0)?;
    let mut whole = decided(&before.settings);
    merge(&mut whole, &Value::Object(patch));
    let guard = guard(&api);
    let read = contract::read(&whole.to_string(), |doc| settings(doc, &guard));
    let after = read.map_err(|mistakes| Reply::mistakes(&mistakes))?;
    let made = tx.within().replace_webhook(&before, &after).await.map_err(refused)?;
    tx.commit().await?;
    Ok(Json(shown(&made)))
}

/// `DELETE …/webhooks/{webhook}`.
async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, webhook)): Ids,
    if_match: IfMatch,
) -> Result<StatusCode, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let id: WebhookId = path_id(&webhook)?;
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    let before = tx.within().lock_webhook(id).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    if_match.check(&shown(&before))?;
    tx.within().delete_webhook(&before).await.map_err(refused)?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST …/webhooks/{webhook}/rotate-secret`. The successor is in this answer and nowhere else.
async fn rotate(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, webhook)): Ids,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let id: WebhookId = path_id(&webhook)?;
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    once.begin(&mut tx).await?;
    tx.within().webhook(id).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    let overlap_s =
        body.read(|doc| doc.integer("overlap_s", Some(OVERLAP_S), 0..=MAX_OVERLAP_S))?;
    let until = (overlap_s > 0)
        .then(|| op.now + Duration::seconds(i64::try_from(overlap_s).unwrap_or(i64::MAX)));
    let (text, sealed) = secret(&api, id)?;
    let made = tx.within().rotate_webhook_secret(id, &sealed, until).await.map_err(refused)?;
    let made = made.ok_or(Reason::NotFound)?;
    let answer = json!({
        "id": id,
        "secret": text,
        "previous_until": made.previous_until.map(timestamp),
    });
    once.end(&api, tx, shown_once(StatusCode::OK, answer)).await
}

/// `GET …/webhooks/{webhook}/deliveries`.
async fn deliveries(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, webhook)): Ids,
    listing: Listing,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let id: WebhookId = path_id(&webhook)?;
    let state = listing.filter("state");
    if state.is_some_and(|state| !STATES.contains(&state)) {
        return Err(Reply::new(Reason::QueryInvalid)
            .detail(format!("state is one of {}", STATES.join(", "))));
    }
    let op = caller.op();
    let page = &listing.page();
    let found = door::read(&api, &op, door, tenant, |mut tx| async move {
        match tx.within().webhook(id).await? {
            Some(_) => tx.within().list_deliveries(id, page, state).await.map(Some),
            None => Ok(None),
        }
    })
    .await?
    .ok_or(Reason::NotFound)?;
    let place = |one: &Delivery| Place { created_at: one.created_at, id: one.id };
    Ok(listing.answer(&found, place, delivery))
}

/// What is sealed opens as a secret of this endpoint and of no other.
pub fn secret_name(id: WebhookId) -> String {
    format!("gatehouse/webhook-secret/{id}")
}

/// A secret's text, and itself sealed.
fn secret(api: &Api, id: WebhookId) -> Result<(String, Vec<u8>), Reply> {
    let broken = || {
        error!("no webhook secret can be made");
        Reply::new(Reason::Internal)
    };
    let secret = random::secret().map_err(|_| broken())?;
    let sealed = api.sealer.seal(&secret_name(id), &secret).map_err(|_| broken())?;
    Ok((format!("{PREFIX}{}", STANDARD.encode(secret)), sealed))
}

/// No exception of an operator's is for an address that comes from a tenant (design §3.3), whoever registers it.
fn guard(api: &Api) -> Guard {
    api.sign_in.as_ref().map_or_else(Guard::default, |sign_in| sign_in.strict.clone())
}

/// Reads what may be decided.
fn settings(doc: &Document<'_>, guard: &Guard) -> Option<Settings> {
    let url = url(doc, guard);
    let description = description(doc);
    let events = events(doc);
    let enabled = doc.flag("enabled", true);
    Some(Settings { url: url?, description: description?, events: events?, enabled: enabled? })
}

/// As far as that can be told before its name is resolved; a delivery judges again where the name leads.
fn url(doc: &Document<'_>, guard: &Guard) -> Option<String> {
    const MEND: &str = "write an https URL of the public internet, at port 443 or 8443";
    let url = doc.text("url")?;
    match guard.check(&url) {
        Ok(target) if PORTS.contains(&target.origin().port()) => Some(target.to_string()),
        Ok(target) => {
            doc.note("url", format!("port {} is not asked", target.origin().port()), MEND);
            None
        }
        Err(refused) => {
            // An address may carry what only its owner should know: what is told of it is its origin.
            let cause = match &refused {
                gatehouse_outbound::Refused::Url(why) => why.to_string(),
                _ => refused.to_string(),
            };
            doc.note("url", cause, MEND);
            None
        }
    }
}

fn description(doc: &Document<'_>) -> Option<Option<String>> {
    let Some(text) = doc.text_opt("description")? else { return Some(None) };
    let control = |c: char| c.is_control() && c != '\n';
    if text.chars().count() <= MAX_DESCRIPTION_CHARS && !text.chars().any(control) {
        return Some(Some(text));
    }
    let cause = "too long, or with control characters";
    doc.note("description", cause, format!("write at most {MAX_DESCRIPTION_CHARS} characters"));
    None
}

/// Each kind once, in the order of [`EVENTS`].
fn events(doc: &Document<'_>) -> Option<Vec<String>> {
    let named: Vec<String> = doc.parsed_list("events", "kinds of events")?;
    if let Some(unknown) = named.iter().find(|kind| !EVENTS.contains(&kind.as_str())) {
        let cause = format!("{unknown:?} is no kind of event");
        doc.note("events", cause, format!("name some of {}", EVENTS.join(", ")));
        return None;
    }
    if named.is_empty() {
        doc.note("events", "empty or missing", format!("name some of {}", EVENTS.join(", ")));
        return None;
    }
    let wanted = EVENTS.into_iter().filter(|kind| named.iter().any(|one| one == kind));
    Some(wanted.map(str::to_owned).collect())
}

fn decided(settings: &Settings) -> Value {
    json!({
        "url": settings.url,
        "description": settings.description,
        "events": settings.events,
        "enabled": settings.enabled,
    })
}

fn shown(webhook: &Webhook) -> Value {
    let mut answer = decided(&webhook.settings);
    insert(&mut answer, "id", json!(webhook.id));
    insert(&mut answer, "previous_until", json!(webhook.previous_until.map(timestamp)));
    insert(&mut answer, "created_at", timestamp(webhook.created_at).into());
    insert(&mut answer, "updated_at", timestamp(webhook.updated_at).into());
    answer
}

/// A delivery as everybody sees it.
pub fn delivery(delivery: &Delivery) -> Value {
    let waits = delivery.state == "pending";
    json!({
        "id": delivery.id,
        "event_id": delivery.event_id,
        "event_kind": delivery.event_kind,
        "state": delivery.state,
        "attempt": delivery.attempt,
        "last_status": delivery.last_status,
        "last_error": word(delivery.last_error.as_deref()),
        "due_at": waits.then(|| timestamp(delivery.due_at)),
        "created_at": timestamp(delivery.created_at),
        "delivered_at": delivery.delivered_at.map(timestamp),
    })
}

/// Words of ours alone, whatever is stored.
fn word(stored: Option<&str>) -> Option<&str> {
    stored.filter(|word| ERRORS.contains(word))
}

fn insert(answer: &mut Value, name: &str, value: Value) {
    if let Some(members) = answer.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}
