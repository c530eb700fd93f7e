//! Events taken out of their outbox and thrown away: what publishing them is measured beside.

use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};

use super::{Plan, Rounds, harness::run, with_db};

/// As the publisher takes them.
const BATCH: u32 = 1000;
const BUSY: Duration = Duration::from_secs(8);
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
        let mut step = db.store.publishing().await.unwrap();
        let term = step.begin().await.unwrap().unwrap();
        step.commit().await.unwrap();
        let began = Instant::now();
        let mut taken = 0;
        loop {
            let mut reading = db.store.publishing().await.unwrap();
            let events = reading.take(term, BATCH, BUSY).await.unwrap().unwrap();
            reading.commit().await.unwrap();
            if events.is_empty() {
                break;
            }
            taken += events.len();
            let gone: Vec<i64> = events.iter().map(|event| event.row).collect();
            let mut marking = db.store.publishing().await.unwrap();
            marking.settle(term, &gone, &[]).await.unwrap();
            marking.commit().await.unwrap();
        }
        assert_eq!(u32::try_from(taken), Ok(EVENTS));
        let rate = f64::from(EVENTS) / began.elapsed().as_secs_f64();
        Rounds::from([("events_per_second", vec![rate])])
    })
    .await
}
