//! The control API's part of the change feed where none runs: a feed that is alive, with tokens that it denies. Written by
//! the code that the relay itself writes with. Knows no reader.

use std::{
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow};
use gatehouse_contract::sidecar::Denied;
use gatehouse_redis_kit::{Address, feed::Writer};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    time::interval,
};

use super::redis::Redis;

/// The one run of the feed.
const EPOCH: &str = "tests";
/// As often as the relay itself.
const BEAT: Duration = Duration::from_secs(1);
/// For one operation of Redis; a machine that builds at the same time must not silence the feed.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long denied tokens would still be good.
const DENIED_FOR: Duration = Duration::from_secs(3600);

/// A feed that beats until this is dropped.
#[derive(Debug)]
pub struct Relay {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Begins the feed with so many tokens on its deny list, which nobody has.
    pub fn start(redis: &Redis, denied: usize) -> Result<Self> {
        let address: Address = redis.url("control").parse().context("the address of Redis")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?;
        let until_s = (now + DENIED_FOR).as_secs();
        let denied: Vec<Denied> = (0..denied)
            .map(|n| Denied::Token { token: format!("nobody-has-this-{n:08}"), until_s })
            .collect();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let writer = runtime.block_on(async {
            let writer = Writer::new(&address, DEADLINE)?;
            writer.begin(EPOCH, &denied).await?;
            writer.beat(EPOCH, 0).await?;
            anyhow::Ok(writer)
        });
        let writer = writer.context("beginning a feed")?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("relay".to_owned());
        let thread = thread.spawn(move || beat(&runtime, &writer, stopped));
        Ok(Self { stop: Some(stop), thread: Some(thread.map_err(|error| anyhow!(error))?) })
    }
}

fn beat(runtime: &Runtime, writer: &Writer, mut stopped: oneshot::Receiver<()>) {
    runtime.block_on(async {
        let mut beats = interval(BEAT);
        loop {
            tokio::select! {
                _ = beats.tick() => {
                    // A Redis that a test stopped is no reason to stop: the feed is silent meanwhile.
                    drop(writer.beat(EPOCH, 0).await);
                }
                _ = &mut stopped => return,
            }
        }
    });
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
