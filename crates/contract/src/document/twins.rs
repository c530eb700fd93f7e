//! Finds members that stand twice in one object. A JSON reader keeps the last of them and says nothing, so that a
//! document could mean something else than what a person reads first.
//! Knows nothing of what the members mean.

use std::{cell::RefCell, collections::BTreeSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Mistake, place};

/// The most that are reported: a document may be a client's, and the answer must not outgrow it.
const MOST: usize = 20;

/// The first members of `text` that stand in their object for the second time, at most [`MOST`]. Text that is not
/// JSON has none.
pub(super) fn find(text: &str) -> Vec<Mistake> {
    let twins = RefCell::new(Vec::new());
    let mut reader = serde_json::Deserializer::from_str(text);
    // A text that breaks off was refused by the caller, who has the better words for it.
    let walked = Walk { path: "$", twins: &twins }.deserialize(&mut reader);
    match walked {
        Ok(()) => twins.into_inner(),
        Err(_) => Vec::new(),
    }
}

/// Walks one value that stands at `path`.
#[derive(Clone, Copy)]
struct Walk<'w> {
    path: &'w str,
    twins: &'w RefCell<Vec<Mistake>>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            let path = format!("{}[{index}]", self.path);
            if items.next_element_seed(Walk { path: &path, ..self })?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = members.next_key::<String>()? {
            let path = place::member(self.path, &name);
            if names.insert(name) {
                members.next_value_seed(Walk { path: &path, ..self })?;
            } else {
                let mut twins = self.twins.borrow_mut();
                if twins.len() < MOST {
                    twins.push(Mistake {
                        path,
                        cause: "stands twice".to_owned(),
                        mend: "keep one of them".to_owned(),
                    });
                }
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_is_bounded() {
        for (members, expected) in [(1, 0), (2, 1), (21, 20), (500, MOST)] {
            let text = format!("{{{}}}", vec![r#""a":1"#; members].join(","));
            assert_eq!(find(&text).len(), expected, "{members} members");
        }
        assert_eq!(find(r#"{"a":1,"a":"#), []);
    }
}
