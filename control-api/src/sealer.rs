//! Seals the audit: chains each tenant's rows and signs the head, a second after they were written. One process leads, by
//! an advisory lock; the others wait for their turn. A chain whose end is not as it was signed is not extended, and no other
//! waits for it.
//! Knows no route; what is hashed is `gatehouse_audit`'s.

pub mod status;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gatehouse_audit::{Digest, HEAD_TYPE, MAX_SEAL_ROWS, Seal};
use gatehouse_authn::KeySet;
use gatehouse_contract::TenantId;
use gatehouse_service::{Shutdown, exit::chain};
use gatehouse_store::{
    Error as StoreError, Job, Store, SystemTx,
    relay::Leadership,
    seals::{StoredSeal, Unsealed},
};
use serde_json::json;
use tracing::{debug, error, info, warn};

use self::status::{Stand, Status};
use crate::{
    clock,
    keyring::{self, Keyring, Keys},
};

/// How often it looks for rows: with a round's own time no row waits longer than a second for its seal (specification
/// NUM-033), unless a transaction before it still runs.
const EVERY: Duration = Duration::from_millis(700);
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
                Err(problem) => {
                    self.status.is(Stand::Failing);
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

    /// Seals what there is, at most [`ROWS`]; returns whether there may be more. A tenant whose chain is not as it was
    /// signed is left out until it is, and all others are sealed.
    #[expect(clippy::disallowed_methods, reason = "the sealer is a job; no request leads here")]
    async fn round(&self) -> Result<bool, Error> {
        let mut tx = self.store.system(Job::Sealer).await?;
        let mut written = Vec::new();
        let mut broken = tx.breaks().await?;
        let before = broken.len();
        if before > 0 {
            let keys = self.keyring.keys().await?;
            let mut still = Vec::new();
            for tenant in broken {
                let mended = self.mend(&mut tx, &keys, tenant, &mut written).await?;
                still.extend((!mended).then_some(tenant));
            }
            broken = still;
        }
        let mended = before - broken.len();
        let found = tx.unsealed(ROWS).await?;
        let more = found.len() >= usize::try_from(ROWS).unwrap_or(usize::MAX);
        let mut left_out = 0;
        if !found.is_empty() {
            let keys = self.keyring.keys().await?;
            let mut tenants: BTreeMap<TenantId, Vec<Unsealed>> = BTreeMap::new();
            for row in found {
                tenants.entry(row.row.tenant).or_default().push(row);
            }
            for (tenant, rows) in tenants {
                match self.chained(&mut tx, &keys, tenant).await? {
                    Ok(last) => self.seal(&mut tx, &keys, last, &rows, &mut written).await?,
                    Err(why) => {
                        error!(tenant.id = %tenant, why, "a chain was tampered with and is not extended: see docs/audit.md");
                        tx.leave_out(tenant, &why).await?;
                        left_out += 1;
                    }
                }
            }
        }
        // What was neither read nor written needs no commit.
        if !written.is_empty() || mended > 0 || left_out > 0 {
            tx.commit().await?;
        }
        written.into_iter().for_each(|rows| self.status.sealed(rows));
        self.status.left_out(broken.len() + left_out);
        Ok(more)
    }

    /// The end of a tenant's chain; the inner error says what is wrong with it.
    async fn chained(
        &self,
        tx: &mut SystemTx,
        keys: &Keys,
        tenant: TenantId,
    ) -> Result<Result<Option<StoredSeal>, String>, Error> {
        let last = match tx.last_seal(tenant).await {
            Ok(last) => last,
            Err(StoreError::Unreadable { .. }) => {
                return Ok(Err("its last seal is none".to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        let Some(last) = last else { return Ok(Ok(None)) };
        Ok(judge(&self.store, &last, &keys.set).await?.map(|()| Some(last)))
    }

    /// Seals what a tenant that was left out has waiting, where its chain is as it was; returns whether that is all.
    async fn mend(
        &self,
        tx: &mut SystemTx,
        keys: &Keys,
        tenant: TenantId,
        written: &mut Vec<usize>,
    ) -> Result<bool, Error> {
        let Ok(last) = self.chained(tx, keys, tenant).await? else { return Ok(false) };
        let rows = tx.left_out(tenant, ROWS).await?;
        let all = rows.len() < usize::try_from(ROWS).unwrap_or(usize::MAX);
        self.seal(tx, keys, last, &rows, written).await?;
        if all {
            tx.take_in(tenant).await?;
            info!(tenant.id = %tenant, "a chain is as it was signed again, and sealed");
        }
        Ok(all)
    }

    async fn seal(
        &self,
        tx: &mut SystemTx,
        keys: &Keys,
        mut last: Option<StoredSeal>,
        rows: &[Unsealed],
        written: &mut Vec<usize>,
    ) -> Result<(), Error> {
        for rows in rows.chunks(MAX_SEAL_ROWS) {
            let Some(newest) = rows.last() else { continue };
            let seal = next(newest.row.tenant, last.as_ref().map(|last| &last.seal), rows);
            let head = json!(seal.head(&self.issuer));
            let head = keys.signer.sign(HEAD_TYPE, &head).map_err(|_| Error::Sign)?;
            tx.insert_seal(&seal, &head, newest).await?;
            written.push(rows.len());
            last = Some(StoredSeal { hash: seal.hash(), seal, head });
        }
        Ok(())
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
