//! A tenant's configuration: one document, changed by merge patches (RFC 7396) and judged as a whole by the schema of its
//! version. Knows nothing of what the members mean.

use std::sync::LazyLock;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{Reason, TenantId};
use gatehouse_service::{
    Reply,
    body::{JsonBody, media_type, wire},
};
use gatehouse_store::{organizations::Edited, tenant_config::MOST_BYTES};
use gatehouse_validate::Schema;
use serde_json::{Map, Value};

use crate::{
    access::Caller,
    bodies,
    cache::{Entity, Fresh},
    condition::IfMatch,
    federation::merge,
    routes::{
        Api,
        door::{self, Tx, open},
        path_id, refused,
    },
};

/// The version of [`SCHEMA`]. A change that refuses what was taken before is another version in a file of its own.
const VERSION: u32 = 1;
const SCHEMA: &str = include_str!("../../tenant-config.v1.schema.json");
/// Where it is served.
pub const SCHEMA_PATH: &str = "/api/v1/tenant-config.v1.schema.json";
const DESCRIBED_BY: HeaderValue =
    HeaderValue::from_static("</api/v1/tenant-config.v1.schema.json>; rel=\"describedby\"");
/// Levels of a document, itself among them.
const MOST_DEEP: usize = 16;
/// RFC 5789 §3.1.
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const MERGE_PATCH: HeaderValue = HeaderValue::from_static("application/merge-patch+json");

/// Compiled once per process; `None` where this build's own is broken, which its tests would have said.
static JUDGE: LazyLock<Option<Schema>> =
    LazyLock::new(|| Schema::compile(&serde_json::from_str(SCHEMA).ok()?).ok());

/// `GET /api/v1/tenant-config.v1.schema.json`.
pub async fn schema() -> Response {
    let kind = HeaderValue::from_static("application/schema+json");
    // A version never changes, but for what it lets through besides.
    let cache = HeaderValue::from_static("public, max-age=300");
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache)], SCHEMA).into_response()
}

/// `GET /api/v1/factory/tenants/{tenant}/config`: an empty object where nothing was configured.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    fresh: Fresh,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let show = async |tx: &mut Tx<'_>| {
        Ok(Value::Object(tx.within().config().await.map_err(refused)?.document))
    };
    let place = (tenant, Entity::Config, fresh);
    let mut response = door::shown(&api, &caller.op(), door, place, show).await?;
    response.headers_mut().insert(header::LINK, DESCRIBED_BY);
    Ok(response)
}

/// `PATCH /api/v1/factory/tenants/{tenant}/config`.
pub async fn change(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    if_match: IfMatch,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let op = caller.op();
    let mut tx = open(&api, &op, caller.door_to(tenant)?, tenant).await?;
    let kind = media_type(&headers);
    if !matches!(kind.as_deref(), Some("application/merge-patch+json" | "application/json")) {
        return Err(Reply::new(Reason::MediaTypeUnsupported)
            .detail("send a merge patch (RFC 7396) as application/merge-patch+json")
            .header(ACCEPT_PATCH, MERGE_PATCH));
    }
    let patch: Map<String, Value> = wire(&body.0)?;
    let patch = Value::Object(patch);
    // Before anything walks down it.
    if let Some(place) = too_deep(&patch) {
        return Err(deep(&place));
    }
    if !tx.within().lock_tenant().await.map_err(refused)? {
        return Err(Reason::NotFound.into());
    }
    let before = tx.within().config().await.map_err(refused)?;
    let whole = Value::Object(before.document.clone());
    if_match.check(&whole)?;
    let mut now = whole.clone();
    merge(&mut now, &patch);
    if now == whole {
        return Ok(shown(before.document));
    }
    judge(&now)?;
    let Value::Object(document) = now else { return Err(Reason::Internal.into()) };
    match tx.within().replace_config(before.revision, VERSION, &document).await.map_err(refused)? {
        Edited::Done(now) => {
            tx.commit().await?;
            Ok(shown(now.document))
        }
        // The tenant's row is held: nobody else could.
        Edited::Stale | Edited::Missing => Err(Reason::PreconditionFailed.into()),
    }
}

fn shown(document: Map<String, Value>) -> Response {
    ([(header::LINK, DESCRIBED_BY)], Json(Value::Object(document))).into_response()
}

/// The whole as it would be stored.
fn judge(document: &Value) -> Result<(), Reply> {
    if stored_bytes(document) > MOST_BYTES {
        return Err(Reply::mistake(
            "$",
            "larger than 64 KiB",
            "keep it elsewhere and name the place",
        ));
    }
    if let Some(place) = too_deep(document) {
        return Err(deep(&place));
    }
    let judge = JUDGE.as_ref().ok_or(Reason::Internal)?;
    judge.judge(document.to_string().as_bytes()).map_err(|refusal| bodies::told(&refusal))
}

fn deep(place: &str) -> Reply {
    Reply::mistake(place, "nested more than 16 deep", "make it flatter")
}

/// The first place that is too deep, in the words of [`Reply::mistake`].
fn too_deep(document: &Value) -> Option<String> {
    let mut left = vec![(document, "$".to_owned(), 1)];
    while let Some((value, place, level)) = left.pop() {
        if level > MOST_DEEP {
            return Some(place);
        }
        match value {
            Value::Object(members) => left.extend(members.iter().map(|(name, value)| {
                (value, gatehouse_contract::document::member(&place, name), level + 1)
            })),
            Value::Array(items) => left.extend(
                items
                    .iter()
                    .enumerate()
                    .map(|(n, item)| (item, format!("{place}[{n}]"), level + 1)),
            ),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    None
}

/// As PostgreSQL writes it: with a blank behind each comma and colon.
fn stored_bytes(value: &Value) -> usize {
    let commas = |count: usize| count.saturating_sub(1) * 2;
    match value {
        Value::Object(members) => {
            let of = |(name, value): (&String, &Value)| {
                Value::from(name.as_str()).to_string().len() + 2 + stored_bytes(value)
            };
            2 + commas(members.len()) + members.iter().map(of).sum::<usize>()
        }
        Value::Array(items) => {
            2 + commas(items.len()) + items.iter().map(stored_bytes).sum::<usize>()
        }
        scalar => scalar.to_string().len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_secret_is_named_and_what_is_unknown_refused_by_its_place() {
        let check = |document: Value, pointer: Option<&str>| {
            let judged = judge(&document).map_err(|reply| {
                reply.problem().extensions["errors"][0]["pointer"].as_str().unwrap().to_owned()
            });
            assert_eq!(judged.err().as_deref(), pointer, "{document}");
        };
        check(json!({}), None);
        check(
            json!({"timezone": "Europe/Berlin", "labels": {"team": "a"}, "features": {"x": true}}),
            None,
        );
        let runtime = |members: Value| json!({"runtime": members});
        check(
            runtime(json!({"secrets": {"DB_PASSWORD": "secret://db"}, "environment": {"A": "b"}})),
            None,
        );
        check(runtime(json!({"secrets": {"A": "hunter2"}})), Some("/runtime/secrets/A"));
        check(runtime(json!({"environment": {"DB_PASSWORD": "x"}})), Some("/runtime/environment"));
        for value in
            ["-----BEGIN RSA", "gk_live_x", "eyJhbGciOi.x", "AKIAABCDEFGHIJKLMNOP", "ghp_x"]
        {
            check(runtime(json!({"environment": {"A": value}})), Some("/runtime/environment/A"));
        }
        check(runtime(json!({"environment": {"A": "\0"}})), Some("/runtime/environment/A"));
        check(runtime(json!({"timeout_s": 0})), Some("/runtime/timeout_s"));
        check(json!({"other": 1}), Some("/other"));
        check(runtime(json!({"other": 1})), Some("/runtime/other"));
    }

    #[test]
    fn what_is_too_deep_or_too_large_is_refused() {
        let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({"a": inner}));
        assert_eq!(too_deep(&nested(16)), None);
        assert!(too_deep(&nested(17)).is_some());
        let document = json!({"a": [1, 2, {"b": "ä", "c": null}]});
        assert_eq!(stored_bytes(&document), r#"{"a": [1, 2, {"b": "ä", "c": null}]}"#.len());
        let large = json!({"labels": {"a": "x".repeat(MOST_BYTES)}});
        let refused = judge(&large).unwrap_err();
        assert!(
            refused.problem().extensions["errors"][0]["detail"]
                .as_str()
                .unwrap()
                .contains("64 KiB")
        );
    }
}
