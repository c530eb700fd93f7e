//! Reads a result that an agent wrote. Stricter than JSON: what PostgreSQL's `jsonb` would refuse or silently
//! change (a NUL in a string, a key twice) is refused here with its reason, so that a run ends typed instead of
//! failing while it is stored. Depth is bounded by serde_json (128).

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// Why a result is refused. Carries the parser's message with line and column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the result is not acceptable JSON: {0}")]
pub struct Refused(String);

/// Reads exactly one JSON value.
///
/// # Errors
/// [`Refused`] for anything that is not JSON, is nested deeper than 128, names a key twice in one object or has
/// a NUL character in a string or key.
pub fn strict(bytes: &[u8]) -> Result<Value, Refused> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| Refused(error.to_string()))?;
    Ok(value)
}

struct Strict;

fn no_nul<E: serde::de::Error>(text: String) -> Result<String, E> {
    if text.contains('\0') {
        return Err(E::custom("a string contains the character U+0000"));
    }
    Ok(text)
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
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

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        no_nul(value).map(Value::String)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = object.next_key::<String>()? {
            let key = no_nul(key)?;
            let value = object.next_value_seed(Self)?;
            if members.contains_key(&key) {
                return Err(A::Error::custom(format!("the key \"{key}\" appears twice")));
            }
            members.insert(key, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &[u8], refusal: Option<&str>) {
        let shown = String::from_utf8_lossy(text);
        match (strict(text), refusal) {
            (Ok(value), None) => {
                assert_eq!(value, serde_json::from_slice::<Value>(text).unwrap(), "{shown}");
            }
            (Err(Refused(message)), Some(part)) => {
                assert!(message.contains(part), "{shown}: {message}");
            }
            (got, expected) => panic!("{shown}: {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn takes_what_jsonb_keeps_and_refuses_the_rest() {
        check(br#"{"a":[1,-2,1.5,null,true,"x"],"b":{"a":{}}}"#, None);
        check(b" 7 \n", None);
        check(br#""\u00e9\\u0000""#, None);
        check(br#"{"a":1,"a":2}"#, Some("\"a\" appears twice"));
        check(br#"{"x":[{"b":1,"c":2,"b":1}]}"#, Some("\"b\" appears twice"));
        check(br#"{"a":"\u0000"}"#, Some("U+0000"));
        check(br#"{"\u0000":1}"#, Some("U+0000"));
        check(b"NaN", Some("expected"));
        check(b"1e999", Some("out of range"));
        check(b"\"\xff\"", Some("invalid unicode"));
        check(br#""\ud800""#, Some("hex escape"));
        check(b"{} {}", Some("trailing"));
        check(b"", Some("EOF"));
        check("[".repeat(127).as_bytes(), Some("EOF"));
        check("[".repeat(1_000_000).as_bytes(), Some("recursion limit"));
    }
}
