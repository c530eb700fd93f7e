//! What a tenant used, day by day. Knows nothing of limits.

use axum::{
    extract::{Path, State},
    response::Response,
};
use gatehouse_contract::{Reason, TenantId};
use gatehouse_service::Reply;
use gatehouse_store::{
    OffsetDateTime,
    paging::{Page, Place},
    usage::{Alert, Metered, Used},
};
use serde_json::{Value, json};
use time::{Date, Duration, Time, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{
    access::Caller,
    clock,
    paging::Listing,
    routes::{
        Api,
        door::{self, Tx},
        path_id, timestamp,
    },
};

/// The first and the last day, both UTC and both within.
pub const FILTERS: &[&str] = &["from", "until"];

/// Days of a range that is not said, and at most.
const DEFAULT_DAYS: i64 = 31;
const MOST_DAYS: i64 = 366;

/// `GET /api/v1/factory/tenants/{tenant}/usage`.
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    listing: Listing,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let until = day(&listing, "until")?.unwrap_or_else(|| clock::now().date());
    let from = day(&listing, "from")?
        .unwrap_or_else(|| until.saturating_sub(Duration::days(DEFAULT_DAYS - 1)));
    if from > until || (until - from).whole_days() >= MOST_DAYS {
        return Err(Reply::new(Reason::QueryInvalid)
            .detail("from is not behind until, and both are within 366 days"));
    }
    let Page { after, limit } = listing.page();
    // A day's place is its midnight: the page behind begins with the day before.
    let until = after.created_at.date().previous_day().map_or(until, |before| until.min(before));
    let op = caller.op();
    let found = door::read(&api, &op, caller.door_to(tenant)?, tenant, |tx| async move {
        match tx {
            _ if from > until => Ok(Vec::new()),
            Tx::Own(mut tx) => tx.usage(from, until, limit).await,
            Tx::Platform(mut tx, tenant) => tx.within(tenant).usage(from, until, limit).await,
        }
    })
    .await?;
    let place = |used: &Used| Place {
        created_at: OffsetDateTime::new_utc(used.day, Time::MIDNIGHT),
        id: Uuid::nil(),
    };
    Ok(listing.answer(&found, place, shown))
}

fn day(listing: &Listing, name: &str) -> Result<Option<Date>, Reply> {
    let read = |text: &str| {
        let whole = OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339);
        whole.map(OffsetDateTime::date).map_err(|_| {
            Reply::new(Reason::QueryInvalid).detail(format!("{name} is a day such as 2026-01-31"))
        })
    };
    listing.filter(name).map(read).transpose()
}

fn shown(used: &Used) -> Value {
    let metered = |metered: &Metered| {
        json!({
            "attempts": metered.attempts,
            "wall_ms": metered.wall_ms,
            "cpu_ms": metered.cpu_ms,
            "tokens": metered.tokens,
            "egress_requests": metered.egress_requests,
        })
    };
    let alert = |alert: &Alert| {
        json!({
            "quota": alert.quota,
            "percent": alert.percent,
            "used": alert.used,
            "limit": alert.limit,
            "at": timestamp(alert.at),
        })
    };
    json!({
        "day": used.day.to_string(),
        "executions": used.executions,
        "compute_minutes": used.compute_minutes,
        "tokens": used.tokens,
        "metered": used.metered.as_ref().map(metered),
        "alerts": used.alerts.iter().map(alert).collect::<Vec<_>>(),
    })
}
