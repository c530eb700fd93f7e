//! The least that could do what the queue does, on the same servers: one message through a stream, and commits of one row
//! by a prepared statement. Nothing is decided, sealed or told.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use gatehouse_contract::{ExecutionId, TenantId};
use gatehouse_redis_kit::queue::{Job, Priority, Queue};
use uuid::Uuid;

use crate::engine::{Engine, postgres::Observer};

const TIMEOUT: Duration = Duration::from_secs(5);

/// One of those who work side by side: a stream and a row of its own.
pub(super) struct Bare {
    queue: Queue,
    rows: Observer,
    runtime: tokio::runtime::Handle,
    consumer: String,
}

impl Bare {
    pub fn start(engine: &Engine, number: usize) -> Result<Self> {
        let make = "CREATE TABLE IF NOT EXISTS bare (id integer PRIMARY KEY, n bigint NOT NULL);
            INSERT INTO bare VALUES";
        engine
            .postgres
            .ask("gatehouse", &format!("{make} ({number}, 0) ON CONFLICT DO NOTHING"))?;
        let prefix = format!("queue:bare-{number}:");
        let url = engine.redis.url("worker");
        let queue = Queue::connect_with_prefix(&url, TIMEOUT, &prefix);
        let queue = engine.runtime.block_on(queue)?;
        let mut rows = engine.postgres.observer();
        rows.ask(&format!("PREPARE bump AS UPDATE bare SET n = n + 1 WHERE id = {number}"))?;
        let consumer = format!("bare-{number}");
        Ok(Self { queue, rows, runtime: engine.runtime.handle().clone(), consumer })
    }

    /// One message and two commits; how long until it was there and both had committed, and the acknowledgement behind them.
    pub fn once(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let job = Job {
            tenant: TenantId::new(Uuid::from_u128(1)),
            execution: ExecutionId::new(Uuid::from_u128(2)),
        };
        self.rows.ask("EXECUTE bump")?;
        let found = self.runtime.block_on(async {
            self.queue.push(Priority::P0, &job).await?;
            self.queue.read(&self.consumer, TIMEOUT, 1).await
        })?;
        self.rows.ask("EXECUTE bump")?;
        let took = began.elapsed();
        let delivery = found.first().context("no message")?;
        self.runtime.block_on(self.queue.ack(delivery))?;
        Ok(took)
    }
}

/// How many a second `count` side by side bring through.
pub(super) fn rate(engine: &Engine, count: usize, span: Duration) -> Result<f64> {
    let all: Result<Vec<Bare>> = (0..count).map(|number| Bare::start(engine, number)).collect();
    let began = Instant::now();
    let done: Arc<std::sync::atomic::AtomicU64> = Arc::default();
    let threads: Vec<_> = all?
        .into_iter()
        .map(|mut bare| {
            let done = Arc::clone(&done);
            std::thread::spawn(move || -> Result<()> {
                while began.elapsed() < span {
                    bare.once()?;
                    done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        let ended = thread.join();
        ensure!(matches!(ended, Ok(Ok(()))), "the bare queue failed: {ended:?}");
    }
    let done = done.load(std::sync::atomic::Ordering::Relaxed);
    Ok(done as f64 / began.elapsed().as_secs_f64())
}
