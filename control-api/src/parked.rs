//! `events`: what was put aside because it cannot be published: told, tried again, or given up. Runs beside the service.
//! Knows no payload: what an event says is nobody's business here.

use std::path::Path;

use gatehouse_service::{Stop, exit::chain};
use gatehouse_store::{
    Error, Store,
    publisher::{Parked, Publishing},
};
use serde_json::json;
use uuid::Uuid;

use crate::{config, routes::timestamp, serve};

/// The most that is told at once, the oldest first.
const SHOWN: u32 = 1000;

/// What to do.
#[derive(Debug, Clone, Copy)]
pub enum What {
    Tell,
    Retry,
    Drop(Uuid),
}

/// Runs the command.
pub async fn run(path: &Path, what: What) -> Result<(), Stop> {
    let config = config::load(path)?;
    if config.database.system.is_none() {
        let missing = "$.database.system: missing; events are reached through it";
        return Err(Stop::usage(vec![missing.to_owned()]));
    }
    let store = serve::open(&config.database).await?;
    let done = act(&store, what).await;
    store.close().await;
    done.map_err(|error| match error.is_unavailable() {
        true => Stop::unavailable(format!("$.database: {}", chain(&error))),
        false => Stop::software(&error),
    })?
}

#[expect(clippy::disallowed_methods, reason = "a command of the operator's; no request leads here")]
async fn open(store: &Store) -> Result<Publishing, Error> {
    store.publishing().await
}

async fn act(store: &Store, what: What) -> Result<Result<(), Stop>, Error> {
    let mut tx = open(store).await?;
    match what {
        What::Tell => {
            for one in tx.parked(SHOWN).await? {
                println!("{}", told(&one));
            }
        }
        What::Retry => {
            let events = tx.retry().await?;
            tx.commit().await?;
            println!("{}", json!({"retried": events}));
        }
        What::Drop(event) => {
            if !tx.drop(event).await? {
                let missing =
                    format!("--drop: no event {event} was put aside; without it they are listed");
                return Ok(Err(Stop::usage(vec![missing])));
            }
            tx.commit().await?;
            println!("{}", json!({"dropped": event}));
        }
    }
    Ok(Ok(()))
}

fn told(one: &Parked) -> serde_json::Value {
    json!({
        "event": one.event_id,
        "tenant": one.tenant_id,
        "subject": format!("{}/{}", one.aggregate_kind, one.aggregate_id),
        "sequence": one.seq,
        "kind": one.kind,
        "why": one.reason,
        "parked_at": timestamp(one.parked_at),
        "behind": one.behind,
    })
}
