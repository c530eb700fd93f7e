//! The months of the tables that grow without end: made ahead, dropped in time, and out of everybody's reach.

use gatehouse_store::{Error, Job, members::Changed, partitions::Maintained};
use sqlx::AssertSqlSafe;

use crate::harness::{Db, refused, rows, run, with_db};

async fn maintain(db: &Db) -> Result<Maintained, Error> {
    let mut tx = db.store.system(Job::Partitions).await?;
    let done = tx.maintain_partitions().await?;
    tx.commit().await?;
    Ok(done)
}

/// Metering as if the job had last run in January 2024.
async fn neglect(db: &Db) {
    let mut root = db.root().await;
    let parts: Vec<String> = sqlx::query_scalar(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'metering'::regclass",
    )
    .fetch_all(&mut root)
    .await
    .unwrap();
    for part in parts {
        run(&mut root, &format!("DROP TABLE {part}")).await;
    }
    run(
        &mut root,
        "CREATE TABLE metering_p0 PARTITION OF metering FOR VALUES FROM (MINVALUE) TO ('2024-01-01 00:00:00+00');
         ALTER TABLE metering_p0 OWNER TO gatehouse_owner",
    )
    .await;
}

async fn months(db: &Db, parent: &str) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = '{parent}'::regclass ORDER BY 1"
    )))
    .fetch_all(&mut db.root().await)
    .await
    .unwrap()
}

#[tokio::test]
async fn months_are_made_ahead_and_dropped_in_time() {
    with_db(async |db| {
        // The migrations made this month's and three ahead.
        assert_eq!(maintain(&db).await.unwrap(), Maintained::default());
        for parent in ["executions", "event_store", "execution_logs", "metering", "tenant_audit"] {
            assert_eq!(months(&db, parent).await.len(), 4, "{parent}");
        }
        neglect(&db).await;
        let done = maintain(&db).await.unwrap();
        assert!(done.made.len() > 30, "{done:?}");
        assert!(done.made.contains(&"metering_2024_01".to_owned()), "{done:?}");
        // 25 months after its own, this month's own and three ahead.
        assert_eq!(done.dropped.first().map(String::as_str), Some("metering_p0"));
        assert_eq!(months(&db, "metering").await.len(), 25 + 4);
        assert_eq!(maintain(&db).await.unwrap(), Maintained::default());
        // Whoever may say how long, may not say less than a month, and is recorded.
        let a = db.tenant("tenant-a").await;
        let mut tx = db.store.admin(&a, "less is enough").await.unwrap();
        assert_eq!(tx.set_retention("metering", Some(2)).await.unwrap(), Changed::Yes);
        assert_eq!(tx.set_retention("metering", Some(2)).await.unwrap(), Changed::No);
        assert_eq!(tx.set_retention("tenants", Some(2)).await.unwrap(), Changed::Missing);
        assert_eq!(tx.retention().await.unwrap().len(), 5);
        tx.commit().await.unwrap();
        let audited = "SELECT FROM tenant_audit WHERE action = 'retention.change'";
        assert_eq!(rows(&mut db.root().await, audited).await, 1);
        let mut tx = db.store.admin(&a, "a test").await.unwrap();
        let none = tx.set_retention("metering", Some(0)).await.unwrap_err();
        assert_eq!(none.sqlstate().as_deref(), Some("23514"));
        drop(tx);
        assert_eq!(maintain(&db).await.unwrap().dropped.len(), 23);
        // For ever is for ever.
        assert_eq!(months(&db, "event_store").await.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn two_jobs_at_once_do_it_once() {
    with_db(async |db| {
        neglect(&db).await;
        let (one, other) = tokio::join!(maintain(&db), maintain(&db));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!(one.made.is_empty() != other.made.is_empty(), "{one:?} {other:?}");
    })
    .await;
}

#[tokio::test]
async fn a_table_in_use_is_waited_for_briefly_and_the_next_turn_does_it() {
    with_db(async |db| {
        neglect(&db).await;
        let mut reader = db.root().await;
        run(&mut reader, "BEGIN; SELECT FROM metering").await;
        let held = maintain(&db).await.unwrap_err();
        assert!(held.is_unavailable(), "{held:?}");
        assert_eq!(months(&db, "metering").await, ["metering_p0"], "nothing half-done");
        run(&mut reader, "COMMIT").await;
        assert!(!maintain(&db).await.unwrap().made.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_new_month_takes_rows_and_nobody_gets_at_it_beside_its_table() {
    with_db(async |db| {
        neglect(&db).await;
        let a = db.tenant("tenant-a").await;
        let b = db.tenant("tenant-b").await;
        maintain(&db).await.unwrap();
        let mut app = db.raw("gatehouse_app").await;
        let meter = |op: &gatehouse_store::OpCtx| {
            format!(
                "INSERT INTO metering VALUES ('{}', gen_random_uuid(), 1, now(), gen_random_uuid(), 1, 1, 1, 1, 1)",
                op.tenant
            )
        };
        run(&mut app, &format!("SET app.current_tenant_id = '{}'; {}", a.tenant, meter(&a))).await;
        assert_eq!(refused(&mut app, &meter(&b)).await, "42501");
        let newest = format!("metering_{}", this_month(&db).await);
        assert_eq!(rows(&mut db.root().await, &format!("SELECT FROM {newest}")).await, 1);
        for role in ["gatehouse_app", "gatehouse_admin", "gatehouse_system"] {
            let mut session = db.raw(role).await;
            for statement in [
                format!("SELECT FROM {newest}"),
                format!("TRUNCATE {newest}"),
                format!("DROP TABLE {newest}"),
                format!("ALTER TABLE metering DETACH PARTITION {newest}"),
            ] {
                assert_eq!(refused(&mut session, &statement).await, "42501", "{role}: {statement}");
            }
        }
    })
    .await;
}

/// This month as partitions are named.
async fn this_month(db: &Db) -> String {
    sqlx::query_scalar("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')")
        .fetch_one(&mut db.root().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn only_the_job_of_partitions_may_make_them() {
    with_db(async |db| {
        let call = "SELECT maintain_partitions()";
        for role in ["gatehouse_app", "gatehouse_admin", "gatehouse_system"] {
            let mut session = db.raw(role).await;
            assert_eq!(refused(&mut session, call).await, "42501", "{role}");
        }
        let mut tx = db.store.system(Job::Relay).await.unwrap();
        let refused = tx.maintain_partitions().await.unwrap_err();
        assert_eq!(refused.sqlstate().as_deref(), Some("42501"));
        // A table of the caller's own that looks like one of the catalog's is not looked at.
        let mut system = db.raw("gatehouse_system").await;
        run(&mut system, "SET app.current_job = 'partitions'; SET search_path = pg_temp, public")
            .await;
        assert_eq!(rows(&mut system, "SELECT * FROM public.maintain_partitions()").await, 0);
    })
    .await;
}

#[tokio::test]
async fn kept_answers_of_silent_tenants_end_with_their_time() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let mut root = db.root().await;
        for op in [&a, &b] {
            run(
                &mut root,
                &format!(
                    "INSERT INTO idempotency_keys (tenant_id, key_sha256, request_sha256, sealed_answer, created_at)
                     SELECT '{}', sha256(age::text::bytea), sha256(''), '', now() - age
                     FROM unnest(ARRAY[interval '23 hours 59 minutes', '24 hours', '30 days']) age",
                    op.tenant
                ),
            )
            .await;
        }
        let end = async |limit| {
            let mut tx = db.store.system(Job::Partitions).await.unwrap();
            let ended = tx.end_kept_answers(limit).await.unwrap();
            tx.commit().await.unwrap();
            ended
        };
        assert_eq!((end(3).await, end(3).await, end(3).await), (3, 1, 0));
        assert_eq!(rows(&mut root, "SELECT FROM idempotency_keys").await, 2, "the young ones");
        // It sees none of what they say, and no other job sees any.
        let mut raw = db.raw("gatehouse_system").await;
        run(&mut raw, "SET app.current_job = 'partitions'").await;
        let answers = "SELECT sealed_answer FROM idempotency_keys";
        assert_eq!(refused(&mut raw, answers).await, "42501");
    })
    .await;
}
