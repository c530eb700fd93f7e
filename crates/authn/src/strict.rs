//! Reads JSON that came from outside: one object, no member twice at any depth, bounded nesting.
//! `serde_json::Value` would let the last of two equal members win, silently (acceptance J10).
//! Knows nothing of tokens.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// A JSON value that was read strictly.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// A whole number from 0.
    Whole(u64),
    /// Every other number.
    Fraction(f64),
    Text(String),
    List(Vec<Value>),
    Object(Object),
}

/// The members of an object in their order, no name twice.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Object(Vec<(String, Value)>);

/// Why a text was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    NotAnObject,
    MemberTwice,
    TooDeep,
}

/// Reads `text` as one object nested at most `depth` deep; the object itself is the first level.
pub(crate) fn object(text: &[u8], depth: usize) -> Result<Object, Fault> {
    let fault = Cell::new(Fault::NotAnObject);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Strict { depth, fault: &fault }.deserialize(&mut reader);
    match (value, reader.end()) {
        (Ok(Value::Object(object)), Ok(())) => Ok(object),
        _ => Err(fault.get()),
    }
}

// === impl Value ===

impl Value {
    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What an RFC 6901 pointer names; lists are not descended into.
    pub(crate) fn member(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Object(object) => object.get(name),
            _ => None,
        }
    }
}

// === impl Object ===

impl Object {
    /// The member `name`. `null` is a value here, not an absence.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn without_twins(members: Vec<(String, Value)>) -> Option<Self> {
        let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let twins = names.iter().zip(names.iter().skip(1)).any(|(one, next)| one == next);
        (!twins).then_some(Self(members))
    }
}

// === impl Strict ===

/// Reads one value of which at most `depth` levels may be lists or objects.
#[derive(Clone, Copy)]
struct Strict<'f> {
    depth: usize,
    fault: &'f Cell<Fault>,
}

impl Strict<'_> {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth, ..self }),
            None => Err(self.fail(Fault::TooDeep)),
        }
    }

    fn fail<E: serde::de::Error>(self, fault: Fault) -> E {
        self.fault.set(fault);
        E::custom("refused")
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Whole(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        // Only negative numbers come this way, and none of them is of use: the loss of precision harms nothing.
        Ok(Value::Fraction(value as f64))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        if value.is_finite() { Ok(Value::Fraction(value)) } else { Err(E::custom("refused")) }
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(name) = members.next_key::<String>()? {
            list.push((name, members.next_value_seed(inner)?));
        }
        match Object::without_twins(list) {
            Some(object) => Ok(Value::Object(object)),
            None => Err(A::Error::custom(self.fail::<A::Error>(Fault::MemberTwice))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(), Fault>) {
        assert_eq!(object(text.as_bytes(), 3).map(drop), expected, "{text}");
    }

    #[test]
    fn j10_refuses_a_member_that_stands_twice_at_any_depth() {
        check(r#"{"a":1,"b":1}"#, Ok(()));
        check(r#"{"a":1,"a":1}"#, Err(Fault::MemberTwice));
        check(r#"{"a":1,"\u0061":1}"#, Err(Fault::MemberTwice));
        check(r#"{"a":{"a":1},"b":[{"a":1}]}"#, Ok(()));
        check(r#"{"b":{"a":1,"c":2,"a":3}}"#, Err(Fault::MemberTwice));
        check(r#"{"b":[{"a":1,"a":3}]}"#, Err(Fault::MemberTwice));
        check(r#"{"":1,"":1}"#, Err(Fault::MemberTwice));
    }

    #[test]
    fn j10_refuses_nesting_beyond_the_bound() {
        check(r#"{"a":{"b":[1]}}"#, Ok(()));
        check(r#"{"a":{"b":[[]]}}"#, Err(Fault::TooDeep));
        check(r#"{"a":{"b":[{}]}}"#, Err(Fault::TooDeep));
    }

    #[test]
    fn takes_one_object_and_nothing_else() {
        for bad in [
            "",
            "[]",
            "1",
            "null",
            "{} {}",
            "{}x",
            "{\"a\":1e400}",
            "{a:1}",
            "{\"a\":1,}",
            "\u{feff}{}",
            r#"{"a":"\ud800"}"#,
            "{\"a\":\"\n\"}",
            "{\"a\":NaN}",
            "{\"a\":01}",
        ] {
            check(bad, Err(Fault::NotAnObject));
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}", 3), Err(Fault::NotAnObject));
    }

    #[test]
    fn keeps_whole_numbers_exact() {
        let read = object(br#"{"a":18446744073709551615,"b":-1,"c":1.5}"#, 3).unwrap();
        assert_eq!(read.get("a"), Some(&Value::Whole(u64::MAX)));
        assert_eq!(read.get("b"), Some(&Value::Fraction(-1.0)));
        assert_eq!(read.get("c"), Some(&Value::Fraction(1.5)));
        assert!(read.has("c") && !read.has("d"));
    }
}
