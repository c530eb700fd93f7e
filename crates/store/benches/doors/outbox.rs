//! Events taken out of their outbox and thrown away: what publishing them is measured beside.

use std::time::Instant;

use sqlx::{Connection, PgConnection};

use super::{Plan, Rounds, harness::run, with_db};

/// As the publisher takes them.
const BATCH: u32 = 1000;
/// Events of a round; the bench of the gateway writes as many.
const EVENTS: u32 = 30_000;

pub async fn measure(_plan: Plan) -> Rounds {
    with_db(async move |db| {
        let op = db.tenant("publishes").await;
        let mut root = PgConnection::connect(&db.root_url()).await.unwrap();
        let tenant = op.tenant;
        let fill = format!(
            "INSERT INTO event_outbox (tenant_id, event_id, aggregate_kind, aggregate_id, seq, kind, payload)
             SELECT '{tenant}', gen_random_uuid(), 'execution', gen_random_uuid(), 2, 'execution.queued', '{{}}'
             FROM generate_series(1, {EVENTS})"
        );
        run(&mut root, &fill).await;
        let began = Instant::now();
        let mut taken = 0;
        loop {
            let mut step = db.store.publishing().await.unwrap();
            let events = step.take(BATCH).await.unwrap().len();
            step.commit().await.unwrap();
            if events == 0 {
                break;
            }
            taken += events;
        }
        assert_eq!(u32::try_from(taken), Ok(EVENTS));
        let rate = f64::from(EVENTS) / began.elapsed().as_secs_f64();
        Rounds::from([("events_per_second", vec![rate])])
    })
    .await
}
