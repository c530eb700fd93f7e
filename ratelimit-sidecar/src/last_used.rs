//! When API keys and sessions were last seen, told to the control API in batches: never a write per request.
//! What does not fit is left out: this is for people who look for unused keys, not for decisions.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gatehouse_contract::sidecar::LastUsed;
use gatehouse_service::{Shutdown, exit::chain};
use tracing::warn;

use crate::control::{Control, Unanswered};

const CREDENTIALS: usize = 10_000;
const BATCH: usize = 500;

#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<BTreeMap<String, u64>>>);

impl Seen {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a credential was seen.
    pub fn note(&self, credential: &str, now_s: u64) {
        let mut seen = self.lock();
        if let Some(at_s) = seen.get_mut(credential) {
            *at_s = now_s.max(*at_s);
        } else if seen.len() < CREDENTIALS {
            seen.insert(credential.to_owned(), now_s);
        }
    }

    /// Tells the control API `every` so often, until the shutdown. The last ones are [`Self::flush`]ed after the
    /// listeners have drained.
    pub async fn report(self, control: Control, every: Duration, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => self.flush(&control).await,
                () = shutdown.requested() => return,
            }
        }
    }

    /// Tells the control API everything that is noted. What it does not take is kept for the next time.
    pub async fn flush(&self, control: &Control) {
        loop {
            let batch = self.take();
            if batch.is_empty() {
                return;
            }
            let told = LastUsed { seen_at_s: batch };
            match control.last_used(&told).await {
                Ok(()) => {}
                Err(Unanswered::NotConfigured) => return,
                Err(error) => {
                    warn!(error = %chain(&error), "the last use of credentials cannot be told");
                    told.seen_at_s.iter().for_each(|(name, at_s)| self.note(name, *at_s));
                    return;
                }
            }
        }
    }

    fn take(&self) -> BTreeMap<String, u64> {
        let mut seen = self.lock();
        let last = seen.keys().nth(BATCH).cloned();
        let rest = last.map(|last| seen.split_off(&last)).unwrap_or_default();
        std::mem::replace(&mut seen, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_use_counts_and_batches_are_bounded() {
        let seen = Seen::default();
        for n in 0..=CREDENTIALS {
            seen.note(&format!("{n:05}"), 7);
        }
        seen.note("00000", 9);
        seen.note("00000", 8);
        let mut all = BTreeMap::new();
        loop {
            let batch = seen.take();
            if batch.is_empty() {
                break;
            }
            assert!(batch.len() <= BATCH);
            all.extend(batch);
        }
        assert_eq!((all.len(), all["00000"]), (CREDENTIALS, 9));
    }
}
