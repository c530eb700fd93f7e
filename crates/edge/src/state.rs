//! What a VM remembers between requests: verified tokens, key sets per issuer, principals, keys and sessions, the
//! deny list; all bounded and all mortal. A remembered thing is used while `from <= now < from + length`; a clock
//! that jumps back ends it too (acceptance J40). What the change feed names is forgotten at once.
//! Knows neither tokens nor hosts, and not how changes come.

mod changes;
mod denied;
mod halves;
mod identity;

use std::{num::NonZeroUsize, rc::Rc, time::Duration};

use gatehouse_authn::{
    Claims, KeySet,
    cache::{Bounds, Cache, Fresh},
    jws::Headers,
};
use gatehouse_contract::sidecar::{Change, Denied, PrincipalFacts};

pub(crate) use self::{
    changes::Asked,
    halves::Halves,
    identity::{Identity, Kind, Principal, PrincipalKey},
};
use self::{
    changes::{Changes, Touched},
    denied::DenyList,
};
use crate::{
    feed::Feed,
    limits::{Clock, Limits},
    remote_keys::RemoteKeys,
    request_id::Ids,
    version::Usage,
};

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
/// How many keys, and how many sessions, one half of each cache holds.
const CREDENTIALS_PER_HALF: usize = 2048;
/// The longest time for which a key set is used without asking again, whatever the sidecar says.
const MAX_KEYS_AGE: Duration = Duration::from_secs(3600);
/// How long an issuer's unknown key ids are answered without a call-out after the sidecar answered for one. Short,
/// since the sidecar keeps the identity provider's budget: this one only bounds calls within the pod (J14).
const KEY_ID_COOL_DOWN: Duration = Duration::from_secs(1);

/// What one VM remembers. Belongs to one [`crate::Suite`]: a new configuration starts with a new one.
#[derive(Debug)]
pub struct VmState {
    pub(crate) ids: Ids,
    pub(crate) feed: Feed,
    pub(crate) limits: Limits,
    pub(crate) remote: RemoteKeys,
    pub(crate) versions: Usage,
    pub(crate) headers: Headers,
    tokens: Cache<Rc<Identity>>,
    /// Changes when any issuer's keys do, and with it every verified token is forgotten.
    generation: u64,
    keys: Vec<IssuerKeys>,
    principals: Halves<PrincipalKey, Kept>,
    api_keys: Halves<Box<str>, Kept>,
    sessions: Halves<Box<str>, Kept>,
    /// Callers as they were handed over, where another module knows them.
    pub(crate) handed_over: Halves<Box<[u8]>, Rc<Principal>>,
    denied: DenyList,
    changes: Changes,
}

#[derive(Debug)]
struct Kept {
    principal: Rc<Principal>,
    lifetime: Lifetime,
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

/// A key set as the sidecar handed it out.
#[derive(Debug)]
pub(crate) struct FreshKeys {
    pub(crate) set: KeySet,
    pub(crate) generation: u64,
    pub(crate) max_age: Duration,
}

// === impl VmState ===

impl VmState {
    /// Remembers nothing yet. `seed` is 128 bits that no other VM has; request ids are made from it.
    pub fn new(seed: [u64; 2]) -> Self {
        let mut ids = Ids::new(seed);
        let holder = ids.next_id();
        Self {
            ids,
            feed: Feed::default(),
            limits: Limits::new(holder),
            remote: RemoteKeys::new(seed.iter().fold(1, |all, part| all ^ part.rotate_left(7))),
            versions: Usage::default(),
            headers: Headers::default(),
            tokens: Cache::new(TOKENS),
            generation: 0,
            keys: Vec::new(),
            principals: Halves::new(PRINCIPALS_PER_HALF),
            api_keys: Halves::new(CREDENTIALS_PER_HALF),
            sessions: Halves::new(CREDENTIALS_PER_HALF),
            handed_over: Halves::new(CREDENTIALS_PER_HALF),
            denied: DenyList::default(),
            changes: Changes::default(),
        }
    }

    /// With a monotonic clock, read at most once per callback and only by a limiter that needs it. Without one nothing
    /// is leased from the sidecar.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.limits.set_clock(clock);
        self
    }

    fn issuer(&mut self, issuer: usize) -> Option<&mut IssuerKeys> {
        if self.keys.len() <= issuer {
            self.keys.resize_with(issuer.checked_add(1)?, IssuerKeys::default);
        }
        self.keys.get_mut(issuer)
    }

    /// What is known of `token`; only while its issuer's keys are fresh, so that a withdrawn key ends it (J16).
    pub(crate) fn token(&mut self, token: &[u8], now: Duration) -> Option<Rc<Identity>> {
        let known = self.tokens.get(token, self.generation, now)?;
        let loaded = self.keys.get(known.caller.issuer)?.set.as_ref()?;
        loaded.lifetime.covers(now).then(|| Rc::clone(known))
    }

    /// What is known of `token` though its issuer's keys are due to be asked for: for use when nobody answers and
    /// [`Standing::AskFirst`](crate::feed::Standing) still lets known tokens go on.
    pub(crate) fn last_token(&mut self, token: &[u8], now: Duration) -> Option<Rc<Identity>> {
        self.tokens.get(token, self.generation, now).cloned()
    }

    /// Remembers what a token of this issuer claims, if it fits and is not expired.
    pub(crate) fn store_token(
        &mut self,
        token: &[u8],
        (issuer, claims): (usize, &Claims),
        now: Duration,
    ) -> Rc<Identity> {
        let make = || Rc::new(Identity::new(issuer, claims));
        let (value_bytes, expires_at) = (Identity::bytes(claims), claims.expires_at);
        let fresh = Fresh { make, value_bytes, expires_at };
        self.tokens.insert(token, self.generation, now, fresh).cloned().unwrap_or_else(make)
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
        self.load_keys(issuer, set, generation, (now, max_age.min(MAX_KEYS_AGE)))
    }

    /// Uses these keys from a time, for so long.
    pub(crate) fn load_keys(
        &mut self,
        issuer: usize,
        set: KeySet,
        generation: u64,
        (from, length): (Duration, Duration),
    ) -> Rc<KeySet> {
        let set = Rc::new(set);
        let lifetime = Lifetime { from, length };
        let Some(keys) = self.issuer(issuer) else { return set };
        let loaded = LoadedSet { set: Rc::clone(&set), generation, lifetime };
        let same = keys.set.replace(loaded).is_some_and(|before| before.generation == generation);
        if !same {
            self.generation = self.generation.wrapping_add(1);
            self.tokens.clear();
        }
        set
    }

    /// The keys of an issuer are still those: they are used from a time, for so long.
    pub(crate) fn keys_confirmed(&mut self, issuer: usize, from: Duration, length: Duration) {
        if let Some(loaded) = self.keys.get_mut(issuer).and_then(|keys| keys.set.as_mut()) {
            loaded.lifetime = Lifetime { from, length };
        }
    }

    /// The keys of an issuer have this generation now: others are asked for before they are used again.
    pub(crate) fn keys_changed(&mut self, issuer: usize, generation: u64) {
        let loaded = self.keys.get_mut(issuer).and_then(|keys| keys.set.as_mut());
        if let Some(loaded) = loaded.filter(|loaded| loaded.generation != generation) {
            loaded.lifetime.length = Duration::ZERO;
        }
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

    /// What is remembered of a token's subject.
    pub(crate) fn principal(
        &mut self,
        caller: &PrincipalKey,
        now: Duration,
    ) -> Option<Rc<Principal>> {
        alive(self.principals.get(caller), now)
    }

    /// What is known of a token's subject where no record says more: made once for all of its tokens.
    pub(crate) fn member(&mut self, caller: &PrincipalKey, now: Duration) -> Rc<Principal> {
        if let Some(known) = self.principal(caller, now) {
            return known;
        }
        let facts = PrincipalFacts::member(caller.tenant, caller.subject.as_str());
        let principal = Rc::new(Principal::from(facts));
        let lifetime = Lifetime { from: now, length: Duration::MAX };
        self.principals.insert(caller.clone(), Kept { principal: Rc::clone(&principal), lifetime });
        principal
    }

    /// What was last known of a token's subject, however old: for use when nobody answers and
    /// [`Standing::AskFirst`](crate::feed::Standing) still lets known tokens go on.
    pub(crate) fn last_principal(&mut self, caller: &PrincipalKey) -> Option<Rc<Principal>> {
        self.principals.get(caller).map(|kept| Rc::clone(&kept.principal))
    }

    /// Take this before facts are asked for, and bring it when they are stored.
    pub(crate) fn asked(&self) -> Asked {
        self.changes.asked()
    }

    /// Remembers what the record says of a token's subject for `ttl`. `None` when a change that touches these facts
    /// came after they were `asked` for: they may be old, and the record must be asked again.
    pub(crate) fn store_principal(
        &mut self,
        caller: PrincipalKey,
        facts: PrincipalFacts,
        ttl: Duration,
        now: Duration,
        asked: Asked,
    ) -> Option<Rc<Principal>> {
        let kept = self.kept(facts, ttl, now, asked)?;
        let principal = Rc::clone(&kept.principal);
        self.principals.insert(caller, kept);
        Some(principal)
    }

    /// The record knows this subject no more.
    pub(crate) fn forget_principal(&mut self, caller: &PrincipalKey) {
        self.principals.remove(caller);
    }

    /// What is remembered of a key or a session.
    pub(crate) fn credential(
        &mut self,
        kind: Kind,
        text: &str,
        now: Duration,
    ) -> Option<Rc<Principal>> {
        alive(self.credentials(kind).get(text), now)
    }

    /// Remembers what the record says of a key or session for `ttl`, and never beyond its end; else as
    /// [`Self::store_principal`].
    pub(crate) fn store_credential(
        &mut self,
        kind: Kind,
        text: &str,
        facts: PrincipalFacts,
        ttl: Duration,
        now: Duration,
        asked: Asked,
    ) -> Option<Rc<Principal>> {
        let ends_in = facts.expires_at_s.map_or(Duration::MAX, |expires_at_s| {
            Duration::from_secs(expires_at_s).saturating_sub(now)
        });
        let kept = self.kept(facts, ttl.min(ends_in), now, asked)?;
        let principal = Rc::clone(&kept.principal);
        self.credentials(kind).insert(text.into(), kept);
        Some(principal)
    }

    /// The record says that this key or session is worth nothing.
    pub(crate) fn forget_credential(&mut self, kind: Kind, text: &str) {
        self.credentials(kind).remove(text);
    }

    fn credentials(&mut self, kind: Kind) -> &mut Halves<Box<str>, Kept> {
        match kind {
            Kind::ApiKey => &mut self.api_keys,
            Kind::Session => &mut self.sessions,
        }
    }

    fn kept(
        &self,
        facts: PrincipalFacts,
        ttl: Duration,
        now: Duration,
        asked: Asked,
    ) -> Option<Kept> {
        let lifetime = Lifetime { from: now, length: ttl };
        self.changes
            .left_alone(&facts, asked)
            .then(|| Kept { principal: Rc::new(facts.into()), lifetime })
    }

    /// Whether the deny list has this token.
    pub(crate) fn denied(&self, identity: &Identity, facts: &PrincipalFacts) -> bool {
        if self.denied.is_empty() {
            return false;
        }
        identity.mark().is_some_and(|mark| self.denied.has_token(mark))
            || self.denied.has_subject(&facts.tenant, &facts.subject, identity.issued_at)
    }

    /// Whether the deny list is too long for this VM: who is denied must be asked for.
    pub(crate) fn deny_list_is_over(&self) -> bool {
        self.denied.is_over()
    }

    /// Forgets all facts and begins a new deny list.
    pub(crate) fn begin_anew(&mut self, denied: Vec<Denied>, now: Duration) {
        self.principals.clear();
        self.api_keys.clear();
        self.sessions.clear();
        self.denied.clear();
        denied.into_iter().for_each(|denied| self.denied.add(denied, now));
        self.changes.forget();
    }

    /// Forgets what these changes name, in one pass over what is kept.
    pub(crate) fn apply(&mut self, changes: Vec<Change>, now: Duration) {
        let touched = Touched::by(&changes);
        if !touched.is_empty() {
            for kept in [&mut self.api_keys, &mut self.sessions] {
                kept.retain(|kept| !touched.has(&kept.principal.facts));
            }
            self.principals.retain(|kept| !touched.has(&kept.principal.facts));
        }
        drop(touched);
        for change in changes {
            match change {
                Change::Deny(denied) => self.denied.add(denied, now),
                // For sidecars.
                Change::Keys { .. } => {}
                Change::Tenant { .. } | Change::Subject { .. } | Change::Credential { .. } => {
                    self.changes.add(change);
                }
            }
        }
    }
}

fn alive(kept: Option<&Kept>, now: Duration) -> Option<Rc<Principal>> {
    kept.filter(|kept| kept.lifetime.covers(now)).map(|kept| Rc::clone(&kept.principal))
}

// === impl Lifetime ===

impl Lifetime {
    fn covers(self, now: Duration) -> bool {
        now.checked_sub(self.from).is_some_and(|age| age < self.length)
    }
}

#[cfg(test)]
pub(crate) mod tests;
