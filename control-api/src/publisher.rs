//! Publishes events: out of their outbox and into Kafka, in order, in one process that leads. A batch is read, published, and
//! taken out; no transaction is open while Kafka answers. Whoever dies in between has it published again, under the same
//! ids. One that cannot be read is put aside with what is behind it of its aggregate, and all others go on. Where Kafka is
//! away or not configured the outbox keeps everything, and says so.
//! Knows no route, and nothing of what an event means.

pub mod status;

use std::{collections::HashSet, sync::Arc, time::Duration};

use gatehouse_kafka_kit::{
    Outgoing, Publisher, What,
    publish::{self, Settings, Written},
};
use gatehouse_service::{Shutdown, exit::chain};
use gatehouse_store::{
    Store,
    publisher::{Backlog, Publishing, Taken, Term, Unfit, Unsent, What as Stored},
    relay::Leadership,
};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use self::status::Status;

/// Events of one step.
const BATCH: u32 = 1000;
/// How long a step may take in Kafka.
const AT_MOST: Duration = Duration::from_secs(5);
/// For how long nobody else begins to publish once a batch is read: it is read and published within that time.
const BUSY: Duration = Duration::from_secs(8);
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
    #[error("another process publishes")]
    Overtaken,
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

    async fn backlog(&self) -> Result<Backlog, Error> {
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
        kafka.reach(PATIENCE).await?;
        let term = self.begin(lead).await?;
        info!("this process publishes events");
        self.status.leads();
        *published = true;
        loop {
            lead.still_held(PATIENCE).await?;
            if !self.step(&mut kafka, term).await? {
                tokio::time::sleep(EVERY).await;
            }
        }
    }

    /// Waits until what the leader before may have been sending has arrived or was given up.
    async fn begin(&self, lead: &mut Leadership) -> Result<Term, Error> {
        loop {
            lead.still_held(PATIENCE).await?;
            let mut tx = self.open().await?;
            if let Some(term) = tx.begin().await? {
                tx.commit().await?;
                return Ok(term);
            }
            drop(tx);
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Publishes what waits, at most [`BATCH`]; whether there was any.
    async fn step(&self, kafka: &mut Publisher, term: Term) -> Result<bool, Error> {
        // Before the database's own clock is read: our time is over first.
        let until = Instant::now() + BUSY;
        let mut reading = self.open().await?;
        let taken = reading.take(term, BATCH, BUSY).await?.ok_or(Error::Overtaken)?;
        if taken.is_empty() {
            return Ok(false);
        }
        reading.commit().await?;
        let sorted = Sorted::of(kafka, taken);
        let sent = sorted.messages.len();
        if sent > 0 {
            let at_most = AT_MOST.min(until.saturating_duration_since(Instant::now()));
            if let Err(error) = kafka.publish(sorted.messages, at_most).await {
                // The client is gone with what it had: whoever is next need not wait.
                self.idle(term).await?;
                return Err(error.into());
            }
        }
        let mut marking = self.open().await?;
        marking.settle(term, &sorted.gone, &sorted.unfit).await?;
        marking.commit().await?;
        self.status.published(sent);
        Ok(true)
    }

    async fn idle(&self, term: Term) -> Result<(), Error> {
        let mut tx = self.open().await?;
        tx.idle(term).await?;
        Ok(tx.commit().await?)
    }
}

/// A batch, by what becomes of it.
#[derive(Default)]
struct Sorted {
    messages: Vec<Written>,
    /// Rows that go: what is published, and what is told to nobody.
    gone: Vec<i64>,
    unfit: Vec<(i64, Unfit)>,
}

impl Sorted {
    fn of(kafka: &Publisher, taken: Vec<Taken>) -> Self {
        let mut sorted = Self::default();
        let mut held = HashSet::new();
        for Taken { row, queue, event } in taken {
            if queue.as_ref().is_some_and(|queue| held.contains(queue)) {
                continue;
            }
            let written = match event {
                Ok(Some(event)) => {
                    let id = event.id;
                    kafka.write(&outgoing(event)).map(Some).map_err(|problem| {
                        let cause = chain(&problem);
                        error!(event.id = %id, error = %cause, "an event cannot be written");
                        Unfit::Schema
                    })
                }
                Ok(None) => Ok(None),
                Err(why) => Err(why),
            };
            match written {
                Ok(message) => {
                    sorted.messages.extend(message);
                    sorted.gone.push(row);
                }
                Err(why) => {
                    error!(
                        row,
                        why = why.as_str(),
                        "an event is put aside: see docs/runbooks/events.md"
                    );
                    sorted.unfit.push((row, why));
                    held.extend(queue);
                }
            }
        }
        sorted
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
