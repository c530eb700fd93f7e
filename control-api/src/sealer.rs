//! Seals the audit: chains each tenant's rows and signs the head, a second after they were written. One process leads, by
//! an advisory lock; the others wait for their turn. A chain whose end is not as it was signed is not extended.
//! Knows no route; what is hashed is `gatehouse_audit`'s.

pub mod status;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gatehouse_audit::{Digest, HEAD_TYPE, MAX_SEAL_ROWS, Seal};
use gatehouse_authn::KeySet;
use gatehouse_contract::TenantId;
use gatehouse_service::{Shutdown, exit::chain};
use gatehouse_store::{
    Error as StoreError, Job, Store,
    relay::Leadership,
    seals::{StoredSeal, Unsealed},
};
use serde_json::json;
use tracing::{debug, error, info, warn};

use self::status::{Stand, Status};
use crate::{
    clock,
    keyring::{self, Keyring},
};

/// How often it looks for rows: no row waits longer for its seal, unless a transaction before it still runs.
const EVERY: Duration = Duration::from_secs(1);
/// How many rows at once, each perhaps a tenant's only one and a signature.
const ROWS: u32 = 1000;
/// How long a sign of life of the lead may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why sealing ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the audit")]
    Store(#[from] StoreError),
    #[error("the signing key")]
    Key(#[from] keyring::Error),
    #[error("signing a head")]
    Sign,
    #[error("the chain of tenant {tenant} was tampered with: {why}")]
    Broken { tenant: TenantId, why: String },
}

/// The task.
pub struct Sealer {
    store: Store,
    keyring: Arc<Keyring>,
    issuer: String,
    status: Arc<Status>,
}

impl Sealer {
    /// A sealer whose heads `issuer` signs.
    pub const fn new(
        store: Store,
        keyring: Arc<Keyring>,
        issuer: String,
        status: Arc<Status>,
    ) -> Self {
        Self { store, keyring, issuer, status }
    }

    /// Runs until the shutdown.
    pub async fn run(self, shutdown: Shutdown) {
        let mut failing = false;
        while !shutdown.is_requested() {
            let mut sealed = false;
            let ended = tokio::select! {
                ended = self.lead(&mut sealed) => ended,
                () = shutdown.requested() => break,
            };
            failing &= !sealed;
            match ended {
                Ok(()) => self.status.is(Stand::Follows),
                Err(problem @ Error::Broken { .. }) => {
                    self.status.is(Stand::Broken);
                    if !failing {
                        error!(error = %chain(&problem), "the audit is not sealed: see docs/audit.md");
                    }
                    failing = true;
                }
                Err(problem) => {
                    self.status.is(Stand::Follows);
                    if failing {
                        debug!(error = %chain(&problem), "the audit is still not sealed from here");
                    } else {
                        warn!(error = %chain(&problem), "the audit is not sealed: trying again");
                    }
                    failing = true;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = shutdown.requested() => break,
            }
        }
    }

    /// Leads as long as it can; at once over when another process does. `sealed` is set once a round went through.
    async fn lead(&self, sealed: &mut bool) -> Result<(), Error> {
        let Some(mut lead) = self.store.lead_sealer().await? else { return Ok(()) };
        info!("this process seals the audit");
        let ended = self.seal_on(&mut lead, sealed).await;
        if let Err(error) = lead.give_up().await {
            debug!(error = %chain(&error), "the lead ended with its connection");
        }
        ended
    }

    async fn seal_on(&self, lead: &mut Leadership, sealed: &mut bool) -> Result<(), Error> {
        loop {
            lead.still_held(PATIENCE).await?;
            let more = self.round().await?;
            *sealed = true;
            self.status.is(Stand::Leads);
            if !more {
                tokio::time::sleep(EVERY).await;
            }
        }
    }

    /// Seals what there is, at most [`ROWS`]; returns whether there may be more.
    #[expect(clippy::disallowed_methods, reason = "the sealer is a job; no request leads here")]
    async fn round(&self) -> Result<bool, Error> {
        let mut tx = self.store.system(Job::Sealer).await?;
        let found = tx.unsealed(ROWS).await?;
        if found.is_empty() {
            return Ok(false);
        }
        let keys = self.keyring.keys().await?;
        let more = found.len() >= usize::try_from(ROWS).unwrap_or(usize::MAX);
        let mut tenants: BTreeMap<TenantId, Vec<Unsealed>> = BTreeMap::new();
        for row in found {
            tenants.entry(row.row.tenant).or_default().push(row);
        }
        let mut written = Vec::new();
        for (tenant, rows) in tenants {
            let mut last = tx.last_seal(tenant).await?;
            if let Some(last) = &last {
                self.as_signed(last, &keys.set).await?;
            }
            for rows in rows.chunks(MAX_SEAL_ROWS) {
                let Some(newest) = rows.last() else { continue };
                let seal = next(tenant, last.as_ref().map(|last| &last.seal), rows);
                let head = json!(seal.head(&self.issuer));
                let head = keys.signer.sign(HEAD_TYPE, &head).map_err(|_| Error::Sign)?;
                tx.insert_seal(&seal, &head, newest).await?;
                written.push(rows.len());
                last = Some(StoredSeal { hash: seal.hash(), seal, head });
            }
        }
        tx.commit().await?;
        written.into_iter().for_each(|rows| self.status.sealed(rows));
        Ok(more)
    }

    /// Whoever changed the end of a chain does not get what follows it signed by us.
    async fn as_signed(&self, last: &StoredSeal, published: &KeySet) -> Result<(), Error> {
        judge(&self.store, last, published)
            .await?
            .map_err(|why| Error::Broken { tenant: last.seal.tenant, why })
    }
}

/// Whether a stored seal is what was signed of it; the inner error says what is wrong with it.
pub async fn judge(
    store: &Store,
    stored: &StoredSeal,
    published: &KeySet,
) -> Result<Result<(), String>, Error> {
    let seal = &stored.seal;
    if stored.hash != seal.hash() {
        return Ok(Err(format!("seal {} does not have its hash", seal.seq)));
    }
    let retired;
    let keys = match key_of(&stored.head) {
        Some(kid) if !published.has(&kid) => match store.lookup().verifying_key(&kid).await? {
            Some(jwk) => {
                let set = json!({"keys": [jwk]}).to_string();
                retired = KeySet::parse(set.as_bytes()).map_err(keyring::Error::from)?;
                &retired
            }
            None => return Ok(Err(format!("nobody knows the key that signed seal {}", seal.seq))),
        },
        _ => published,
    };
    Ok(match gatehouse_audit::head(keys, &stored.head, seal.tenant) {
        Ok(head) if head == seal.head(&head.iss) => Ok(()),
        Ok(_) => Err(format!("the head of seal {} says something else of it", seal.seq)),
        Err(why) => Err(format!("the head of seal {} is not good: {why}", seal.seq)),
    })
}

/// The `kid` of a head.
pub fn key_of(head: &str) -> Option<String> {
    let parsed = gatehouse_authn::jws::parse(head.as_bytes()).ok()?;
    parsed.header().key_id.clone()
}

fn next(tenant: TenantId, last: Option<&Seal>, rows: &[Unsealed]) -> Seal {
    let count = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    let now = clock::since_epoch(clock::now()).as_secs();
    Seal {
        prev: last.map_or(Digest::ZERO, Seal::hash),
        rows: rows.iter().map(|found| (found.row.id, found.row.hash())).collect(),
        // Never back, though the clock may be set.
        sealed_at: last.map_or(now, |last| last.sealed_at.max(now)),
        seq: last.map_or(0, |last| last.seq).saturating_add(1),
        tenant,
        total: last.map_or(0, |last| last.total).saturating_add(count),
    }
}
