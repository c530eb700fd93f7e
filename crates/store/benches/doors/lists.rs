//! Pages of fifty executions: a deep one beside the first, and the first of a long list beside that of a short one.

use std::{sync::Arc, time::Duration};

use gatehouse_store::{
    OpCtx,
    executions::Wanted,
    paging::{Page, Place},
};
use sqlx::{Connection, PgConnection};

use super::{
    Plan, Rounds,
    harness::{Db, op, run},
    percentile, timed, with_db,
};

const PAGE: i64 = 50;
/// Tenants beside the one with the long list, and executions of each.
const OTHERS: u32 = 199;
const OF_OTHERS: u32 = 1000;
/// Rows of the short list.
const SHORT: u32 = 10_000;
/// Goes per round and side: the 95th percentile of fewer says little.
const GOES: usize = 400;

pub async fn measure(plan: Plan) -> Rounds {
    with_db(move |long| async move {
        let (tell, told) = tokio::sync::oneshot::channel();
        super::harness::with_db(move |short| async move {
            drop(tell.send(measured(&long, &short, plan).await));
        })
        .await;
        told.await.unwrap()
    })
    .await
}

async fn measured(long: &Arc<Db>, short: &Arc<Db>, plan: Plan) -> Rounds {
    let of_long = fill(long, plan.rows, OTHERS).await;
    let of_short = fill(short, SHORT, 0).await;
    // So deep that nine tenths of the list are before it.
    let deep = i64::from(plan.rows / 10 * 9);
    let mut root = PgConnection::connect(&long.root_url()).await.unwrap();
    let (id, created_at) = sqlx::query_as(
        "SELECT id, created_at FROM executions WHERE tenant_id = $1
         ORDER BY created_at DESC, id DESC OFFSET $2 LIMIT 1",
    )
    .bind(of_long.tenant.as_uuid())
    .bind(deep)
    .fetch_one(&mut root)
    .await
    .unwrap();
    let deep = Page { after: Place { created_at, id }, limit: PAGE };
    let mut found = Rounds::new();
    for round in 0..=plan.rounds {
        let (mut first, mut behind, mut little) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..GOES {
            first.push(page(long, &of_long, &Page::first(PAGE)).await);
            behind.push(page(long, &of_long, &deep).await);
            little.push(page(short, &of_short, &Page::first(PAGE)).await);
        }
        if round > 0 {
            let first = percentile(&mut first, 95);
            let mut keep = |id, value| found.entry(id).or_default().push(value);
            keep("list_deep_ratio", percentile(&mut behind, 95) / first);
            keep("list_scale_ratio", first / percentile(&mut little, 95));
            keep("first_page_us", first * 1e6);
        }
    }
    found
}

async fn page(db: &Db, op: &OpCtx, page: &Page) -> Duration {
    let (took, rows) = timed(async {
        let mut tx = db.store.tenant(op).await.unwrap();
        let rows = tx.list_executions(page, &Wanted::default()).await.unwrap();
        tx.commit().await.unwrap();
        rows
    })
    .await;
    assert_eq!(rows.len() as i64, PAGE);
    took
}

/// A tenant with so many executions, two seconds apart, and the others with theirs at the same times.
async fn fill(db: &Arc<Db>, rows: u32, others: u32) -> OpCtx {
    let mut root = PgConnection::connect(&db.root_url()).await.unwrap();
    let mut first = None;
    for index in 0..=others {
        let op = db.tenant(&format!("tenant-{index}")).await;
        db.agent(&op, "agent").await;
        first = first.or(Some(op));
    }
    let tenant = first.map(|op| op.tenant).unwrap();
    let fill = |of: &str, count: u32| {
        format!(
            "INSERT INTO executions (tenant_id, id, agent_id, agent_version_id, priority, timeout_s, max_attempts,
                input, created_by, state, created_at, completed_at)
             SELECT v.tenant_id, gen_random_uuid(), v.agent_id, v.id, 1, 300, 3, '{{\"litres\": 1}}', 'bench', 'completed',
                now() - n * interval '2 seconds', now()
             FROM agent_versions v, generate_series(1, {count}) n WHERE v.tenant_id {of} '{tenant}'"
        )
    };
    run(&mut root, &fill("=", rows)).await;
    if others > 0 {
        run(&mut root, &fill("<>", OF_OTHERS)).await;
    }
    run(&mut root, "VACUUM ANALYZE executions").await;
    op(tenant)
}
