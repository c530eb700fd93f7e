//! One step of the relay each: take what waits, begin a feed, forget what was carried. Every step is one transaction in
//! which the feed's state is locked, so that two relays that both believe to lead take turns. A step that fails between
//! Redis and its commit is done again, or answered with a new epoch: changes are idempotent.
//! Knows nothing of when a step is due.

use std::time::Duration;

use gatehouse_contract::{ApiKeyId, sidecar::Change};
use gatehouse_redis_kit::{cred::Projected, feed};
use gatehouse_store::{
    Job, SystemTx,
    relay::{FeedState, ProjectedKey, Waiting},
};
use tracing::{error, info};
use uuid::Uuid;

use super::{Error, KEEP, PRUNE_ROWS, Relay};
use crate::random;

/// Changes of one step.
const BATCH: u32 = 200;
/// Keys that are projected at once.
const PAGE: u32 = 500;

impl Relay {
    /// Publishes until nothing waits; where the feed stands then.
    pub(super) async fn drain(&self) -> Result<FeedState, Error> {
        loop {
            let mut tx = self.open().await?;
            let stands = tx.feed_state().await?;
            if stands.epoch.is_empty() {
                drop(tx);
                self.begin().await?;
                continue;
            }
            let waiting = tx.waiting(BATCH).await?;
            if waiting.is_empty() {
                return Ok(stands);
            }
            match self.publish(&mut tx, &stands, &waiting).await {
                Ok(()) => tx.commit().await?,
                Err(Error::Feed(feed::Error::Elsewhere(_))) => {
                    drop(tx);
                    self.begin().await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the relay is a job; no request leads here")]
    async fn open(&self) -> Result<SystemTx, Error> {
        Ok(self.store.system(Job::Relay).await?)
    }

    async fn publish(
        &self,
        tx: &mut SystemTx,
        stands: &FeedState,
        waiting: &[Waiting],
    ) -> Result<(), Error> {
        let mut changes = Vec::with_capacity(waiting.len());
        for row in waiting {
            match &row.change {
                Some(change) => changes.push(change.clone()),
                None if row.purge => {}
                // Of another version. To wait for it would hold up every revocation behind it.
                None => {
                    error!(outbox.id = row.id, "a change that this build does not know is left out")
                }
            }
        }
        self.project(tx, &changes).await?;
        let sequence = self.feed.publish(&stands.epoch, stands.sequence, &changes).await?;
        let ids: Vec<i64> = waiting.iter().map(|row| row.id).collect();
        tx.mark_relayed(&ids).await?;
        // Everything is to be forgotten: the next round begins another feed, under which nothing was remembered.
        let state = match waiting.iter().any(|row| row.purge) {
            true => FeedState { epoch: String::new(), sequence: 0 },
            false => FeedState { epoch: stands.epoch.clone(), sequence },
        };
        tx.set_feed_state(&state).await?;
        self.status.published(changes.len());
        Ok(())
    }

    /// The projection of a key is as the record has it before its change can be read.
    async fn project(&self, tx: &mut SystemTx, changes: &[Change]) -> Result<(), Error> {
        let mut ids: Vec<Uuid> = Vec::new();
        for change in changes {
            if let Change::Credential { credential } = change
                && let Ok(id) = credential.parse::<ApiKeyId>()
            {
                ids.push(id.as_uuid());
            }
        }
        if ids.is_empty() {
            return Ok(());
        }
        let live = tx.keys(&ids).await?;
        self.keys.put_all(&live.iter().map(projected).collect::<Vec<_>>()).await?;
        for id in ids.into_iter().map(ApiKeyId::new) {
            // Ended, or another kind of credential.
            if !live.iter().any(|key| key.id == id) {
                self.keys.remove(id).await?;
            }
        }
        Ok(())
    }

    /// Begins a new epoch: the deny list and every key from the record. Until the next heartbeat the feed is silent.
    pub(super) async fn begin(&self) -> Result<(), Error> {
        let mut tx = self.open().await?;
        let before = tx.feed_state().await?;
        // Another relay may have begun it while we waited for our turn.
        let found = self.feed.state().await?;
        if found.epoch.as_deref() == Some(&before.epoch) && found.sequence == before.sequence {
            return Ok(());
        }
        let epoch = random::id().to_string();
        let denied = tx.deny_list().await?;
        self.feed.begin(&epoch, &denied).await?;
        let (mut after, mut count) = (None, 0);
        loop {
            let page = tx.live_keys(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            count += page.len();
            self.keys.put_all(&page.iter().map(projected).collect::<Vec<_>>()).await?;
        }
        self.keys.complete(&epoch).await?;
        tx.set_feed_state(&FeedState { epoch: epoch.clone(), sequence: 0 }).await?;
        tx.commit().await?;
        self.status.began();
        info!(feed.epoch = epoch, denied = denied.len(), keys = count, "a new feed begins");
        Ok(())
    }

    /// How many changes wait, and how long the oldest has.
    pub(super) async fn backlog(&self) -> Result<(u64, Duration), Error> {
        Ok(self.open().await?.backlog().await?)
    }

    pub(super) async fn prune(&self) -> Result<(), Error> {
        let mut tx = self.open().await?;
        tx.prune(KEEP, PRUNE_ROWS).await?;
        tx.commit().await?;
        Ok(())
    }
}

fn projected(key: &ProjectedKey) -> (ApiKeyId, Projected) {
    let projected = Projected {
        tenant: key.tenant,
        pepper_id: key.mark.pepper_id.clone(),
        hmac: key.mark.hmac,
        expires_at_s: key.expires_at_s,
    };
    (key.id, projected)
}
