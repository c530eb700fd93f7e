//! One bounded fault run of the execution engine, judged; the longer form is `cargo xtask bench execution`.

use gatehouse_contract::{ExecutionId, Tier};
use gatehouse_store::executions::Terms;
use gatehouse_tests::{
    engine::{Engine, PATIENCE, Plan, worker::Driver},
    faults::{Run, play},
    wait,
};
use serde_json::json;
use uuid::Uuid;

/// Edge cases 1, 2, 5, 10, 12 and 31 by what must be true afterwards: nothing is lost, nothing counts twice, no limit is
/// passed at any instant, and each state was hit by a kill.
#[test]
fn ee01_ee02_ee31_nothing_is_lost_or_doubled_whatever_is_killed() {
    let run = Run { seed: 7, executions: 300, rounds: 1, driver: Driver::Sim };
    let report = play(run).unwrap();
    println!("{report}");
    assert!(report.is_good(), "{report}");
}

/// Edge cases 5 to 8: whatever Redis loses, or refuses to take, PostgreSQL has.
#[test]
fn ee05_ee06_ee07_ee08_what_redis_loses_or_refuses_is_offered_again() {
    let mut engine = Engine::start(Plan { durable: false, tiers: &[Tier::Pro] }).unwrap();
    engine.worker(Driver::Sim, &json!({"concurrency": 1}), 0).unwrap();
    // One runs and the others are offered: they are in the stream, or held of it by the worker.
    let begin = |engine: &Engine| {
        submit(engine, 20, 60);
        wait_for(engine, "queued > 5");
    };
    // 5: begun again with nothing.
    begin(&engine);
    engine.redis.process.kill().unwrap();
    engine.redis.again(false).unwrap();
    wait_for(&engine, "completed = 20");
    // 6: the last writes are gone, the groups are not.
    begin(&engine);
    engine.redis.ask(&["XTRIM", "queue:p1", "MAXLEN", "2"]).unwrap();
    wait_for(&engine, "completed = 40");
    // 7: trimmed below what is delivered already and not acknowledged.
    begin(&engine);
    engine.redis.ask(&["XTRIM", "queue:p1", "MAXLEN", "0"]).unwrap();
    wait_for(&engine, "completed = 60");
    // 8: no memory for writes. A submit is accepted whole, and waits.
    engine.redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    submit(&engine, 20, 0);
    wait_for(&engine, "pending = 20 AND completed = 60");
    engine.redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    wait_for(&engine, "completed = 80");
    // Each once, and each with all of its events.
    let once = "SELECT count(*), count(DISTINCT aggregate_id) FROM event_store WHERE kind = 'execution.completed'";
    assert_eq!(engine.postgres.ask("gatehouse", once).unwrap(), "80|80");
    let submitted = "SELECT count(*) FROM event_store WHERE kind = 'execution.submitted'";
    assert_eq!(engine.postgres.ask("gatehouse", submitted).unwrap(), "80");
    let ran = engine.workers[0].journal().unwrap();
    assert_eq!(ran.lines().filter(|line| line.starts_with("ended")).count(), 80);
}

fn submit(engine: &Engine, count: usize, ms: u64) {
    let tenant = &engine.tenants[0];
    engine.runtime.block_on(async {
        for _ in 0..count {
            let id = ExecutionId::new(Uuid::new_v4());
            let input = json!({"ms": ms});
            tenant.submit(&engine.store, id, input, Terms::default()).await.unwrap();
        }
    });
}

/// Until this is true of the numbers of executions in each state.
fn wait_for(engine: &Engine, what: &str) {
    let of = |state: &str| format!("count(*) FILTER (WHERE state = '{state}') AS {state}");
    let states = ["pending", "queued", "running", "completed"].map(of).join(", ");
    let sql = format!("SELECT {what}, s FROM (SELECT {states} FROM executions) s");
    let mut observer = engine.postgres.observer();
    wait::until(what, PATIENCE, || {
        let seen = observer.ask(&sql)?;
        anyhow::ensure!(seen.starts_with('t'), "{seen}");
        Ok(Some(()))
    })
    .unwrap();
}
