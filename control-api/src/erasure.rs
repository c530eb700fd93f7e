//! Carries out what was asked for: a tenant that is deleted loses its rows, batch by batch, and its key. Every process may:
//! the row of an erasure is locked, and whoever comes second finds less to do.
//! Knows no route, and no table.

use std::time::Duration;

use gatehouse_service::{Shutdown, exit::chain};
use gatehouse_store::{Error, Job, Store};
use tracing::{debug, info, warn};

use crate::cache::Cache;

/// How often it looks for tenants to erase.
const EVERY: Duration = Duration::from_secs(2);
/// How many at once, and rows in one transaction.
const TENANTS: u32 = 16;
const ROWS: u32 = 2000;

/// Runs until the shutdown.
pub async fn run(store: Store, cache: Cache, shutdown: Shutdown) {
    let mut failing = false;
    while !shutdown.is_requested() {
        let done = tokio::select! {
            done = round(&store, &cache) => done,
            () = shutdown.requested() => break,
        };
        match done {
            Ok(()) => failing = false,
            Err(error) if failing => debug!(error = %chain(&error), "still no erasure"),
            Err(error) => {
                failing = true;
                warn!(error = %chain(&error), "an erasure cannot go on: trying again");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.requested() => break,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "erasing is a job; no request leads here")]
async fn round(store: &Store, cache: &Cache) -> Result<(), Error> {
    let mut tx = store.system(Job::Erasure).await?;
    let tenants = tx.to_erase(TENANTS).await?;
    tx.commit().await?;
    for tenant in tenants {
        loop {
            let mut tx = store.system(Job::Erasure).await?;
            let more = tx.erase(tenant, ROWS).await?;
            tx.commit().await?;
            if !more {
                break;
            }
            info!(tenant.id = %tenant, "an erasure goes on");
        }
        store.forget_key(tenant);
        // Until the erasure is finished each round does it again: what was being read when it began may have come after.
        match cache.erase(tenant).await {
            Ok(0) => {}
            Ok(keys) => {
                info!(tenant.id = %tenant, keys, "what Redis remembered of a tenant is gone")
            }
            // It ends by itself in five minutes.
            Err(error) => debug!(error = %chain(&error), "what Redis remembers stays for now"),
        }
    }
    Ok(())
}
