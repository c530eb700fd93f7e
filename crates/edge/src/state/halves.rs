//! A bounded map of two halves: what is used moves to the young one, and when that is full the old one is dropped
//! whole. Nothing is looked for, nothing is ordered. Knows neither clocks nor what it keeps.

use std::{borrow::Borrow, hash::Hash};

use hashbrown::HashMap;

/// At most twice as many entries as one half takes.
#[derive(Debug)]
pub(crate) struct Halves<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    per_half: usize,
}

impl<K: Hash + Eq, V> Halves<K, V> {
    pub(crate) fn new(per_half: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), per_half }
    }

    /// What is kept under `key`, which counts as use.
    pub(crate) fn get<Q>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        // Only what is old moves, so that a key in use costs one look-up.
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.insert(key, value);
        }
        self.young.get(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.per_half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        // A key stands in one half only: what is taken out must be gone.
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    pub(super) fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.young.remove(key);
        self.old.remove(key);
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        self.young.retain(|_, value| keep(value));
        self.old.retain(|_, value| keep(value));
    }

    /// Forgets everything; the memory stays for what comes next.
    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
