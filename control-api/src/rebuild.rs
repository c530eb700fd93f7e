//! `rebuild`: holds every stored agent and execution against what its events add up to, and says which differ.
//! Changes nothing: which of the two is right is for a person to say.

use std::path::Path;

use gatehouse_contract::TenantId;
use gatehouse_events::Aggregate;
use gatehouse_service::{Stop, exit::chain};
use gatehouse_store::{Actor, Error, Job, OpCtx, Store, rebuild::Compared};
use serde_json::json;

use crate::{clock, config, serve};

/// Tenants, and ids of one kind, that are read at once.
const BATCH: u32 = 200;

/// What was found.
#[derive(Debug, Default)]
struct Found {
    same: u64,
    older: u64,
    differ: u64,
}

/// Runs the command.
pub async fn run(path: &Path) -> Result<(), Stop> {
    let config = config::load(path)?;
    if config.database.system.is_none() {
        let missing = "$.database.system: missing; tenants are found through it";
        return Err(Stop::usage(vec![missing.to_owned()]));
    }
    let store = serve::open(&config.database).await?.with_keys(config.sealer.keys());
    let mut found = Found::default();
    let done = check(&store, &mut found).await;
    store.close().await;
    done.map_err(stop)?;
    let Found { same, older, differ } = found;
    println!("{}", json!({"same": same, "older_than_events": older, "differ": differ}));
    if differ > 0 {
        return Err(Stop::refused(format!(
            "{differ} stored states are not what their events add up to: they are on stderr"
        )));
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a command of the operator's; no request leads here")]
async fn check(store: &Store, found: &mut Found) -> Result<(), Error> {
    let mut after = None::<TenantId>;
    loop {
        let mut tx = store.system(Job::Sealing).await?;
        let tenants = tx.tenants_after(after, BATCH).await?;
        tx.commit().await?;
        let Some(last) = tenants.last() else { return Ok(()) };
        after = Some(*last);
        for tenant in tenants {
            let op = OpCtx {
                tenant,
                subject: "rebuild".to_owned(),
                actor: Actor::System,
                request_id: "rebuild".to_owned(),
                traceparent: None,
                now: clock::now(),
            };
            for of in [Aggregate::Agent, Aggregate::Execution] {
                match of_tenant(store, &op, of, found).await {
                    // Nothing of it can be read, and nothing is left that would be.
                    Err(Error::Erased) => {}
                    done => done?,
                }
            }
        }
    }
}

async fn of_tenant(
    store: &Store,
    op: &OpCtx,
    of: Aggregate,
    found: &mut Found,
) -> Result<(), Error> {
    let mut after = None;
    loop {
        let mut tx = store.tenant(op).await?;
        let ids = tx.rebuildable(of, after, BATCH).await?;
        let Some(last) = ids.last() else { return Ok(()) };
        after = Some(*last);
        for id in ids {
            match tx.compare(of, id).await? {
                Compared::Same => found.same += 1,
                Compared::Older => found.older += 1,
                Compared::Differs(places) => {
                    found.differ += 1;
                    let line =
                        json!({"tenant": op.tenant, "kind": of, "id": id, "differs": places});
                    eprintln!("{line}");
                }
            }
        }
    }
}

fn stop(error: Error) -> Stop {
    match error {
        Error::Unavailable(_) => {
            Stop::unavailable(format!("$.database: {}; check that PostgreSQL runs", chain(&error)))
        }
        Error::Locked(_) | Error::NoKeyFile => Stop::refused(format!(
            "$.key_file: {}; use the file that the tenants' keys were sealed with",
            chain(&error)
        )),
        error => Stop::software(&error),
    }
}
