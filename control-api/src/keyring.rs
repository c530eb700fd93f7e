//! The keys in use: the one that signs, opened, and the set that verifies. Read from the store and kept for a few
//! seconds, so that another replica's rotation is seen and a request costs no query.
//! Knows nothing of tokens' contents.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gatehouse_authn::{KeySet, jwks::BadSet};
use gatehouse_contract::TenantId;
use gatehouse_service::exit::chain;
use gatehouse_store::{
    Actor, Error as StoreError, OffsetDateTime, OpCtx, Store, admin::NewSigningKey,
};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    clock,
    config::Tokens,
    seal::{CannotOpen, Sealer},
    token::Signer,
};

/// Kept for this long before the store is asked again.
const FRESH: Duration = Duration::from_secs(5);
/// Used for this long while the store cannot be asked.
const STALE: Duration = Duration::from_secs(300);
/// An unknown `kid` makes us look again, at most this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Beyond its last token's life a retired key stays published for other verifiers' leeway and for replicas that
/// still sign with it: [`FRESH`], rounded up generously.
pub const PUBLISH_SLACK: Duration = Duration::from_secs(120);

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("reading the signing keys")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sealed(#[from] CannotOpen),
    #[error("a stored signing key is not one")]
    Rejected,
    #[error("the published keys are not a key set")]
    Set(#[from] BadSet),
    #[error("there is no signing key")]
    None,
    #[error("making or sealing a key")]
    Make,
}

/// The keys at one time.
pub struct Keys {
    pub signer: Signer,
    pub set: KeySet,
    /// The published document (RFC 7517 §5).
    pub jwks: Value,
    read_at: Instant,
}

pub struct Keyring {
    store: Store,
    sealer: Arc<Sealer>,
    /// Whose tokens the keys sign.
    issuer: String,
    /// How long a key is published before it signs.
    ahead: Duration,
    kept: Mutex<Option<Arc<Keys>>>,
}

impl Keyring {
    pub fn new(store: Store, sealer: Arc<Sealer>, tokens: &Tokens) -> Self {
        let (issuer, ahead) = (tokens.issuer.clone(), tokens.key_publish_ahead);
        Self { store, sealer, issuer, ahead, kept: Mutex::new(None) }
    }

    /// The keys, at most [`FRESH`] old while the store answers.
    pub async fn keys(&self) -> Result<Arc<Keys>, Error> {
        self.at_most(FRESH).await
    }

    /// The keys after a token named one that is not among them.
    pub async fn look_again(&self) -> Result<Arc<Keys>, Error> {
        self.at_most(LOOK_AGAIN).await
    }

    /// One reader at a time: the others wait for its answer and then find it fresh.
    async fn at_most(&self, age: Duration) -> Result<Arc<Keys>, Error> {
        let mut kept = self.kept.lock().await;
        let have = kept.as_ref().map(|keys| (Arc::clone(keys), keys.read_at.elapsed()));
        if let Some((keys, old)) = &have
            && *old < age
        {
            return Ok(Arc::clone(keys));
        }
        match self.read().await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                *kept = Some(Arc::clone(&keys));
                Ok(keys)
            }
            Err(error) => match have {
                Some((keys, old)) if old < STALE => {
                    warn!(error = %chain(&error), "going on with the signing keys we have");
                    Ok(keys)
                }
                _ => Err(error),
            },
        }
    }

    async fn read(&self) -> Result<Keys, Error> {
        let current = self.store.lookup().signing_key().await?.ok_or(Error::None)?;
        let published = self.store.lookup().published_keys().await?;
        let pkcs8 = self.sealer.open(&name_of(&current.kid), &current.sealed_private)?;
        let signer = Signer::from_pkcs8(&pkcs8).map_err(|_| Error::Rejected)?;
        if signer.kid() != current.kid {
            return Err(Error::Rejected);
        }
        let jwks = json!({"keys": published.into_iter().map(|key| key.jwk).collect::<Vec<_>>()});
        let set = KeySet::parse(jwks.to_string().as_bytes())?;
        Ok(Keys { signer, set, jwks, read_at: Instant::now() })
    }

    /// Makes the first key where there is none. Safe beside another replica's start: one of them wins.
    pub async fn ensure(&self) -> Result<(), Error> {
        if self.store.lookup().signing_key().await?.is_some() {
            return self.keys().await.map(drop);
        }
        let (kid, jwk, sealed) = self.make().await?;
        let op = OpCtx {
            tenant: TenantId::new(Uuid::nil()),
            subject: "control-api".to_owned(),
            actor: Actor::System,
            request_id: "start".to_owned(),
            traceparent: None,
            now: clock::now(),
        };
        let new = self.new_key(&kid, &jwk, &sealed);
        let mut tx = self.store.admin(&op, "the first signing key").await?;
        match tx.create_signing_key(&new).await {
            Ok(()) => {
                tx.commit().await?;
                info!(kid, "made the first signing key");
            }
            Err(StoreError::Conflict { .. }) => info!("another replica made the first signing key"),
            Err(error) => return Err(error.into()),
        }
        self.keys().await.map(drop)
    }

    /// Publishes a new key, which signs after the time that verifiers need to learn it; the one before stays published
    /// while its tokens may live. Returns the new `kid` and when it signs.
    pub async fn rotate(
        &self,
        op: &OpCtx,
        reason: &str,
        token_life: Duration,
    ) -> Result<(String, OffsetDateTime), Error> {
        let (kid, jwk, sealed) = self.make().await?;
        let new = self.new_key(&kid, &jwk, &sealed);
        let mut tx = self.store.admin(op, reason).await?;
        let signs_from = op.now + self.ahead;
        tx.rotate_signing_key(&new, signs_from, signs_from + token_life + PUBLISH_SLACK).await?;
        tx.commit().await?;
        *self.kept.lock().await = None;
        info!(kid, ahead_s = self.ahead.as_secs(), "a new key is published");
        Ok((kid, signs_from))
    }

    fn new_key<'k>(&'k self, kid: &'k str, jwk: &'k Value, sealed: &'k [u8]) -> NewSigningKey<'k> {
        NewSigningKey { kid, jwk, sealed_private: sealed, issuer: &self.issuer }
    }

    async fn make(&self) -> Result<(String, Value, Vec<u8>), Error> {
        // A tenth of a second of computing: not on the threads that answer requests.
        let made = tokio::task::spawn_blocking(Signer::generate).await;
        let signer = made.map_err(|_| Error::Make)?.map_err(|_| Error::Make)?;
        let pkcs8 = signer.to_pkcs8().map_err(|_| Error::Make)?;
        let sealed = self.sealer.seal(&name_of(signer.kid()), &pkcs8).map_err(|_| Error::Make)?;
        Ok((signer.kid().to_owned(), signer.jwk(), sealed))
    }
}

/// A sealed key opens as this key and no other.
pub fn name_of(kid: &str) -> String {
    format!("gatehouse/signing-key/{kid}")
}
