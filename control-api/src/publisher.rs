//! Publishes events: takes them out of their outbox and into Kafka, in order, in one process that leads. A batch is taken,
//! published, and gone when its transaction commits: whoever dies in between has it published again, under the same ids.
//! Where Kafka is away or not configured the outbox keeps everything, and says so.
//! Knows no route, and nothing of what an event means.

pub mod status;

use std::{sync::Arc, time::Duration};

use gatehouse_kafka_kit::{
    Outgoing, Publisher, What,
    publish::{self, Settings},
};
use gatehouse_service::{Shutdown, exit::chain};
use gatehouse_store::{
    Store,
    publisher::{Publishing, Unsent, What as Stored},
    relay::Leadership,
};
use tracing::{debug, info, warn};

use self::status::Status;

/// Events of one step.
const BATCH: u32 = 1000;
/// How long a step may take in Kafka: its transaction is open meanwhile.
const AT_MOST: Duration = Duration::from_secs(5);
/// How often it is looked for events where there were none.
const EVERY: Duration = Duration::from_millis(200);
/// After a failure, and between two attempts to lead.
const RETRY: Duration = Duration::from_millis(500);
/// How long a sign of life of the lead or of a broker may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is measured what waits.
const WATCH: Duration = Duration::from_secs(2);

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the events' outbox")]
    Store(#[from] gatehouse_store::Error),
    #[error("publishing")]
    Kafka(#[from] publish::Error),
}

/// The task.
pub struct Task {
    store: Store,
    /// `None` where it is not configured.
    kafka: Option<Settings>,
    status: Arc<Status>,
}

impl Task {
    /// Nothing is connected yet.
    pub fn new(store: Store, kafka: Option<Settings>, status: Arc<Status>) -> Self {
        Self { store, kafka, status }
    }

    /// Runs until the shutdown.
    pub async fn run(self, shutdown: Shutdown) {
        tokio::join!(self.watch(&shutdown), self.keep_leading(&shutdown));
    }

    /// Measures what waits, whoever leads: nobody may.
    async fn watch(&self, shutdown: &Shutdown) {
        while !shutdown.is_requested() {
            match self.backlog().await {
                Ok(waits) => self.status.waits(Some(waits)),
                Err(error) => {
                    self.status.waits(None);
                    debug!(error = %chain(&error), "it is not known which events wait");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(WATCH) => {}
                () = shutdown.requested() => break,
            }
        }
    }

    async fn backlog(&self) -> Result<(u64, Duration), Error> {
        Ok(self.open().await?.backlog().await?)
    }

    #[expect(clippy::disallowed_methods, reason = "a background job, not an HTTP handler")]
    async fn open(&self) -> Result<Publishing, Error> {
        Ok(self.store.publishing().await?)
    }

    async fn keep_leading(&self, shutdown: &Shutdown) {
        let Some(settings) = &self.kafka else { return };
        let mut failing = false;
        while !shutdown.is_requested() {
            let mut published = false;
            let ended = tokio::select! {
                ended = self.lead(settings, &mut published) => ended,
                () = shutdown.requested() => break,
            };
            failing &= !published;
            match ended {
                Ok(()) => self.status.follows(),
                Err(error) => {
                    self.status.failed();
                    if failing {
                        debug!(error = %chain(&error), "events still cannot be published");
                    } else {
                        warn!(error = %chain(&error), "events cannot be published: they wait");
                    }
                    failing = true;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = shutdown.requested() => break,
            }
        }
        self.status.follows();
    }

    /// Leads as long as it can; at once over when another process does. `published` is set once a step succeeded.
    async fn lead(&self, settings: &Settings, published: &mut bool) -> Result<(), Error> {
        let Some(mut lead) = self.store.lead_publisher().await? else { return Ok(()) };
        let ended = self.publish(&mut lead, settings, published).await;
        if let Err(error) = lead.give_up().await {
            debug!(error = %chain(&error), "the lead ended with its connection");
        }
        ended
    }

    async fn publish(
        &self,
        lead: &mut Leadership,
        settings: &Settings,
        published: &mut bool,
    ) -> Result<(), Error> {
        let mut kafka = Publisher::new(settings.clone())?;
        // No transaction is open while nobody answers.
        kafka.reach(PATIENCE).await?;
        info!("this process publishes events");
        self.status.leads();
        *published = true;
        loop {
            lead.still_held(PATIENCE).await?;
            let mut step = self.open().await?;
            let unsent = step.take(BATCH).await?;
            let count = unsent.len();
            if count > 0 {
                let messages: Vec<Outgoing> = unsent.into_iter().map(outgoing).collect();
                kafka.publish(&messages, AT_MOST).await?;
            }
            // What was taken and not published, of an erased tenant, is gone, too.
            step.commit().await?;
            self.status.published(count);
            if count == 0 {
                tokio::time::sleep(EVERY).await;
            }
        }
    }
}

fn outgoing(event: Unsent) -> Outgoing {
    let what = match event.what {
        Stored::Told { kind, payload, .. } => What::Told { kind, payload },
        Stored::Tombstone => What::Tombstone,
    };
    Outgoing {
        tenant: event.tenant,
        id: event.id,
        aggregate: event.aggregate,
        aggregate_id: event.aggregate_id,
        seq: event.seq,
        at: event.at,
        what,
        traceparent: event.traceparent,
    }
}
