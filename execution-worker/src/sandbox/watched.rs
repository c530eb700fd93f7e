//! The course of one run in time: its start, its warning, its limit, and its being stopped. SIGTERM first wherever the
//! agent may still do something about it.

use std::{io, process::ExitStatus, time::Duration};

use gatehouse_execution::outcome::Exit;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::debug;

use super::{Engine, Job, guest::Guest};
use crate::driver::{Notice, Stop, Watch, asked};

/// How often it is looked whether the agent has been started.
const LOOK_FOR_START: Duration = Duration::from_millis(5);

/// How it ended.
pub enum Ended {
    /// The process has ended, and nobody asked it to.
    ByItself(io::Result<ExitStatus>),
    /// Its end was asked for, and what is left of it must be killed now.
    ByUs(Exit),
}

/// Watches `guest` until its agent has been started, else how it ended before.
pub async fn until_started(
    guest: &mut Guest,
    job: &Job<'_>,
    watch: &mut Watch<'_>,
    engine: &Engine,
) -> Option<Ended> {
    let id = job.id.to_string();
    let start = async {
        while !engine.has_started(&id) {
            sleep(LOOK_FOR_START).await;
        }
    };
    tokio::select! {
        // One that ends before it was seen to be started is judged by its end.
        status = guest.wait() => Some(Ended::ByItself(status)),
        started = until(job, watch, start) => started.err(),
    }
}

/// What `start` says, else why it was not waited for.
pub async fn until<T>(
    job: &Job<'_>,
    watch: &mut Watch<'_>,
    start: impl Future<Output = T>,
) -> Result<T, Ended> {
    tokio::select! {
        () = asked(&mut watch.stop, Stop::Gently) => Err(Ended::ByUs(Exit::Cancelled)),
        started = timeout_at(job.start_until, start) => {
            started.map_err(|_| Ended::ByUs(Exit::StartTimeout))
        }
    }
}

/// Watches `guest`, whose agent has just been started, until it has ended or must be killed.
pub async fn to_its_end(
    guest: &mut Guest,
    job: &Job<'_>,
    mut watch: Watch<'_>,
    engine: &Engine,
) -> Ended {
    let id = job.id.to_string();
    let began = Instant::now();
    (watch.tell)(Notice::Started);
    let mut urgent = watch.stop.clone();
    let warn = async {
        sleep_until(began + job.limits.warn_after()).await;
        (watch.tell)(Notice::TimeRunsOut);
        std::future::pending().await
    };
    let exit = tokio::select! {
        status = guest.wait() => return Ended::ByItself(status),
        () = asked(&mut watch.stop, Stop::Gently) => Exit::Cancelled,
        () = sleep_until(began + job.limits.timeout) => Exit::TimeLimit,
        () = warn => Exit::TimeLimit,
    };
    let grace_is_over = sleep(job.limits.grace);
    let asking = async {
        engine.terminate(&id, guest.engine()).await;
        guest.wait().await
    };
    tokio::select! {
        ended = asking => debug!(sandbox = id, ?ended, "ended when it was asked to"),
        () = asked(&mut urgent, Stop::AtOnce) => {}
        () = grace_is_over => {}
    }
    Ended::ByUs(exit)
}
