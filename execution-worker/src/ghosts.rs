//! Runs that the database believes this worker has, and that nobody here works on: ended because the lease seemed lost while
//! it was not, or claimed by a commit whose answer never came. The worker beats, so that no sweep takes them from it, and a
//! slot would be gone for ever: it gives them back itself.
//! Knows nothing of sandboxes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gatehouse_contract::ExecutionId;
use gatehouse_service::exit::chain;
use gatehouse_store::{Error, Job, sweep::Held};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::{execute::Shared, metrics::GivenUp};

/// How often to look.
const LOOK: Duration = Duration::from_secs(2);

/// Executions that are worked on here: from before the claim until behind the report.
#[derive(Debug, Clone, Default)]
pub struct Working(Arc<Mutex<HashMap<ExecutionId, u32>>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Work(Working, ExecutionId);

impl Working {
    /// Enters one; it may be there already, under an earlier claim.
    pub fn on(&self, id: ExecutionId) -> Work {
        self.with(|all| *all.entry(id).or_default() += 1);
        Work(self.clone(), id)
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<ExecutionId, u32>) -> T) -> T {
        // The map is whole whatever happened to a thread that held the lock.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.with(|all| {
            if let Some(times) = all.get_mut(&self.1) {
                *times -= 1;
                if *times == 0 {
                    all.remove(&self.1);
                }
            }
        });
    }
}

/// Looks until dropped.
pub async fn give_back(shared: Arc<Shared>) {
    loop {
        sleep(LOOK).await;
        if let Err(error) = look(&shared).await {
            debug!(error = %chain(&error), "could not look for runs that nobody works on");
        }
    }
}

async fn look(shared: &Shared) -> Result<(), Error> {
    let mut tx = shared.store.system(Job::Watch).await?;
    let runs = tx.runs_of(&shared.incarnation).await?;
    drop(tx);
    // Asked behind the database: what ended meanwhile is refused under its epoch. A result that is kept leaves the work
    // before it is told, so that the spool is asked last.
    let idle = |held: &Held| shared.working.with(|all| !all.contains_key(&held.execution));
    let ghosts: Vec<Held> = runs.into_iter().filter(idle).collect();
    if ghosts.is_empty() || shared.spool.waiting() > 0 {
        return Ok(());
    }
    for held in ghosts {
        let op = shared.op(held.tenant);
        let mut tx = shared.store.tenant(&op).await?;
        let released = tx.release_execution(held.execution, held.lease_epoch).await?;
        tx.commit().await?;
        if released {
            shared.metrics.given_up(GivenUp::HandedBack);
            warn!(execution.id = %held.execution, epoch = held.lease_epoch, "gave back a run that nobody worked on");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execution_is_worked_on_until_the_last_of_its_claims_is_done() {
        let (working, id) = (Working::default(), ExecutionId::new(uuid::Uuid::from_u128(1)));
        let there = || working.with(|all| all.contains_key(&id));
        assert!(!there());
        let first = working.on(id);
        let second = working.on(id);
        drop(first);
        assert!(there());
        drop(second);
        assert!(!there());
    }
}
