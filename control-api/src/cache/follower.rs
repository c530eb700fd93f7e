//! Hears the change feed, as every sidecar does, and forgets what it names. While it hears nothing, nothing that is
//! remembered is used. Knows nothing of what is remembered.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use gatehouse_contract::sidecar::{Change, Denied};
use gatehouse_redis_kit::feed::{Feed, News, Reader, Reading};
use gatehouse_service::{Shutdown, exit::chain};
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use super::{counts::Counts, stamps::Stamps};

/// How often the feed is read: about how long another process's change is not seen here.
const POLL: Duration = Duration::from_millis(100);
/// How long one reading may take.
pub const PATIENCE: Duration = Duration::from_millis(250);
/// How old the last reading may be for what is remembered to be used.
const HEARD: Duration = Duration::from_secs(1);
/// How old the relay's heartbeat may be, which comes each second.
const BEAT: Duration = Duration::from_millis(2500);
/// For how long nothing is used after a change that Redis was not told: longer than a relay that lives takes to tell it, and
/// than one that does not is taken to live.
const REST: Duration = Duration::from_secs(4);

/// Follows the feed.
pub(super) struct Follower {
    reader: Reader,
    stands: Mutex<Stands>,
}

#[derive(Debug, Default)]
struct Stands {
    heard: Option<Instant>,
    rests_until: Option<Instant>,
}

impl Follower {
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader, stands: Mutex::default() }
    }

    /// Whether no change that was published can have been missed.
    pub(super) fn hears(&self) -> bool {
        let stands = self.stands.lock().unwrap_or_else(PoisonError::into_inner);
        stands.heard.is_some_and(|at| at.elapsed() < HEARD)
            && stands.rests_until.is_none_or(|until| Instant::now() >= until)
    }

    /// Nothing is used for a while: Redis could not be told of a change.
    pub(super) fn rest(&self) {
        let mut stands = self.stands.lock().unwrap_or_else(PoisonError::into_inner);
        stands.rests_until = Some(Instant::now() + REST);
    }

    fn heard(&self, at: Option<Instant>) {
        self.stands.lock().unwrap_or_else(PoisonError::into_inner).heard = at;
    }

    /// Runs until the shutdown.
    pub(super) async fn run(&self, stamps: &Stamps, counts: &Counts, shutdown: Shutdown) {
        let (mut epoch, mut sequence) = (None::<String>, 0);
        let mut heard = false;
        while !shutdown.is_requested() {
            let asked = Instant::now();
            match self.reader.read(epoch.as_deref(), sequence).await {
                Ok(Reading::Feed(feed)) => {
                    let lives = feed.heartbeat_age.is_some_and(|age| age < BEAT);
                    apply(stamps, counts, &feed);
                    (epoch, sequence) = (Some(feed.epoch), feed.sequence);
                    self.heard(lives.then_some(asked));
                }
                // From nothing: what was missed meanwhile is not known.
                Ok(Reading::None | Reading::WentBack) => {
                    (epoch, sequence) = (None, 0);
                    self.heard(None);
                }
                // The next one goes on where the last one ended, and until then what was heard grows old.
                Err(error) => debug!(error = %chain(&error), "the feed is not heard"),
            }
            let hears = self.hears();
            if hears != heard {
                heard = hears;
                let says = if hears { "heard" } else { "silent" };
                info!(cache.used = hears, "the change feed is {says}");
            }
            tokio::select! {
                () = sleep(POLL) => {}
                () = shutdown.requested() => break,
            }
        }
    }
}

fn apply(stamps: &Stamps, counts: &Counts, feed: &Feed) {
    let News::Changes(changes) = &feed.news else {
        stamps.forget_all();
        counts.forgot("all");
        return;
    };
    for change in changes {
        match change {
            Change::Tenant { tenant } | Change::Subject { tenant, .. } => {
                stamps.forget(*tenant);
                counts.forgot("tenant");
            }
            Change::Credential { credential } => {
                stamps.forget_credential(credential);
                counts.forgot("credential");
            }
            Change::Deny(Denied::Token { token, .. }) => {
                stamps.forget_credential(token);
                counts.forgot("credential");
            }
            Change::Deny(Denied::IssuedBefore { tenant, .. }) => {
                stamps.forget(*tenant);
                counts.forgot("tenant");
            }
            // Signing keys are the keyring's.
            Change::Keys { .. } => {}
        }
    }
}
