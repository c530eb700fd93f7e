//! Carries changes from the outbox to the feed in Redis, which the sidecars read. One process leads, by an advisory lock;
//! the others wait for their turn. Says once a second that the feed is complete, and says nothing while it cannot know.
//! Knows no route, and nothing of what a change means.

mod carry;
pub mod status;

use std::{sync::Arc, time::Duration};

use gatehouse_redis_kit::{Address, cred, feed, link};
use gatehouse_service::{Shutdown, exit::chain};
use gatehouse_store::{Store, relay::Leadership};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use self::status::Status;

/// How often the feed is said to be complete; sidecars take 5 s without it for silence.
const BEAT: Duration = Duration::from_secs(1);
/// How long one operation in Redis, or a sign of life of the lead, may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// After a failure, and between two attempts to lead.
const RETRY: Duration = Duration::from_millis(500);
/// How often it is measured what waits.
const WATCH: Duration = Duration::from_secs(2);
/// How often what was carried is forgotten, and how much at once.
const PRUNE: Duration = Duration::from_secs(10);
const PRUNE_ROWS: u32 = 5000;
/// What was carried stays for this long, for whoever looks into what happened.
const KEEP: Duration = Duration::from_secs(600);

/// Why carrying ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the outbox")]
    Store(#[from] gatehouse_store::Error),
    #[error("the feed")]
    Feed(#[from] feed::Error),
    #[error("the projection of keys")]
    Keys(#[from] link::Error),
}

/// The task.
pub struct Relay {
    store: Store,
    feed: feed::Writer,
    keys: cred::Keys,
    status: Arc<Status>,
}

impl Relay {
    /// A relay to the Redis at `address`.
    pub fn new(store: Store, address: &Address, status: Arc<Status>) -> Result<Self, link::Error> {
        let feed = feed::Writer::new(address, PATIENCE)?;
        let keys = cred::Keys::new(address, PATIENCE)?;
        Ok(Self { store, feed, keys, status })
    }

    /// Runs until the shutdown.
    pub async fn run(self, shutdown: Shutdown) {
        tokio::join!(self.keep_leading(&shutdown), self.watch(&shutdown));
    }

    /// Measures what waits, whoever leads: nobody may.
    async fn watch(&self, shutdown: &Shutdown) {
        while !shutdown.is_requested() {
            match self.backlog().await {
                Ok(waits) => self.status.waits(Some(waits)),
                Err(error) => {
                    self.status.waits(None);
                    debug!(error = %chain(&error), "the backlog is not known");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(WATCH) => {}
                () = shutdown.requested() => break,
            }
        }
    }

    async fn keep_leading(&self, shutdown: &Shutdown) {
        let mut failing = false;
        while !shutdown.is_requested() {
            let mut carried = false;
            let ended = tokio::select! {
                ended = self.lead(&mut carried) => ended,
                () = shutdown.requested() => break,
            };
            self.status.follows();
            failing &= !carried;
            match ended {
                Ok(()) => {}
                Err(error) if failing => debug!(error = %chain(&error), "still no feed from here"),
                Err(error) => {
                    failing = true;
                    warn!(error = %chain(&error), "the feed cannot be written: trying again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = shutdown.requested() => break,
            }
        }
        self.status.follows();
    }

    /// Leads as long as it can; at once over when another process does. `carried` is set once the feed is whole.
    async fn lead(&self, carried: &mut bool) -> Result<(), Error> {
        let Some(mut lead) = self.store.lead_relay().await? else { return Ok(()) };
        info!("this process writes the feed");
        let ended = self.carry(&mut lead, carried).await;
        // Whoever can reach what we cannot leads next; the connection's end gives the lead up in any case.
        if let Err(error) = lead.give_up().await {
            debug!(error = %chain(&error), "the lead ended with its connection");
        }
        ended
    }

    async fn carry(&self, lead: &mut Leadership, carried: &mut bool) -> Result<(), Error> {
        // Listening comes first: what is committed from here on wakes us.
        let mut listener = self.store.outbox_listener().await?;
        let (mut beaten, mut pruned) = (None::<Instant>, Instant::now());
        loop {
            lead.still_held(PATIENCE).await?;
            let stands = self.drain().await?;
            if beaten.is_none_or(|at| at.elapsed() >= BEAT) {
                match self.feed.beat(&stands.epoch, stands.sequence).await {
                    Ok(()) => {
                        beaten = Some(Instant::now());
                        *carried = true;
                        self.status.beat();
                    }
                    // Redis came back without what it had: the next round begins anew.
                    Err(feed::Error::Elsewhere(_)) => {
                        self.begin().await?;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if pruned.elapsed() >= PRUNE {
                self.prune().await?;
                pruned = Instant::now();
            }
            let due = beaten.map_or(Duration::ZERO, |at| BEAT.saturating_sub(at.elapsed()));
            listener.wait(due).await?;
        }
    }
}
