//! Members whose values are of a closed set of words, as types that cannot be wrong. Knows no set.

use std::{collections::BTreeMap, str::FromStr};

use serde_json::Value;

#[cfg(feature = "describe")]
use super::describe;
use super::{Document, place::member};

/// A closed set of words.
pub trait Words: FromStr {
    /// Each word that can be parsed.
    const WORDS: &'static [&'static str];

    /// The word.
    fn word(&self) -> &'static str;
}

impl Document<'_> {
    /// A required word.
    pub fn word<T: Words>(&self, name: &'static str, expected: &str) -> Option<T> {
        tell!(self, name, words(T::WORDS, expected).required());
        self.one(name, expected)
    }

    /// A word with a default.
    pub fn word_or<T: Words>(&self, name: &'static str, default: T, expected: &str) -> Option<T> {
        tell!(self, name, words(T::WORDS, expected).or(default.word().into()));
        self.one_or(name, default, expected)
    }

    /// A word that may be absent.
    pub fn word_opt<T: Words>(&self, name: &'static str, expected: &str) -> Option<Option<T>> {
        tell!(self, name, words(T::WORDS, expected));
        self.one_opt(name, expected)
    }

    /// A list of words. Absent is an empty list.
    pub fn word_list<T: Words>(&self, name: &'static str, expected: &str) -> Option<Vec<T>> {
        tell!(self, name, words(T::WORDS, expected).list());
        self.many(name, expected)
    }

    /// A required object from any name to a word.
    pub fn word_map<T: Words>(
        &self,
        name: &'static str,
        expected: &str,
    ) -> Option<BTreeMap<String, T>> {
        tell!(self, name, words(T::WORDS, expected).map().required());
        let each = format!("an object, each member {expected}");
        let value = self.required(name, &each)?;
        let Value::Object(members) = value else { return self.wrong(name, value, &each) };
        let mut map = Some(BTreeMap::new());
        for (key, value) in members {
            match (map.as_mut(), self.as_parsed(&member(name, key), value, expected)) {
                (Some(map), Some(word)) => drop(map.insert(key.clone(), word)),
                _ => map = None,
            }
        }
        map
    }
}
