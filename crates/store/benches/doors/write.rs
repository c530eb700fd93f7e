//! A mutation with all that belongs to it (row security, audit, event, outbox, the answer kept under the client's key),
//! beside the bare row.

use std::sync::Arc;

use gatehouse_contract::AgentId;
use gatehouse_store::idempotency::Repeatable;
use uuid::Uuid;

use super::{Plan, Rounds, beside, harness::Db, percentile, timed, with_db};

/// As long as the sealed answer of such a request.
const ANSWER_BYTES: usize = 500;

pub async fn measure(plan: Plan) -> Rounds {
    with_db(move |db| measured(db, plan)).await
}

async fn measured(db: Arc<Db>, plan: Plan) -> Rounds {
    let op = db.tenant("whole").await;
    let other = db.tenant("bare").await;
    let root = beside(&db).await;
    let kept: String = sqlx::query_scalar("SHOW fsync").fetch_one(&root).await.unwrap();
    assert_eq!(kept, "on", "what is measured is kept");
    // Whose quota of agents no bench uses up.
    sqlx::query("UPDATE tenants SET tier = 'enterprise'").execute(&root).await.unwrap();
    let answer = [7; ANSWER_BYTES];
    let mut found = Rounds::new();
    for round in 0..=plan.rounds {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..plan.goes / 2 {
            let id = Uuid::new_v4();
            let name = format!("a{}", id.simple());
            ours.push(
                timed(async {
                    let of = repeatable(id);
                    let mut tx = db.store.tenant(&op).await.unwrap();
                    assert!(tx.begin_repeatable(&of.key_sha256).await.unwrap());
                    tx.create_agent(AgentId::new(id), &name, None).await.unwrap();
                    assert!(tx.keep_answer(&of, &answer).await.unwrap());
                    tx.commit().await.unwrap();
                })
                .await
                .0,
            );
            bare.push(
                timed(async {
                    sqlx::query(
                        "INSERT INTO agents (tenant_id, id, name, description) VALUES ($1, $2, $3, $4)
                         RETURNING id, name, description, created_at",
                    )
                    .bind(other.tenant.as_uuid())
                    .bind(id)
                    .bind(&name)
                    .bind(None::<&str>)
                    .fetch_one(&root)
                    .await
                    .unwrap();
                })
                .await
                .0,
            );
        }
        if round > 0 {
            let (ours, bare) = (percentile(&mut ours, 50), percentile(&mut bare, 50));
            let mut keep = |id, value| found.entry(id).or_default().push(value);
            keep("write_ratio", ours / bare);
            keep("write_us", ours * 1e6);
        }
    }
    found
}

fn repeatable(id: Uuid) -> Repeatable {
    let mut key_sha256 = [0; 32];
    let (half, _) = key_sha256.split_at_mut(16);
    half.copy_from_slice(id.as_bytes());
    Repeatable { key_sha256, request_sha256: [1; 32] }
}
