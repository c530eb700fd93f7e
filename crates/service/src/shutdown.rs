//! When to stop: the first SIGTERM or SIGINT asks for a drain, the second one insists.
//! Knows nothing of what is drained.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::info;

use crate::Stop;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Asked,
    Insisted,
}

/// A handle that every task of a service waits on; cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<Phase>);

/// Asks for the end from within, where no signal comes (tests, a part that cannot go on).
#[derive(Debug, Clone)]
pub struct Trigger(watch::Sender<Phase>);

impl Trigger {
    /// Asks for a drain; a second call insists.
    pub fn ask(&self) {
        self.0.send_modify(|phase| {
            *phase = if *phase == Phase::Running { Phase::Asked } else { Phase::Insisted };
        });
    }
}

impl Shutdown {
    /// A handle with a trigger, without signals.
    pub fn manual() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(Phase::Running);
        (Trigger(sender), Self(receiver))
    }

    /// A handle that SIGTERM and SIGINT trigger. Must be called within the runtime.
    pub fn on_signals() -> Result<(Trigger, Self), Stop> {
        let (trigger, shutdown) = Self::manual();
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Stop::unavailable(format!("cannot wait for signals: {error}")))
        };
        let mut term = listen(SignalKind::terminate())?;
        let mut int = listen(SignalKind::interrupt())?;
        let sender = trigger.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = term.recv() => "SIGTERM",
                    _ = int.recv() => "SIGINT",
                };
                info!(signal = name, "shutdown asked for");
                sender.ask();
            }
        });
        Ok((trigger, shutdown))
    }

    /// Ends when a shutdown is asked for.
    pub async fn requested(&self) {
        self.reaches(Phase::Asked).await;
    }

    /// Ends when a shutdown is asked for a second time.
    pub async fn insisted(&self) {
        self.reaches(Phase::Insisted).await;
    }

    /// Whether a shutdown was asked for.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() >= Phase::Asked
    }

    async fn reaches(&self, wanted: Phase) {
        // A dropped trigger can never ask: that is the end, too.
        if self.0.clone().wait_for(|phase| *phase >= wanted).await.is_err() {
            info!("the shutdown's trigger is gone");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_ask_drains_and_the_second_insists() {
        let (trigger, shutdown) = Shutdown::manual();
        assert!(!shutdown.is_requested());
        trigger.ask();
        shutdown.requested().await;
        let mut insisted = std::pin::pin!(shutdown.insisted());
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(insisted.as_mut().poll(cx)));
        assert!(polled.await.is_pending());
        trigger.ask();
        insisted.await;
    }
}
