//! Remembers what was made of verified tokens, so that a known token costs one look-up (acceptance J31).
//!
//! The key is the token itself, whole: no hash that could collide, and a token with another signature is another
//! token. Only good verdicts go in; there is no way to store a refusal, let alone a transient one.
//! Knows nothing of tokens but their bytes, and nothing of clocks.

use std::{collections::VecDeque, num::NonZeroUsize, sync::Arc, time::Duration};

use hashbrown::HashMap;

/// What an entry costs beside its token and its value: both maps' slots and the allocations, rounded up.
const OVERHEAD_BYTES: usize = 160;

/// The part of the most entries at which the map gets room for all of them.
const GROWN_AT: usize = 8;

/// How much may be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The most entries.
    pub entries: NonZeroUsize,
    /// The most bytes: tokens, the values' sizes as given, and an estimate of the bookkeeping.
    pub bytes: usize,
}

/// A bounded map from tokens to values; the entries that were not used of late go first (second chance).
#[derive(Debug)]
pub struct Cache<V> {
    bounds: Bounds,
    bytes: usize,
    entries: HashMap<Arc<[u8]>, Entry<V>>,
    /// Every key of `entries`, once, in the order of insertion.
    order: VecDeque<Arc<[u8]>>,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    generation: u64,
    from: Duration,
    until: Duration,
    bytes: usize,
    used: bool,
}

impl<V> Cache<V> {
    /// An empty cache.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, bytes: 0, entries: HashMap::new(), order: VecDeque::new() }
    }

    /// What is remembered of `token`, if it was verified with the keys of `generation` and is not expired at `now`.
    ///
    /// A clock that was set back behind the entry's insertion finds nothing (acceptance J40).
    pub fn get(&mut self, token: &[u8], generation: u64, now: Duration) -> Option<&V> {
        let entry = self.entries.get_mut(token)?;
        if entry.generation != generation || now < entry.from || now >= entry.until {
            return None;
        }
        entry.used = true;
        Some(&entry.value)
    }

    /// Remembers `value`, of `value_bytes`, until `expires_at` (the token's `exp`) at the latest.
    ///
    /// `generation` is one number over all key sets in use: it changes when any of them does. What cannot fit
    /// or is expired already is not stored.
    pub fn insert(&mut self, token: &[u8], generation: u64, now: Duration, fresh: Fresh<V>) {
        let Fresh { value, value_bytes, expires_at } = fresh;
        let bytes = token.len().saturating_add(value_bytes).saturating_add(OVERHEAD_BYTES);
        if bytes > self.bounds.bytes || expires_at <= now {
            return;
        }
        let entry = Entry { value, generation, from: now, until: expires_at, bytes, used: false };
        if let Some(known) = self.entries.get_mut(token) {
            self.bytes = self.bytes.saturating_sub(known.bytes).saturating_add(bytes);
            *known = entry;
        } else {
            if self.entries.len() == self.bounds.entries.get() / GROWN_AT {
                // A full map whose entries come and go grows when more than half of it is taken, and never shrinks:
                // with this room its memory is settled before it is full.
                let most = self.bounds.entries.get().saturating_add(1).saturating_mul(2);
                self.entries.reserve(most.saturating_sub(self.entries.len()));
            }
            let key: Arc<[u8]> = token.into();
            self.order.push_back(Arc::clone(&key));
            self.entries.insert(key, entry);
            self.bytes = self.bytes.saturating_add(bytes);
        }
        while self.entries.len() > self.bounds.entries.get() || self.bytes > self.bounds.bytes {
            if !self.evict(token, now) {
                break;
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
        self.bytes = 0;
    }

    /// How many entries there are, expired ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What the entries cost, in bytes, by estimate.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops the oldest entry that is expired or was not used since it last came to the front; ends, as each
    /// round takes away one chance. The entry of `newest` stays.
    fn evict(&mut self, newest: &[u8], now: Duration) -> bool {
        let rounds = self.order.len().saturating_mul(2);
        for _ in 0..rounds {
            let Some(key) = self.order.pop_front() else { return false };
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            let chance = std::mem::take(&mut entry.used) && now < entry.until;
            if chance || *key == *newest {
                self.order.push_back(key);
            } else {
                self.bytes = self.bytes.saturating_sub(entry.bytes);
                self.entries.remove(&key);
                return true;
            }
        }
        false
    }
}

/// What [`Cache::insert`] stores.
#[derive(Debug)]
pub struct Fresh<V> {
    /// The verdict.
    pub value: V,
    /// Its size in bytes, heap included.
    pub value_bytes: usize,
    /// The token's `exp` since the Unix epoch; or earlier, where the value ages sooner.
    pub expires_at: Duration,
}

#[cfg(test)]
mod tests;
