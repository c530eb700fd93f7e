//! A fault run of the execution engine: clients submit and cancel, workers are killed and stopped at chosen states, Redis is
//! emptied and stalled, PostgreSQL is restarted, two workers have a wrong clock; afterwards the history is judged. What is
//! done comes from a seed. Knows what can be done to an engine, not what must come of it ([`crate::history`]).

mod clients;
mod injector;
mod report;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use gatehouse_contract::Tier;
use gatehouse_execution::ExecutionState;
use serde_json::json;
use uuid::Uuid;

pub use self::report::Report;
use crate::{
    engine::{Engine, PATIENCE, Plan, worker::Driver},
    env,
    history::{self, History, Sample, check::check, plant},
    wait,
};

/// What is done.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Of everything that is chosen.
    pub seed: u64,
    /// How many are submitted at the least; more where faults take longer.
    pub executions: usize,
    /// How many kills are aimed at each state of the table.
    pub rounds: usize,
    /// What runs agents.
    pub driver: Driver,
}

impl Run {
    /// What workers are told of it.
    fn members(self) -> serde_json::Value {
        match self.driver {
            Driver::Sim => json!({}),
            // Each is a sandbox: as many as two processors carry.
            Driver::Runsc => json!({"concurrency": 2}),
        }
    }
}

/// Wall clocks of the workers beside the machine's, in seconds (edge case 12).
const SKEWS: [i64; 3] = [0, 600, -600];
/// One tenant each: the first's limit is always in the way, the last's never.
const TIERS: [Tier; 3] = [Tier::Free, Tier::Free, Tier::Pro];
/// Between two counts of the observer.
const LOOK: Duration = Duration::from_millis(40);
/// A kill hit a state that was come into at most so long before.
const FRESH_US: i64 = 250_000;

/// The same numbers for the same seed (xorshift).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// One of `from..to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        from + self.0 % (to - from).max(1)
    }

    pub(crate) fn pick<'t, T>(&mut self, all: &'t [T]) -> Option<&'t T> {
        let at = self.between(0, u64::try_from(all.len()).ok()?);
        all.get(usize::try_from(at).ok()?)
    }
}

/// Makes the run and judges it.
///
/// # Errors
/// The run itself could not be made; what is wrong with the engine is in the report.
pub fn play(run: Run) -> Result<Report> {
    let began = Instant::now();
    let mut engine = Engine::start(Plan { durable: false, tiers: &TIERS })?;
    if run.driver == Driver::Runsc {
        engine.publish(&env::path(env::AGENT)?)?;
    }
    for skew_s in SKEWS {
        engine.worker(run.driver, &run.members(), skew_s)?;
    }
    let limits = limits(&engine)?;
    let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let observer = observe(&engine, Arc::clone(&stop), Arc::clone(&counts));
    let clients = clients::Clients::start(&engine, run);
    let injected = injector::inject(&mut engine, run, &clients);
    let told = clients.finish(&engine);
    let ended = settled(&engine);
    stop.store(true, Ordering::Relaxed);
    drop(observer.join());
    let (kills, faults) = injected?;
    let told = told?;
    let read = |sql: &str| engine.postgres.ask("gatehouse", sql);
    let runs = match run.driver {
        Driver::Runsc => None,
        Driver::Sim => {
            let mut notes = Vec::new();
            for worker in &engine.workers {
                notes.append(&mut history::notes(&worker.name, &worker.journal()?)?);
            }
            Some(notes)
        }
    };
    let history = History {
        submitted: told.submitted,
        cancelled: told.cancelled,
        runs,
        rows: history::rows(&read(history::ROWS)?)?,
        events: history::events(&read(history::EVENTS)?)?,
        limits,
        samples: std::mem::take(&mut *counts.lock().unwrap_or_else(PoisonError::into_inner)),
        kills,
    };
    let report = Report {
        run,
        took: began.elapsed(),
        findings: check(&history),
        missed: plant::missed(&history),
        coverage: history.coverage(FRESH_US),
        transitions: history.transitions(),
        faults,
        history,
        unsettled: ended.err().map(|error| format!("{error:#}")),
    };
    if !report.is_good() {
        eprintln!("logs are in {}", engine.keep().display());
    }
    Ok(report)
}

/// How many of each tenant may run at once, as the tiers say.
fn limits(engine: &Engine) -> Result<BTreeMap<Uuid, u64>> {
    let of = |tier| match tier {
        Tier::Free => 10,
        Tier::Pro => 100,
        Tier::Enterprise => 1000,
    };
    // Else the day's executions of a free tenant would end the run early.
    let more = "UPDATE tenant_quotas SET max_executions_per_day = 1000000";
    engine.postgres.ask("gatehouse", more).context("the day's executions")?;
    Ok(engine
        .tenants
        .iter()
        .zip(TIERS)
        .map(|(t, tier)| (t.op.tenant.as_uuid(), of(tier)))
        .collect())
}

/// Counts who runs, again and again: what the database itself says at an instant.
fn observe(
    engine: &Engine,
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<Vec<Sample>>>,
) -> std::thread::JoinHandle<()> {
    let mut observer = engine.postgres.observer();
    std::thread::spawn(move || {
        let sql = "SELECT tenant_id, count(*) FROM executions WHERE state = 'running' GROUP BY 1";
        while !stop.load(Ordering::Relaxed) {
            let next = Instant::now() + LOOK;
            // The database is away now and then: that is what is tried.
            let answer = observer.ask(sql).unwrap_or_default();
            let sample = |line: &str| {
                let (tenant, running) = line.split_once('|')?;
                Some(Sample { tenant: tenant.parse().ok()?, running: running.parse().ok()? })
            };
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.extend(answer.lines().filter_map(sample));
            drop(counts);
            wait::until_instant(next);
        }
    })
}

/// Waits until everything has ended.
fn settled(engine: &Engine) -> Result<()> {
    let open: Vec<&str> = ExecutionState::ALL
        .into_iter()
        .filter(|state| !state.is_settled())
        .map(ExecutionState::as_str)
        .collect();
    let sql = format!(
        "SELECT state, count(*) FROM executions WHERE state IN ('{}') GROUP BY 1",
        open.join("', '")
    );
    let mut observer = engine.postgres.observer();
    wait::until("every execution has ended", PATIENCE, || {
        let left = observer.ask(&sql)?;
        anyhow::ensure!(left.is_empty(), "{}", left.replace('\n', ", "));
        Ok(Some(()))
    })
}
