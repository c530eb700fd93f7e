//! Which prepared things are there, for whom, and which to make or remove next. Pure: time and things come from its
//! caller, who does one step after the other. What was made for one key is given to that key or to nobody, and once.
//! Knows no sandboxes.

use std::{collections::VecDeque, time::Duration};

/// What one is taken to hold until one was measured: twice what was seen of gVisor.
const EXPECTED_BYTES: u64 = 32 << 20;

/// How many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Of all keys.
    pub max: usize,
    /// Of one key.
    pub per_key: usize,
    /// Memory of all of them.
    pub memory_bytes: u64,
    /// Unused for this long they are removed.
    pub idle: Duration,
}

/// The things, each made for a key.
#[derive(Debug)]
pub struct Pool<K, V> {
    bounds: Bounds,
    ready: Vec<Ready<K, V>>,
    /// Found to be unfit: still there until they are removed.
    unfit: Vec<V>,
    /// Used lately, and not yet made for.
    wanted: VecDeque<K>,
    making: Option<K>,
    /// The largest that was seen.
    largest: u64,
    open: bool,
}

#[derive(Debug)]
struct Ready<K, V> {
    key: K,
    value: V,
    bytes: u64,
    /// When its key was used last.
    used: Duration,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<K, V> {
    /// Make one and say so: [`Pool::made`] or [`Pool::failed`].
    Make(K),
    /// Remove it.
    Remove(V),
    /// Nothing until something is wanted or taken, or this time has come.
    Rest(Option<Duration>),
    /// Nothing any more.
    End,
}

// === impl Pool ===

impl<K: Clone + PartialEq, V> Pool<K, V> {
    /// An empty one.
    pub const fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            ready: Vec::new(),
            unfit: Vec::new(),
            wanted: VecDeque::new(),
            making: None,
            largest: EXPECTED_BYTES,
            open: true,
        }
    }

    /// How many are there to be taken.
    pub fn len(&self) -> usize {
        self.ready.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// `key` was used at `now`, and may be again.
    pub fn want(&mut self, key: K, now: Duration) {
        self.touch(&key, now);
        let coming = self.wanted.iter().chain(&self.making).filter(|other| **other == key).count();
        if !self.open || self.count(&key) + coming >= self.bounds.per_key {
            return;
        }
        self.wanted.push_back(key);
        // What was used longest ago gives way.
        while self.wanted.len() > self.bounds.max {
            self.wanted.pop_front();
        }
    }

    /// One of `key` in which `fault` finds none. Else the last fault that was found; none where there was no such thing.
    pub fn take<F>(
        &mut self,
        key: &K,
        now: Duration,
        mut fault: impl FnMut(&mut V) -> Option<F>,
    ) -> Result<V, Option<F>> {
        self.touch(key, now);
        let mut found = None;
        while let Some(at) = self.ready.iter().position(|ready| ready.key == *key) {
            let mut value = self.ready.remove(at).value;
            match fault(&mut value) {
                None => return Ok(value),
                fault => found = fault,
            }
            self.unfit.push(value);
        }
        Err(found)
    }

    /// What to do at `now`; nothing is made unless the machine has `room`.
    pub fn next(&mut self, now: Duration, room: bool) -> Step<K, V> {
        if let Some(value) = self.unfit.pop() {
            return Step::Remove(value);
        }
        if !self.open {
            return self.ready.pop().map_or(Step::End, |ready| Step::Remove(ready.value));
        }
        let over = |ready: &Ready<K, V>| now >= ready.used + self.bounds.idle;
        if let Some(at) = self.ready.iter().position(over) {
            return Step::Remove(self.ready.remove(at).value);
        }
        if !room {
            self.wanted.clear();
        }
        while let Some(key) = self.wanted.pop_front() {
            if self.count(&key) >= self.bounds.per_key {
                continue;
            }
            if self.fits_one_more() {
                self.making = Some(key.clone());
                return Step::Make(key);
            }
            if let Some(at) = self.least_recently_used_besides(&key) {
                self.wanted.push_front(key);
                return Step::Remove(self.ready.remove(at).value);
            }
        }
        Step::Rest(self.ready.iter().map(|ready| ready.used + self.bounds.idle).min())
    }

    /// What [`Step::Make`] asked for is there, and holds `bytes`.
    pub fn made(&mut self, value: V, bytes: u64, now: Duration) {
        self.largest = self.largest.max(bytes);
        match self.making.take() {
            Some(key) => self.ready.push(Ready { key, value, bytes, used: now }),
            None => self.unfit.push(value),
        }
    }

    /// What [`Step::Make`] asked for could not be made. Its next use asks again.
    pub fn failed(&mut self) {
        self.making = None;
    }

    /// Makes nothing any more, and removes all.
    pub fn close(&mut self) {
        self.open = false;
        self.wanted.clear();
    }

    fn touch(&mut self, key: &K, now: Duration) {
        for ready in self.ready.iter_mut().filter(|ready| ready.key == *key) {
            ready.used = now;
        }
    }

    fn count(&self, key: &K) -> usize {
        self.ready.iter().filter(|ready| ready.key == *key).count()
    }

    fn fits_one_more(&self) -> bool {
        let held: u64 = self.ready.iter().map(|ready| ready.bytes).sum();
        self.ready.len() < self.bounds.max && held + self.largest <= self.bounds.memory_bytes
    }

    fn least_recently_used_besides(&self, key: &K) -> Option<usize> {
        let others = self.ready.iter().enumerate().filter(|(_, ready)| ready.key != *key);
        others.min_by_key(|(_, ready)| ready.used).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests;
