//! Remembers what was made of verified tokens, so that a known token costs one look-up (acceptance J31).
//!
//! The key is the token itself, whole: a hash only says where to look, and a token with another signature is another
//! token. Only good verdicts go in; there is no way to store a refusal, let alone a transient one.
//! Knows nothing of tokens but their bytes, and nothing of clocks.

use std::{num::NonZeroUsize, time::Duration};

use hashbrown::HashTable;

use crate::octets;

/// What an entry costs beside its token and its value: its slot, its place in the table and the allocation, rounded up.
const OVERHEAD_BYTES: usize = 160;

/// How much larger the memory may be that a token takes over. Within [`OVERHEAD_BYTES`].
const SPARE_BYTES: usize = 48;

/// The part of the most entries at which the table gets room for all of them.
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
    /// The slot of every entry, by the hash of its token.
    places: HashTable<usize>,
    slots: Vec<Option<Entry<V>>>,
    /// Slots without an entry.
    free: Vec<usize>,
    /// The slot that is looked at next when something must go; it goes round, so that the oldest comes first.
    hand: usize,
    /// The memory of the token that went last, for the next one.
    spare: Vec<u8>,
}

#[derive(Debug)]
struct Entry<V> {
    hash: u64,
    token: Vec<u8>,
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
        Self {
            bounds,
            bytes: 0,
            places: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            spare: Vec::new(),
        }
    }

    /// What is remembered of `token`, if it was verified with the keys of `generation` and is not expired at `now`.
    ///
    /// A clock that was set back behind the entry's insertion finds nothing (acceptance J40).
    pub fn get(&mut self, token: &[u8], generation: u64, now: Duration) -> Option<&V> {
        let slot = self.slot(hash(token), token)?;
        let entry = self.slots.get_mut(slot)?.as_mut()?;
        if entry.generation != generation || now < entry.from || now >= entry.until {
            return None;
        }
        entry.used = true;
        Some(&entry.value)
    }

    /// Makes a value of `value_bytes` and remembers it until `expires_at` (the token's `exp`) at the latest.
    ///
    /// `generation` is one number over all key sets in use: it changes when any of them does. What cannot fit
    /// or is expired already is neither made nor stored.
    ///
    /// The value is made after what must go for it went, so that it takes over that memory: Wasm memory never
    /// shrinks, and what is made before stands beside what goes.
    pub fn insert<F: FnOnce() -> V>(
        &mut self,
        token: &[u8],
        generation: u64,
        now: Duration,
        fresh: Fresh<F>,
    ) -> Option<&V> {
        let Fresh { make, value_bytes, expires_at } = fresh;
        let bytes = token.len().saturating_add(value_bytes).saturating_add(OVERHEAD_BYTES);
        if bytes > self.bounds.bytes || expires_at <= now {
            return None;
        }
        let hash = hash(token);
        if let Some(slot) = self.slot(hash, token) {
            self.remove(slot);
        }
        let room = self.bounds.bytes.saturating_sub(bytes);
        while self.len() >= self.bounds.entries.get() || self.bytes > room {
            if !self.evict(now) {
                break;
            }
        }
        let entry = Entry {
            hash,
            token: self.kept(token),
            value: make(),
            generation,
            from: now,
            until: expires_at,
            bytes,
            used: false,
        };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                self.slots.len().saturating_sub(1)
            }
        };
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(entry);
        }
        let Self { places, slots, .. } = self;
        let rehash = |slot: &usize| match slots.get(*slot) {
            Some(Some(entry)) => entry.hash,
            Some(None) | None => 0,
        };
        if places.len() == self.bounds.entries.get() / GROWN_AT {
            // A full table whose entries come and go grows when more than half of it is taken, and never shrinks:
            // with this room its memory is settled before it is full.
            let most = self.bounds.entries.get().saturating_add(1).saturating_mul(2);
            places.reserve(most.saturating_sub(places.len()), rehash);
        }
        places.insert_unique(hash, slot, rehash);
        self.bytes = self.bytes.saturating_add(bytes);
        Some(&self.slots.get(slot)?.as_ref()?.value)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.places.clear();
        self.slots.clear();
        self.free.clear();
        self.hand = 0;
        self.bytes = 0;
    }

    /// How many entries there are, expired ones included.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// What the entries cost, in bytes, by estimate.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where the entry of `token` is.
    fn slot(&self, hash: u64, token: &[u8]) -> Option<usize> {
        let is_its = |slot: &usize| match self.slots.get(*slot) {
            Some(Some(entry)) => entry.hash == hash && octets::same(&entry.token, token),
            Some(None) | None => false,
        };
        self.places.find(hash, is_its).copied()
    }

    /// The token's bytes, in the memory of the one that went last where that fits.
    fn kept(&mut self, token: &[u8]) -> Vec<u8> {
        let fits = token.len()..=token.len().saturating_add(SPARE_BYTES);
        if !fits.contains(&self.spare.capacity()) {
            return token.to_vec();
        }
        let mut kept = std::mem::take(&mut self.spare);
        kept.clear();
        kept.extend_from_slice(token);
        kept
    }

    /// Drops the next entry that is expired or was not used since the hand last came by; ends, as each round takes
    /// away one chance.
    fn evict(&mut self, now: Duration) -> bool {
        let rounds = self.slots.len().saturating_mul(2);
        for _ in 0..rounds {
            let slot = self.hand;
            self.hand = slot.saturating_add(1);
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let Some(Some(entry)) = self.slots.get_mut(slot) else { continue };
            let chance = std::mem::take(&mut entry.used) && now < entry.until;
            if !chance {
                self.remove(slot);
                return true;
            }
        }
        false
    }

    fn remove(&mut self, slot: usize) {
        let Some(entry) = self.slots.get_mut(slot).and_then(Option::take) else { return };
        if let Ok(place) = self.places.find_entry(entry.hash, |its| *its == slot) {
            place.remove();
        }
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        self.free.push(slot);
        self.spare = entry.token;
    }
}

/// Where to look for a token: its last bytes, which are its signature's, are as good as random. A key's owner may find
/// signatures that fall into one place; a look-up there walks over some of them, and compares none but its own.
fn hash(token: &[u8]) -> u64 {
    let (head, tail) = token.split_at_checked(token.len().saturating_sub(16)).unwrap_or_default();
    let mut bytes = [0; 16];
    for (place, byte) in bytes.iter_mut().zip(tail) {
        *place = *byte;
    }
    let bytes = u128::from_le_bytes(bytes);
    let (low, high) = (bytes as u64, (bytes >> 64) as u64);
    mix(mix(low).wrapping_add(high) ^ head.len() as u64)
}

/// The finaliser of SplitMix64: every bit of the result depends on every bit of the value.
fn mix(mut value: u64) -> u64 {
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// What [`Cache::insert`] stores.
#[derive(Debug)]
pub struct Fresh<F> {
    /// Makes the verdict.
    pub make: F,
    /// Its size in bytes, heap included.
    pub value_bytes: usize,
    /// The token's `exp` since the Unix epoch; or earlier, where the value ages sooner.
    pub expires_at: Duration,
}

#[cfg(test)]
mod tests;
