//! One row through `store.tenant`, beside the same row in a transaction of a role that no policy concerns.

use std::sync::Arc;

use gatehouse_contract::AgentId;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Plan, Rounds, beside, harness::Db, percentile, timed, with_db};

/// Agents of each of two hundred tenants.
const AGENTS: i32 = 50;
const TENANTS: usize = 200;

/// What `TenantTx::agent` asks, with the tenant that row security would add.
const BARE: &str = "SELECT id, name, description, created_at FROM agents
    WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL";

pub async fn measure(plan: Plan) -> Rounds {
    with_db(move |db| measured(db, plan)).await
}

async fn measured(db: Arc<Db>, plan: Plan) -> Rounds {
    let mut tenants = Vec::new();
    for index in 0..TENANTS {
        tenants.push(db.tenant(&format!("tenant-{index}")).await);
    }
    let root = beside(&db).await;
    sqlx::query(
        "INSERT INTO agents (tenant_id, id, name)
         SELECT t.id, gen_random_uuid(), 'agent-' || n FROM tenants t, generate_series(1, $1) n",
    )
    .bind(AGENTS)
    .execute(&root)
    .await
    .unwrap();
    sqlx::query("ANALYZE agents").execute(&root).await.unwrap();
    let op = tenants.get(TENANTS / 2).unwrap();
    let tenant = op.tenant.as_uuid();
    let ids: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM agents WHERE tenant_id = $1")
        .bind(tenant)
        .fetch_all(&root)
        .await
        .unwrap();

    let mut found = Rounds::new();
    // One more round than is kept: the first fills caches and prepares statements.
    for round in 0..=plan.rounds {
        let (mut ours, mut bare, mut auto) = (Vec::new(), Vec::new(), Vec::new());
        for id in ids.iter().cycle().take(plan.goes) {
            let id = *id;
            ours.push(
                timed(async {
                    let mut tx = db.store.tenant(op).await.unwrap();
                    let agent = tx.agent(AgentId::new(id)).await.unwrap();
                    tx.commit().await.unwrap();
                    assert!(agent.is_some());
                })
                .await
                .0,
            );
            bare.push(timed(in_transaction(&root, tenant, id)).await.0);
            auto.push(timed(alone(&root, tenant, id)).await.0);
        }
        if round > 0 {
            let ours = percentile(&mut ours, 50);
            let mut keep = |id, value| found.entry(id).or_default().push(value);
            keep("rls_read_ratio", ours / percentile(&mut bare, 50));
            keep("of_autocommit", ours / percentile(&mut auto, 50));
            keep("rls_read_us", ours * 1e6);
        }
    }
    found
}

async fn in_transaction(pool: &PgPool, tenant: Uuid, id: Uuid) {
    let mut tx = pool.begin().await.unwrap();
    let row = sqlx::query(BARE).bind(tenant).bind(id).fetch_optional(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    assert!(row.is_some());
}

async fn alone(pool: &PgPool, tenant: Uuid, id: Uuid) {
    let row = sqlx::query(BARE).bind(tenant).bind(id).fetch_optional(pool).await.unwrap();
    assert!(row.is_some());
}
