//! The course of one run in time: its start, its warning, its limit, and its being stopped. SIGTERM first wherever the
//! agent may still do something about it.

use std::{io, process::ExitStatus, time::Duration};

use gatehouse_execution::outcome::Exit;
use tokio::{
    process::Child,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tracing::debug;

use super::{Engine, Job};
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

/// Watches `child` until it has ended or must be killed.
pub async fn to_its_end(
    child: &mut Child,
    job: &Job<'_>,
    mut watch: Watch<'_>,
    engine: &Engine,
) -> Ended {
    let id = job.id.to_string();
    let start = async {
        while !engine.has_started(&id) {
            sleep(LOOK_FOR_START).await;
        }
    };
    tokio::select! {
        // One that ends before it was seen to be started is judged by its end.
        status = child.wait() => return Ended::ByItself(status),
        () = asked(&mut watch.stop, Stop::Gently) => return Ended::ByUs(Exit::Cancelled),
        started = timeout_at(job.start_until, start) => if started.is_err() {
            return Ended::ByUs(Exit::StartTimeout);
        },
    }
    let began = Instant::now();
    (watch.tell)(Notice::Started);
    let mut urgent = watch.stop.clone();
    let warn = async {
        sleep_until(began + job.limits.warn_after()).await;
        (watch.tell)(Notice::TimeRunsOut);
        std::future::pending().await
    };
    let exit = tokio::select! {
        status = child.wait() => return Ended::ByItself(status),
        () = asked(&mut watch.stop, Stop::Gently) => Exit::Cancelled,
        () = sleep_until(began + job.limits.timeout) => Exit::TimeLimit,
        () = warn => Exit::TimeLimit,
    };
    let grace_is_over = sleep(job.limits.grace);
    let asking = async {
        engine.terminate(&id, child.id()).await;
        child.wait().await
    };
    tokio::select! {
        ended = asking => debug!(sandbox = id, ?ended, "ended when it was asked to"),
        () = asked(&mut urgent, Stop::AtOnce) => {}
        () = grace_is_over => {}
    }
    Ended::ByUs(exit)
}
