//! A memory of a bounded number of things; what was not asked for longest goes first.
//! Knows no time: whoever keeps something that ends checks that.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

#[derive(Debug)]
pub struct Lru<K, V> {
    entries: HashMap<K, (u64, V)>,
    /// By the moment of the last use.
    order: BTreeMap<u64, K>,
    moment: u64,
    capacity: usize,
}

impl<K: Hash + Eq + Clone, V> Lru<K, V> {
    pub fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), moment: 0, capacity }
    }

    pub fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (used, value) = self.entries.get_mut(key)?;
        if let Some(key) = self.order.remove(used) {
            self.moment += 1;
            *used = self.moment;
            self.order.insert(self.moment, key);
        }
        Some(value)
    }

    pub fn insert(&mut self, key: K, value: V) {
        self.moment += 1;
        if let Some((used, _)) = self.entries.insert(key.clone(), (self.moment, value)) {
            self.order.remove(&used);
        }
        self.order.insert(self.moment, key);
        if self.entries.len() > self.capacity
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.order.len());
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays() {
        let mut kept = Lru::new(2);
        for key in ["a", "b"] {
            kept.insert(key, 1);
        }
        assert_eq!(kept.get("a"), Some(&mut 1));
        kept.insert("c", 2);
        assert_eq!((kept.get("a").is_some(), kept.get("b").is_some()), (true, false));
        kept.insert("c", 3);
        assert_eq!(kept.get("c"), Some(&mut 3));
        assert_eq!(kept.len(), 2);
        kept.clear();
        assert_eq!(kept.get("c"), None);
        assert_eq!(kept.len(), 0);
    }
}
