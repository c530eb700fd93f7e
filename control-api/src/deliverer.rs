//! Tells tenants' endpoints what happened (Standard Webhooks): takes endpoints at which something is due, sends, and writes
//! what became of it. Every process does; an endpoint is one's at a time, by a lease in PostgreSQL. No transaction is open
//! while somebody else's server takes its time, and one that takes it holds up no other.
//! Knows no route. Nothing of an answer but its status, and a wish to be left alone, comes from where it is heard.

mod judge;
mod sign;
pub mod status;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use gatehouse_outbound::{Client, Guard};
use gatehouse_service::{Shutdown, exit::chain};
use gatehouse_store::{
    Actor, Error, OpCtx, Store,
    deliveries::{Backlog, Delivering, Due, Lease, Outcome, Round, Seen},
};
use tokio::{task::JoinSet, time::Instant};
use tracing::{debug, error, info, warn};

use self::{
    judge::{Judged, Verdict},
    status::Status,
};
use crate::{clock, random, routes::webhooks::secret_name, seal::Sealer};

/// How many endpoints a process tells at once, and how many deliveries are under way to each.
const ENDPOINTS: usize = 32;
const EACH: u32 = 8;
/// From the first packet to the answer's head.
pub const SEND: Duration = Duration::from_secs(15);
/// How long an endpoint is this process's: until its sends are over, and settled although the database was away for a moment.
const LEASE: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(30);
/// How often it is looked for what is due, and again after a failure.
const EVERY: Duration = Duration::from_millis(250);
const RETRY: Duration = Duration::from_millis(500);
/// How often it is measured what waits.
const WATCH: Duration = Duration::from_secs(2);
/// How often what is old is removed, how old that is, and how much at once.
const PRUNE: Duration = Duration::from_secs(60);
const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);
const PRUNE_ROWS: u32 = 2000;
/// After a round in which nothing was heard in time, and where its secret cannot be opened.
const REST: Duration = Duration::from_secs(30);

/// What a turn needs; shared by its tasks.
pub struct Tools {
    pub store: Store,
    /// Opens the endpoints' secrets.
    pub sealer: Arc<Sealer>,
    pub client: Client,
    /// Which addresses may be asked. In `serve` it has no exception.
    pub guard: Guard,
    /// [`SEND`].
    pub deadline: Duration,
    pub status: Arc<Status>,
}

/// Runs until the shutdown; what is under way then ends, or is tried again by another process.
pub async fn run(tools: Tools, shutdown: Shutdown) {
    let tools = Arc::new(tools);
    tokio::join!(watch(&tools, &shutdown), prune(&tools, &shutdown), deliver(&tools, &shutdown));
}

async fn pause(at_most: Duration, shutdown: &Shutdown) {
    tokio::select! {
        () = tokio::time::sleep(at_most) => {}
        () = shutdown.requested() => {}
    }
}

/// Measures what waits.
async fn watch(tools: &Tools, shutdown: &Shutdown) {
    while !shutdown.is_requested() {
        match backlog(tools).await {
            Ok(backlog) => tools.status.waits(Some(backlog)),
            Err(error) => {
                tools.status.waits(None);
                debug!(error = %chain(&error), "it is not known which webhooks wait");
            }
        }
        pause(WATCH, shutdown).await;
    }
}

async fn backlog(tools: &Tools) -> Result<Backlog, Error> {
    open(tools).await?.backlog().await
}

#[expect(clippy::disallowed_methods, reason = "a background job, not an HTTP handler")]
async fn open(tools: &Tools) -> Result<Delivering, Error> {
    tools.store.delivering().await
}

/// Removes what is old, a batch at a time.
async fn prune(tools: &Tools, shutdown: &Shutdown) {
    while !shutdown.is_requested() {
        let done = async {
            let mut tx = open(tools).await?;
            let done = tx.forget(KEEP, PRUNE_ROWS).await?;
            tx.commit().await?;
            Ok::<_, Error>(done)
        };
        let more = match done.await {
            Ok(rows) => rows == u64::from(PRUNE_ROWS),
            Err(error) => {
                debug!(error = %chain(&error), "old deliveries stay for now");
                false
            }
        };
        pause(if more { EVERY } else { PRUNE }, shutdown).await;
    }
}

async fn deliver(tools: &Arc<Tools>, shutdown: &Shutdown) {
    let mut rounds = JoinSet::new();
    let mut failing = false;
    while !shutdown.is_requested() {
        while rounds.try_join_next().is_some() {}
        let wait = match take(tools, ENDPOINTS.saturating_sub(rounds.len())).await {
            Ok(taken) => {
                failing = false;
                tools.status.works();
                let some = !taken.is_empty();
                for one in taken {
                    rounds.spawn(round(Arc::clone(tools), one));
                }
                if some && rounds.len() < ENDPOINTS { Duration::ZERO } else { EVERY }
            }
            Err(error) => {
                tools.status.fails();
                if failing {
                    debug!(error = %chain(&error), "webhooks still cannot be taken");
                } else {
                    warn!(error = %chain(&error), "webhooks cannot be taken: they wait");
                }
                failing = true;
                RETRY
            }
        };
        pause(wait, shutdown).await;
    }
    // What is under way ends by itself within its bound.
    let under_way = rounds.len();
    let ended = async { while rounds.join_next().await.is_some() {} };
    let cut = tokio::select! {
        () = ended => false,
        () = shutdown.insisted() => true,
    };
    if under_way > 0 {
        info!(endpoints = under_way, cut, "webhooks that were under way ended");
    }
}

async fn take(tools: &Tools, endpoints: usize) -> Result<Vec<Round>, Error> {
    if endpoints == 0 {
        return Ok(Vec::new());
    }
    let mut tx = open(tools).await?;
    let taken = tx.take(u32::try_from(endpoints).unwrap_or(u32::MAX), EACH, LEASE).await?;
    tx.commit().await?;
    Ok(taken)
}

/// Tells one endpoint of what is due, all at once, and gives it back.
async fn round(tools: Arc<Tools>, round: Round) {
    let Round { lease, url, sealed_secrets, due } = round;
    let name = secret_name(lease.endpoint);
    let secrets: Result<Vec<Vec<u8>>, _> =
        sealed_secrets.iter().map(|sealed| tools.sealer.open(&name, sealed)).collect();
    let rest = match secrets {
        Ok(secrets) => {
            let to = Arc::new((lease, url, secrets));
            let mut sends = JoinSet::new();
            for one in due {
                sends.spawn(send(Arc::clone(&tools), Arc::clone(&to), one));
            }
            // What wants the longest rest has it; where all was in vain there is some in any case.
            let rests = sends.join_all().await;
            match rests.iter().all(Option::is_some) {
                true => rests.into_iter().flatten().max().unwrap_or_default(),
                false => Duration::ZERO,
            }
        }
        Err(problem) => {
            error!(tenant.id = %lease.tenant, webhook.id = %lease.endpoint, error = %chain(&problem),
                "a webhook's secret cannot be opened: nothing is sent");
            REST
        }
    };
    let back = async {
        let mut tx = open(&tools).await?;
        tx.give_back(&lease, rest).await?;
        tx.commit().await
    };
    if let Err(error) = back.await {
        debug!(error = %chain(&error), "the lease ends by itself");
    }
}

/// Makes one attempt and writes what became of it. The rest that the endpoint should have, where it should.
async fn send(
    tools: Arc<Tools>,
    to: Arc<(Lease, String, Vec<Vec<u8>>)>,
    due: Due,
) -> Option<Duration> {
    let (lease, url, secrets) = &*to;
    let now = clock::now();
    let judged = match &due.body {
        Some(body) => {
            let id = due.event.to_string();
            let timestamp = now.unix_timestamp().to_string();
            let signature = sign::signature(secrets, &id, &timestamp, body);
            let mut headers = vec![
                ("webhook-id", id.as_str()),
                ("webhook-timestamp", &timestamp),
                ("webhook-signature", &signature),
            ];
            headers.extend(due.traceparent.as_deref().map(|trace| ("traceparent", trace)));
            let heard = tools
                .client
                .post_json(&tools.guard, url, &headers, body.clone(), tools.deadline)
                .await;
            judge::judge(heard, due.attempts, random::part())
        }
        None => Judged::unreadable(),
    };
    let Judged { verdict, seen, rest } = judged;
    let settled = settle(&tools, lease, &due, verdict, seen).await;
    let word = if settled { verdict.as_str() } else { "unsettled" };
    tools
        .status
        .attempted(word, clock::since_epoch(now).saturating_sub(clock::since_epoch(due.at)));
    let attempt = due.attempts.saturating_add(1);
    info!(tenant.id = %lease.tenant, webhook.id = %lease.endpoint, event.id = %due.event, attempt, status = seen.status,
        error = seen.error, outcome = word, "a webhook was attempted");
    rest
}

/// Writes it, again and again while the database is away; whether it was taken. What is not is tried again as if nothing had
/// been sent: under the same id.
async fn settle(tools: &Tools, lease: &Lease, due: &Due, verdict: Verdict, seen: Seen) -> bool {
    let began = Instant::now();
    loop {
        let done = match verdict {
            Verdict::Gone => gone(tools, lease, due).await,
            Verdict::Ended(outcome) => ended(tools, lease, due, outcome, seen).await,
        };
        match done {
            Ok(taken) => return taken,
            Err(error) if began.elapsed() < SETTLE => {
                debug!(error = %chain(&error), "an attempt cannot be settled yet");
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => {
                warn!(tenant.id = %lease.tenant, webhook.id = %lease.endpoint, event.id = %due.event,
                    error = %chain(&error), "an attempt is not settled: it will be made again");
                return false;
            }
        }
    }
}

async fn ended(
    tools: &Tools,
    lease: &Lease,
    due: &Due,
    outcome: Outcome,
    seen: Seen,
) -> Result<bool, Error> {
    let mut tx = open(tools).await?;
    let taken = tx.settle(lease, due.id, outcome, seen).await?;
    tx.commit().await?;
    Ok(taken)
}

/// Through the tenant's own door: what is changed of its endpoints is in its audit.
async fn gone(tools: &Tools, lease: &Lease, due: &Due) -> Result<bool, Error> {
    let op = OpCtx {
        tenant: lease.tenant,
        subject: "deliverer".to_owned(),
        actor: Actor::System,
        request_id: due.event.to_string(),
        traceparent: due.traceparent.clone(),
        now: clock::now(),
    };
    let mut tx = tools.store.tenant(&op).await?;
    let taken = tx.end_gone_webhook(lease, due.id).await?;
    tx.commit().await?;
    Ok(taken)
}
