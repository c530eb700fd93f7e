//! Limits that are not their tier's alone, as they were compiled lately: a check of such a tenant must not compile
//! them anew. Bounded: it is emptied when it is full. Knows no window.

use std::{
    hash::{BuildHasher, Hash},
    sync::Arc,
    time::Duration,
};

use gatehouse_contract::{Tier, sidecar::Overrides};
use gatehouse_ratelimit::{Asked, Policy, Rule};
use hashbrown::{DefaultHashBuilder, HashTable};

const KEPT: usize = 1024;
/// After this all are compiled anew, so that what nobody asks for any more does not stay.
const FOR: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Compiled {
    entries: HashTable<Entry>,
    hasher: DefaultHashBuilder,
    since: Duration,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    tier: Tier,
    limits: Option<Overrides>,
    subject: Option<String>,
    method: String,
    route: String,
    rules: Arc<[Rule]>,
}

impl Compiled {
    pub fn get(&mut self, now: Duration, asked: &Asked<'_>, policy: &Policy) -> Arc<[Rule]> {
        let Asked { tier, limits, subject, method, route } = *asked;
        let mut state = self.hasher.build_hasher();
        (tier, limits, subject, method, route).hash(&mut state);
        let hash = std::hash::Hasher::finish(&state);
        let known = self.entries.find(hash, |entry| {
            entry.tier == tier
                && entry.method == method
                && entry.route == route
                && entry.subject.as_deref() == subject
                && entry.limits.as_ref() == limits
        });
        if let Some(entry) = known {
            return Arc::clone(&entry.rules);
        }
        if self.entries.len() >= KEPT || now.saturating_sub(self.since) > FOR {
            self.entries.clear();
            self.since = now;
        }
        let rules = policy.with(asked);
        let entry = Entry {
            hash,
            tier,
            limits: limits.cloned(),
            subject: subject.map(str::to_owned),
            method: method.to_owned(),
            route: route.to_owned(),
            rules: Arc::clone(&rules),
        };
        self.entries.insert_unique(hash, entry, |entry| entry.hash);
        rules
    }
}
