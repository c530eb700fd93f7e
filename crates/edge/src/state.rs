//! What a VM remembers between requests: verified tokens, key sets per issuer and principals, all bounded and all
//! mortal. A remembered thing is used while `from <= now < from + length`; a clock that jumps back ends it too
//! (acceptance J40). Knows neither tokens nor hosts.

use std::{num::NonZeroUsize, rc::Rc, time::Duration};

use gatehouse_authn::{
    Claims, KeySet,
    cache::{Bounds, Cache, Fresh},
};
use gatehouse_contract::{TenantId, sidecar::PrincipalFacts};
use hashbrown::HashMap;

use crate::request_id::Ids;

/// How much of verified tokens is kept.
const TOKENS: Bounds = Bounds {
    entries: match NonZeroUsize::new(4096) {
        Some(entries) => entries,
        None => NonZeroUsize::MIN,
    },
    bytes: 4 * 1024 * 1024,
};
/// How many principals one half of the cache holds. With subjects of at most 256 bytes it stays below 4 MiB.
const PRINCIPALS_PER_HALF: usize = 4096;
/// The longest time for which a key set is used without asking again, whatever the sidecar says.
const MAX_KEYS_AGE: Duration = Duration::from_secs(3600);
/// How long an issuer's unknown key ids are answered without a call-out after the sidecar answered for one. Short,
/// since the sidecar keeps the identity provider's budget: this one only bounds calls within the pod (J14).
const KEY_ID_COOL_DOWN: Duration = Duration::from_secs(1);

/// What one VM remembers. Belongs to one [`crate::Suite`]: a new configuration starts with a new one.
#[derive(Debug)]
pub struct VmState {
    pub(crate) ids: Ids,
    tokens: Cache<Known>,
    /// Changes when any issuer's keys do, and with it every verified token is forgotten.
    generation: u64,
    keys: Vec<IssuerKeys>,
    principals: Principals,
}

/// What is known of a verified token.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// The issuer's place in the configuration.
    pub(crate) issuer: usize,
    pub(crate) claims: Claims,
}

#[derive(Debug, Default)]
struct IssuerKeys {
    set: Option<LoadedSet>,
    cool_down: Option<(Lifetime, KeyIdAnswer)>,
}

#[derive(Debug)]
struct LoadedSet {
    set: Rc<KeySet>,
    generation: u64,
    lifetime: Lifetime,
}

/// How the last question for an unknown key id ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyIdAnswer {
    /// The sidecar answered: what it did not know is not known.
    Answered,
    /// Nobody answered.
    Unavailable,
}

/// From when, and for how long.
#[derive(Debug, Clone, Copy)]
struct Lifetime {
    from: Duration,
    length: Duration,
}

/// Who is remembered: the issuer by its place in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PrincipalKey {
    pub(crate) issuer: usize,
    pub(crate) tenant: TenantId,
    pub(crate) subject: String,
}

/// A key set as the sidecar handed it out.
#[derive(Debug)]
pub(crate) struct FreshKeys {
    pub(crate) set: KeySet,
    pub(crate) generation: u64,
    pub(crate) max_age: Duration,
}

/// Two halves: what is used moves to the young one, and when that is full the old one is dropped whole.
#[derive(Debug, Default)]
struct Principals {
    young: HashMap<PrincipalKey, (PrincipalFacts, Lifetime)>,
    old: HashMap<PrincipalKey, (PrincipalFacts, Lifetime)>,
}

// === impl VmState ===

impl VmState {
    /// Remembers nothing yet. `seed` is 128 bits that no other VM has; request ids are made from it.
    pub fn new(seed: [u64; 2]) -> Self {
        Self {
            ids: Ids::new(seed),
            tokens: Cache::new(TOKENS),
            generation: 0,
            keys: Vec::new(),
            principals: Principals::default(),
        }
    }

    fn issuer(&mut self, issuer: usize) -> Option<&mut IssuerKeys> {
        if self.keys.len() <= issuer {
            self.keys.resize_with(issuer.checked_add(1)?, IssuerKeys::default);
        }
        self.keys.get_mut(issuer)
    }

    /// What is known of `token`; only while its issuer's keys are fresh, so that a withdrawn key ends it (J16).
    pub(crate) fn token(&mut self, token: &[u8], now: Duration) -> Option<Known> {
        let known = self.tokens.get(token, self.generation, now)?.clone();
        self.keys(known.issuer, now).map(|_fresh| known)
    }

    pub(crate) fn store_token(&mut self, token: &[u8], known: Known, now: Duration) {
        let expires_at = known.claims.expires_at;
        let texts = [&known.claims.issuer, &known.claims.subject].map(|text| text.capacity());
        let token_id = known.claims.token_id.as_ref().map_or(0, String::capacity);
        let value_bytes = texts
            .into_iter()
            .fold(token_id.saturating_add(size_of::<Known>()), usize::saturating_add);
        self.tokens.insert(
            token,
            self.generation,
            now,
            Fresh { value: known, value_bytes, expires_at },
        );
    }

    pub(crate) fn keys(&self, issuer: usize, now: Duration) -> Option<Rc<KeySet>> {
        let loaded = self.keys.get(issuer)?.set.as_ref()?;
        loaded.lifetime.covers(now).then(|| Rc::clone(&loaded.set))
    }

    pub(crate) fn store_keys(
        &mut self,
        issuer: usize,
        fresh: FreshKeys,
        now: Duration,
    ) -> Rc<KeySet> {
        let FreshKeys { set, generation, max_age } = fresh;
        let set = Rc::new(set);
        let lifetime = Lifetime { from: now, length: max_age.min(MAX_KEYS_AGE) };
        let Some(keys) = self.issuer(issuer) else { return set };
        let loaded = LoadedSet { set: Rc::clone(&set), generation, lifetime };
        let same = keys.set.replace(loaded).is_some_and(|before| before.generation == generation);
        if !same {
            self.generation = self.generation.wrapping_add(1);
            self.tokens.clear();
        }
        set
    }

    /// How the last question for an unknown key id ended, while it is not to be asked again.
    pub(crate) fn key_id_cool_down(&self, issuer: usize, now: Duration) -> Option<KeyIdAnswer> {
        let (lifetime, answer) = self.keys.get(issuer)?.cool_down?;
        lifetime.covers(now).then_some(answer)
    }

    /// A question for an unknown key id has ended: the cool-down begins.
    pub(crate) fn key_id_answered(&mut self, issuer: usize, answer: KeyIdAnswer, now: Duration) {
        if let Some(keys) = self.issuer(issuer) {
            keys.cool_down = Some((Lifetime { from: now, length: KEY_ID_COOL_DOWN }, answer));
        }
    }

    pub(crate) fn principal(
        &mut self,
        key: &PrincipalKey,
        now: Duration,
    ) -> Option<PrincipalFacts> {
        if let Some((facts, lifetime)) = self.principals.young.get(key) {
            return lifetime.covers(now).then(|| facts.clone());
        }
        let (key, (facts, lifetime)) = self.principals.old.remove_entry(key)?;
        if !lifetime.covers(now) {
            return None;
        }
        self.principals.insert(key, facts.clone(), lifetime);
        Some(facts)
    }

    pub(crate) fn store_principal(
        &mut self,
        key: PrincipalKey,
        facts: PrincipalFacts,
        ttl: Duration,
        now: Duration,
    ) {
        self.principals.insert(key, facts, Lifetime { from: now, length: ttl });
    }
}

// === impl Lifetime ===

impl Lifetime {
    fn covers(self, now: Duration) -> bool {
        now.checked_sub(self.from).is_some_and(|age| age < self.length)
    }
}

// === impl Principals ===

impl Principals {
    fn insert(&mut self, key: PrincipalKey, facts: PrincipalFacts, lifetime: Lifetime) {
        if self.young.len() >= PRINCIPALS_PER_HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, (facts, lifetime));
    }
}

#[cfg(test)]
mod tests;
