//! The clients of a fault run: each submits one execution after the other and keeps its own log of what was accepted. What
//! became of a submit whose answer was lost, it finds out by asking. Knows no worker and no fault.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, bail};
use gatehouse_contract::ExecutionId;
use gatehouse_execution::{
    ExecutionState,
    limits::{Limit, Named},
};
use gatehouse_store::{Error, Store, executions::Terms};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};
use uuid::Uuid;

use super::{Dice, Run};
use crate::{
    engine::{Engine, Tenant, worker::Driver},
    history::Submitted,
};

/// How many there are.
const CLIENTS: u64 = 6;
/// Between two submits of one.
const PACE_MS: (u64, u64) = (40, 120);
/// Between two questions of one that was not answered.
const AGAIN: Duration = Duration::from_millis(300);

/// What the clients say afterwards.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub submitted: Vec<Submitted>,
    pub cancelled: BTreeSet<Uuid>,
}

/// The clients, until they are finished.
pub(super) struct Clients {
    tasks: JoinSet<Result<Told>>,
    enough: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
}

/// What is submitted.
struct Script {
    input: Value,
    terms: Terms,
    ends: ExecutionState,
    /// When its client changes its mind, in milliseconds.
    cancel_after: Option<u64>,
}

impl Clients {
    pub fn start(engine: &Engine, run: Run) -> Self {
        let mut tasks = JoinSet::new();
        let (enough, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for client in 0..CLIENTS {
            let (store, tenants) = (engine.store.clone(), engine.tenants.clone());
            let (enough, accepted) = (Arc::clone(&enough), Arc::clone(&accepted));
            let dice = Dice::new(run.seed.wrapping_mul(1000) + client);
            let going = client_of(store, tenants, dice, run, enough, accepted);
            tasks.spawn_on(going, engine.runtime.handle());
        }
        Self { tasks, enough, accepted }
    }

    /// How many were accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Lets them end, and returns what they say.
    pub fn finish(mut self, engine: &Engine) -> Result<Told> {
        self.enough.store(true, Ordering::Relaxed);
        engine.runtime.block_on(async {
            let mut all = Told::default();
            while let Some(ended) = self.tasks.join_next().await {
                let told = ended??;
                all.submitted.extend(told.submitted);
                all.cancelled.extend(told.cancelled);
            }
            Ok(all)
        })
    }
}

async fn client_of(
    store: Store,
    tenants: Vec<Tenant>,
    mut dice: Dice,
    run: Run,
    enough: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
) -> Result<Told> {
    let (mut told, mut cancels) = (Told::default(), JoinSet::new());
    while !enough.load(Ordering::Relaxed) || accepted.load(Ordering::Relaxed) < run.executions {
        let Some(tenant) = dice.pick(&tenants).cloned() else { bail!("no tenants") };
        let script = script(&mut dice, run.driver);
        let id = ExecutionId::new(Uuid::new_v4());
        submit(&store, &tenant, id, &script).await?;
        told.submitted.push(Submitted { id: id.as_uuid(), ends: script.ends });
        accepted.fetch_add(1, Ordering::Relaxed);
        if let Some(after_ms) = script.cancel_after {
            told.cancelled.insert(id.as_uuid());
            let store = store.clone();
            cancels.spawn(async move {
                sleep(Duration::from_millis(after_ms)).await;
                // Not heard, or heard: both are an end that a client who asked for it may see.
                drop(tenant.cancel(&store, id).await);
            });
        }
        sleep(Duration::from_millis(dice.between(PACE_MS.0, PACE_MS.1))).await;
    }
    while cancels.join_next().await.is_some() {}
    Ok(told)
}

/// Until it is known to be accepted. A commit whose answer was lost is found by its id.
async fn submit(store: &Store, tenant: &Tenant, id: ExecutionId, script: &Script) -> Result<()> {
    loop {
        let answer = tenant.submit(store, id, script.input.clone(), script.terms.clone()).await;
        match answer {
            Ok(()) => return Ok(()),
            Err(Error::QuotaExceeded { .. }) => sleep(AGAIN).await,
            Err(_) => {
                sleep(AGAIN).await;
                loop {
                    match tenant.has(store, id).await {
                        Ok(true) => return Ok(()),
                        Ok(false) => break,
                        Err(_) => sleep(AGAIN).await,
                    }
                }
            }
        }
    }
}

/// Everything that can become of an execution, the ordinary most often.
fn script(dice: &mut Dice, driver: Driver) -> Script {
    let priority = u8::try_from(dice.between(0, 4)).unwrap_or(1);
    let terms = Terms { priority, ..Terms::default() };
    let cancel_after = (dice.between(0, 100) < 6).then(|| dice.between(0, 600));
    let with = |input: Value, terms: Terms, ends| Script { input, terms, ends, cancel_after };
    if driver == Driver::Runsc {
        return with(json!({"fuel": "diesel", "litres": 1}), terms, ExecutionState::Completed);
    }
    match dice.between(0, 100) {
        0..8 => with(json!({"end": "failed", "ms": 5}), terms, ExecutionState::Failed),
        8..14 => {
            let mut limits = Named::default();
            // One second is within every range of it.
            limits.set(Limit::Timeout, 1).ok();
            with(json!({"end": "timeout"}), Terms { limits, ..terms }, ExecutionState::Timeout)
        }
        14..22 => {
            let terms = Terms { max_attempts: 2, ..terms };
            with(json!({"end": "retry_asked", "ms": 5}), terms, ExecutionState::DeadLetter)
        }
        22..32 => {
            let ms = dice.between(300, 2500);
            with(json!({"ms": ms}), terms, ExecutionState::Completed)
        }
        32..36 => {
            let ms = dice.between(300, 900);
            let input = json!({"ms": ms, "ignores_term": true});
            with(input, terms, ExecutionState::Completed)
        }
        _ => {
            let ms = dice.between(0, 60);
            with(json!({"ms": ms}), terms, ExecutionState::Completed)
        }
    }
}
