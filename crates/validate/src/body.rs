//! Reads a body: strictly one JSON value (RFC 8259), no member twice, not nested too deep. Knows no schemas.

use std::{borrow::Cow, cell::Cell, cmp::Ordering, fmt};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

/// How deep arrays and objects may stand in each other.
pub(crate) const MAX_DEPTH: u32 = 64;

/// A value of a body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'b> {
    Null,
    Boolean(bool),
    Number(Number),
    String(Cow<'b, str>),
    Array(Vec<Value<'b>>),
    /// By name, so that members are found fast and twins stand side by side.
    Object(Vec<(Cow<'b, str>, Value<'b>)>),
}

/// Why bytes are no body. The words may be shown to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    NotJson,
    Twins,
    TooDeep,
}

impl Malformed {
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::NotJson => "the body is not one JSON value in UTF-8",
            Self::Twins => "an object has two members of the same name",
            Self::TooDeep => "arrays and objects are nested more than 64 deep",
        }
    }
}

/// Reads `bytes`, which are not longer than the caller allows.
pub(crate) fn read(bytes: &[u8]) -> Result<Value<'_>, Malformed> {
    let cause = Cell::new(Malformed::NotJson);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = Seed { depth: 0, cause: &cause }.deserialize(&mut reader);
    let value = read.map_err(|_text| cause.get())?;
    match reader.end() {
        Ok(()) => Ok(value),
        Err(_) => Err(Malformed::NotJson),
    }
}

#[derive(Clone, Copy)]
struct Seed<'c> {
    /// How many arrays and objects are around.
    depth: u32,
    /// Told apart from a mere syntax error, whose text quotes the body.
    cause: &'c Cell<Malformed>,
}

impl Seed<'_> {
    fn refuse<E: de::Error>(self, cause: Malformed) -> E {
        self.cause.set(cause);
        E::custom("")
    }

    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(self.refuse(Malformed::TooDeep));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'b> DeserializeSeed<'b> for Seed<'_> {
    type Value = Value<'b>;

    fn deserialize<D: Deserializer<'b>>(self, reader: D) -> Result<Value<'b>, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'b> Visitor<'b> for Seed<'_> {
    type Value = Value<'b>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value<'b>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value<'b>, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value<'b>, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value<'b>, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value<'b>, E> {
        match Number::from_f64(value) {
            Some(number) => Ok(Value::Number(number)),
            None => Err(self.refuse(Malformed::NotJson)),
        }
    }

    fn visit_borrowed_str<E: de::Error>(self, value: &'b str) -> Result<Value<'b>, E> {
        Ok(Value::String(Cow::Borrowed(value)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value<'b>, E> {
        Ok(Value::String(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'b>>(self, mut items: A) -> Result<Value<'b>, A::Error> {
        let seed = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(seed)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'b>>(self, mut members: A) -> Result<Value<'b>, A::Error> {
        let seed = self.deeper()?;
        let mut values = Vec::new();
        while let Some(name) = members.next_key_seed(Name)? {
            values.push((name, members.next_value_seed(seed)?));
        }
        values.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut pairs = values.iter().zip(values.iter().skip(1));
        if pairs.any(|((one, _), (other, _))| one == other) {
            return Err(self.refuse(Malformed::Twins));
        }
        Ok(Value::Object(values))
    }
}

/// A member's name, borrowed where no escape is in it.
struct Name;

impl<'b> DeserializeSeed<'b> for Name {
    type Value = Cow<'b, str>;

    fn deserialize<D: Deserializer<'b>>(self, reader: D) -> Result<Cow<'b, str>, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'b> Visitor<'b> for Name {
    type Value = Cow<'b, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: de::Error>(self, name: &'b str) -> Result<Cow<'b, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Cow<'b, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// Compares numbers by what they mean, exactly: `1` is `1.0`, and 2^53 + 1 is not 2^53.
pub(crate) fn compare_numbers(one: &Number, other: &Number) -> Ordering {
    match (whole(one), whole(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        (Some(one), None) => against_fraction(one, float(other)),
        (None, Some(other)) => against_fraction(other, float(one)).reverse(),
        (None, None) => float(one).total_cmp(&float(other)),
    }
}

/// The number if it is whole and below 2^126.
fn whole(number: &Number) -> Option<i128> {
    if let Some(number) = number.as_u64() {
        return Some(i128::from(number));
    }
    if let Some(number) = number.as_i64() {
        return Some(i128::from(number));
    }
    let float = float(number);
    // Exact: a whole float of this size is an `i128`.
    (float.fract() == 0.0 && float.abs() < LARGEST).then_some(float as i128)
}

/// 2^126.
const LARGEST: f64 = 8.507_059_173_023_462e37;

/// `fraction` is no whole number below 2^126.
fn against_fraction(whole: i128, fraction: f64) -> Ordering {
    if fraction.abs() >= LARGEST {
        return if fraction > 0.0 { Ordering::Less } else { Ordering::Greater };
    }
    // Between two whole numbers: below the upper one.
    if whole <= fraction.floor() as i128 { Ordering::Less } else { Ordering::Greater }
}

fn float(number: &Number) -> f64 {
    number.as_f64().unwrap_or_default()
}

#[cfg(test)]
mod tests;
