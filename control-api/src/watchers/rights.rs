//! Whether those who watch for long may still: a stream ends when the token that opened it expires or is revoked, or its
//! caller may no longer read what it shows. Streams of the same credential to the same operation are asked for once.
//! Besides, a stream asks for itself before it shows anything: what ends late here shows nothing.
//! Knows no stream.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256};
use axum::{
    extract::MatchedPath,
    http::{HeaderName, header, request::Parts},
};
use gatehouse_contract::header as names;
use gatehouse_service::{Reply, Shutdown};
use tokio::{sync::watch, time::sleep};
use tracing::info;

use crate::{access, routes::Api};

/// How often all are asked for, where they are few.
const EVERY: Duration = Duration::from_secs(1);
/// Between two of them: of very many credentials each is asked for more rarely, and the record is not flooded.
const BETWEEN: Duration = Duration::from_millis(5);

/// All that are held.
#[derive(Clone, Default)]
pub struct Rights(Arc<Mutex<HashMap<Vec<u8>, Held>>>);

struct Held {
    parts: Arc<Parts>,
    users: u64,
    lost: watch::Sender<bool>,
}

/// The right by which one stream goes on. Dropped it is forgotten.
pub struct Right {
    all: Rights,
    name: Vec<u8>,
    parts: Arc<Parts>,
    lost: watch::Receiver<bool>,
}

impl Rights {
    /// What the request showed.
    pub fn hold(&self, parts: Parts) -> Right {
        let name = name(&parts);
        let mut all = self.all();
        let held = all.entry(name.clone()).or_insert_with(|| Held {
            parts: Arc::new(parts),
            users: 0,
            lost: watch::Sender::new(false),
        });
        held.users += 1;
        let (parts, lost) = (Arc::clone(&held.parts), held.lost.subscribe());
        Right { all: self.clone(), name, parts, lost }
    }

    /// Runs until the shutdown.
    pub async fn run(self, api: Api, shutdown: Shutdown) {
        let asking = async {
            loop {
                sleep(EVERY).await;
                let names: Vec<Vec<u8>> = self.all().keys().cloned().collect();
                for name in names {
                    let parts = self.all().get(&name).map(|held| Arc::clone(&held.parts));
                    let Some(parts) = parts else { continue };
                    if access::still(&api, &parts).await.is_err()
                        && let Some(held) = self.all().remove(&name)
                    {
                        held.lost.send_replace(true);
                    }
                    sleep(BETWEEN).await;
                }
            }
        };
        tokio::select! {
            () = asking => {}
            () = shutdown.requested() => {}
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Right {
    /// Ends when it is gone.
    pub async fn lost(&mut self) {
        // A sender that is gone is a right that nobody asks for any more.
        drop(self.lost.wait_for(|lost| *lost).await);
    }

    /// Why it is gone, where it is.
    pub async fn judge(&self, api: &Api) -> Result<(), Reply> {
        access::still(api, &self.parts).await
    }

    /// Whether it is there now.
    pub async fn stands(&self, api: &Api) -> bool {
        match self.judge(api).await {
            Ok(()) => true,
            Err(why) => {
                info!(reason = why.problem().code, "a stream ends with its caller's right to it");
                false
            }
        }
    }
}

impl Drop for Right {
    fn drop(&mut self) {
        let mut all = self.all.all();
        let Some(held) = all.get_mut(&self.name) else { return };
        // Another one of the same name may be there since this one was lost.
        if !Arc::ptr_eq(&held.parts, &self.parts) {
            return;
        }
        held.users = held.users.saturating_sub(1);
        if held.users == 0 {
            all.remove(&self.name);
        }
    }
}

/// The same for the same credential and operation, and nothing that could be shown to anybody.
fn name(parts: &Parts) -> Vec<u8> {
    let mut hash = Context::new(&SHA256);
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    hash.update(route.as_bytes());
    let key = HeaderName::from_static(names::API_KEY);
    for name in [&header::AUTHORIZATION, &header::COOKIE, &key] {
        for value in parts.headers.get_all(name) {
            hash.update(&[0]);
            hash.update(name.as_str().as_bytes());
            hash.update(value.as_bytes());
        }
    }
    hash.finish().as_ref().to_vec()
}
