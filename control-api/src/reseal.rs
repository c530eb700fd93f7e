//! `reseal`: seals anew, under the first key of the key file, what the others sealed, and what was stored before rows were
//! sealed. Runs beside the service, in batches; a second run does what is left.
//! Knows no table.

use std::path::Path;

use gatehouse_contract::{IssuerId, TenantId, WebhookId};
use gatehouse_service::{Stop, exit::chain};
use gatehouse_store::{Actor, Error, Job, MasterKeys, OpCtx, Store, rekey::Secret};
use serde_json::json;

use crate::{clock, config, federation, keyring, routes::webhooks, serve};

/// At once, in one transaction.
const BATCH: u32 = 200;

/// `reseal`.
pub async fn run(path: &Path) -> Result<(), Stop> {
    let config = config::load(path)?;
    if config.database.system.is_none() {
        return Err(Stop::usage(vec![
            "$.database.system: is missing; write the URL of gatehouse_system there: the job runs as it"
                .to_owned(),
        ]));
    }
    let keys = config.sealer.keys();
    let store = serve::open(&config.database).await?.with_keys(keys.clone());
    let wrapped = until_none("data_keys", async || rewrap(&store, &keys).await).await?;
    let mut secrets = 0;
    for kind in Secret::ALL {
        secrets += until_none("secrets", async || reseal(&store, &keys, *kind).await).await?;
    }
    let rows = rows(&store).await.map_err(stop)?;
    store.close().await;
    println!("{}", json!({"data_keys": wrapped, "secrets": secrets, "rows": rows}));
    Ok(())
}

async fn until_none(
    what: &str,
    mut batch: impl AsyncFnMut() -> Result<u64, Error>,
) -> Result<u64, Stop> {
    let mut all = 0;
    loop {
        let done = batch().await.map_err(stop)?;
        if done == 0 {
            return Ok(all);
        }
        all += done;
        eprintln!("{what}: {all}");
    }
}

#[expect(clippy::disallowed_methods, reason = "a command of the operator's; no request leads here")]
async fn rewrap(store: &Store, keys: &MasterKeys) -> Result<u64, Error> {
    let mut tx = store.system(Job::Rekey).await?;
    let done = tx.rewrap(keys, BATCH).await?;
    tx.commit().await?;
    Ok(done)
}

#[expect(clippy::disallowed_methods, reason = "a command of the operator's; no request leads here")]
async fn reseal(store: &Store, keys: &MasterKeys, kind: Secret) -> Result<u64, Error> {
    let mut tx = store.system(Job::Rekey).await?;
    let old = tx.sealed_before(kind, keys, BATCH).await?;
    for (row, sealed) in &old {
        let unreadable = Error::Unreadable { what: "secret" };
        let name = match kind {
            Secret::SigningKey => keyring::name_of(row),
            Secret::IssuerSecret => {
                let id: IssuerId = row.parse().map_err(|_| unreadable)?;
                federation::secret_name(id)
            }
            Secret::WebhookSecret | Secret::WebhookPreviousSecret => {
                let id: WebhookId = row.parse().map_err(|_| unreadable)?;
                webhooks::secret_name(id)
            }
        };
        let plain = keys.open(&name, sealed).map_err(Error::Locked)?;
        let anew = keys.seal(&name, &plain).map_err(|_| Error::Unreadable { what: "secret" })?;
        tx.reseal(kind, row, sealed, &anew).await?;
    }
    tx.commit().await?;
    Ok(u64::try_from(old.len()).unwrap_or(u64::MAX))
}

#[expect(clippy::disallowed_methods, reason = "a command of the operator's; no request leads here")]
async fn rows(store: &Store) -> Result<u64, Error> {
    let (mut all, mut after) = (0, None::<TenantId>);
    loop {
        let mut tx = store.system(Job::Sealing).await?;
        let tenants = tx.tenants_after(after, BATCH).await?;
        tx.commit().await?;
        let Some(last) = tenants.last() else { return Ok(all) };
        after = Some(*last);
        for tenant in tenants {
            let op = OpCtx {
                tenant,
                subject: "reseal".to_owned(),
                actor: Actor::System,
                request_id: "reseal".to_owned(),
                traceparent: None,
                now: clock::now(),
            };
            loop {
                let mut tx = store.tenant(&op).await?;
                let done = match tx.seal_rows(BATCH).await {
                    // Nothing of it is left to be sealed.
                    Err(Error::Erased) => 0,
                    done => done?,
                };
                tx.commit().await?;
                if done == 0 {
                    break;
                }
                all += done;
                eprintln!("rows: {all}");
            }
        }
    }
}

fn stop(error: Error) -> Stop {
    match error {
        Error::Locked(_) => Stop::refused(format!(
            "$.key_file: {}; add a line with the key that sealed it, below the new one",
            chain(&error)
        )),
        Error::Unavailable(_) => {
            Stop::unavailable(format!("$.database: {}; check that PostgreSQL runs", chain(&error)))
        }
        _ => Stop::software(&error),
    }
}
