//! Has deliveries to an endpoint made again that failed, or were taken and lost there: one, or all that failed since a time.
//! Knows nothing of how a delivery is made.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{Document, Reason, TenantId, WebhookId};
use gatehouse_service::{Reply, body::JsonBody};
use gatehouse_store::{OffsetDateTime, deliveries::MAX_REPLAY};
use serde_json::json;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::{
    access::Caller,
    once::Once,
    routes::{Api, door::open, endpoint::Endpoint, path_id, refused, webhooks::delivery},
};

/// The endpoints.
pub fn endpoints(tenant: &str) -> Vec<Endpoint> {
    let one = format!("{tenant}/webhooks/{{webhook}}");
    vec![
        Endpoint::act(
            &format!("{one}/replay"),
            "replayWebhook",
            "Delivers again what failed since a time, the oldest first, at most 1000 at once",
            since,
        )
        .takes("WebhookReplay")
        .answers(200, "WebhookReplayed"),
        Endpoint::act(
            &format!("{one}/deliveries/{{delivery}}/replay"),
            "replayDelivery",
            "Delivers one event again, under the same webhook-id",
            again,
        )
        .answers(200, "WebhookDelivery"),
    ]
}

/// `POST …/webhooks/{webhook}/replay`.
async fn since(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, webhook)): Path<(String, String)>,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let id: WebhookId = path_id(&webhook)?;
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    once.begin(&mut tx).await?;
    tx.within().lock_webhook(id).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    let since = body.read(time)?;
    let replayed = tx.within().replay_failed(id, since).await.map_err(refused)?;
    let more = i64::try_from(replayed).is_ok_and(|replayed| replayed >= MAX_REPLAY);
    once.end(&api, tx, Json(json!({"replayed": replayed, "more": more})).into_response()).await
}

/// `POST …/webhooks/{webhook}/deliveries/{delivery}/replay`.
async fn again(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, webhook, of)): Path<(String, String, String)>,
    once: Once,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let id: WebhookId = path_id(&webhook)?;
    let of: Uuid = of.parse().map_err(|_| Reason::NotFound)?;
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    once.begin(&mut tx).await?;
    let found = tx.within().replay_delivery(id, of).await.map_err(refused)?;
    let found = found.ok_or(Reason::NotFound)?;
    once.end(&api, tx, Json(delivery(&found)).into_response()).await
}

fn time(doc: &Document<'_>) -> Option<OffsetDateTime> {
    let text = doc.text("since")?;
    let parsed = OffsetDateTime::parse(&text, &Rfc3339);
    if parsed.is_err() {
        doc.note("since", "not a time", "write one such as \"2026-01-01T00:00:00Z\"");
    }
    parsed.ok()
}
