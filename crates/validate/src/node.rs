//! A body as the schema library reads it: every look is metered. Knows no schemas.

use std::{borrow::Cow, cmp::Ordering};

use jsonschema::{
    JsonType,
    json::{Array, Json, Node, NodeIdentity, Object},
};
use serde_json::{Number, Value as Json_};

use crate::{
    body::{Value, compare_numbers},
    meter::Meter,
};

/// The representation of JSON that bodies have.
#[derive(Debug)]
pub(crate) struct Body;

/// A value and who counts the looks at it; nobody where it is the name of a member, which was counted with the member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metered<'b> {
    value: &'b Value<'b>,
    meter: Option<&'b Meter>,
}

/// What an error says its instance is: nothing of the body, only whether there were steps left when it was made.
static IN_TIME: Json_ = Json_::Null;
static TOO_LATE: Json_ = Json_::Bool(false);

/// Whether the error with this instance was made while there were steps left.
pub(crate) fn was_in_time(instance: &Json_) -> bool {
    instance.is_null()
}

impl<'b> Metered<'b> {
    pub(crate) fn new(value: &'b Value<'b>, meter: &'b Meter) -> Self {
        Self { value, meter: Some(meter) }
    }

    /// The value, for a step; none once nothing is left.
    fn look(&self) -> Option<&'b Value<'b>> {
        match self.meter {
            Some(meter) if !meter.spend(1) => None,
            _ => Some(self.value),
        }
    }

    fn spend_text(&self, text: &str) {
        if let Some(meter) = self.meter {
            meter.spend_text(text);
        }
    }

    fn spend_bytes(&self, bytes: usize) {
        if let Some(meter) = self.meter {
            meter.spend_bytes(bytes);
        }
    }

    fn within(&self, value: &'b Value<'b>) -> Self {
        Self { value, meter: self.meter }
    }

    fn reported(&self) -> &'static Json_ {
        if let Some(meter) = self.meter {
            meter.count_error();
            if meter.is_spent() {
                return &TOO_LATE;
            }
        }
        &IN_TIME
    }
}

impl Json for Body {
    type Node<'b> = Metered<'b>;
    type PreparedKey = Box<str>;
    type StringBuffer = String;

    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> Box<str> {
        key.into()
    }

    fn with_string_node<T>(
        _buffer: &mut String,
        string: &str,
        f: impl FnOnce(Metered<'_>) -> T,
    ) -> T {
        f(Metered { value: &Value::String(Cow::Borrowed(string)), meter: None })
    }
}

impl<'b> Node<'b, Body> for Metered<'b> {
    type Object = Members<'b>;
    type Array = Items<'b>;
    type Number = &'b Number;

    fn as_object(&self) -> Option<Members<'b>> {
        match self.look()? {
            Value::Object(members) => Some(Members { members, of: *self }),
            _ => None,
        }
    }

    fn as_array(&self) -> Option<Items<'b>> {
        match self.look()? {
            Value::Array(items) => Some(Items { items, of: *self }),
            _ => None,
        }
    }

    fn as_string(&self) -> Option<Cow<'b, str>> {
        match self.look()? {
            Value::String(text) => {
                self.spend_text(text);
                Some(Cow::Borrowed(text))
            }
            _ => None,
        }
    }

    fn as_number(&self) -> Option<&'b Number> {
        match self.look()? {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self.look()? {
            Value::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        self.json_type() == JsonType::Null
    }

    fn json_type(&self) -> JsonType {
        match self.look() {
            None | Some(Value::Null) => JsonType::Null,
            Some(Value::Boolean(_)) => JsonType::Boolean,
            Some(Value::Number(_)) => JsonType::Number,
            Some(Value::String(_)) => JsonType::String,
            Some(Value::Array(_)) => JsonType::Array,
            Some(Value::Object(_)) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &Json_) -> bool {
        match (self.look(), expected) {
            (Some(Value::Null), Json_::Null) => true,
            (Some(Value::Boolean(one)), Json_::Bool(other)) => one == other,
            (Some(Value::Number(one)), Json_::Number(other)) => compare_numbers(one, other).is_eq(),
            (Some(Value::String(one)), Json_::String(other)) => {
                self.spend_bytes(other.len());
                one.as_ref() == other
            }
            (Some(Value::Array(ones)), Json_::Array(others)) => {
                ones.len() == others.len()
                    && ones
                        .iter()
                        .zip(others)
                        .all(|(one, other)| self.within(one).equals_value(other))
            }
            (Some(Value::Object(ones)), Json_::Object(others)) => {
                ones.len() == others.len()
                    && ones.iter().all(|(name, one)| {
                        others
                            .get(name.as_ref())
                            .is_some_and(|other| self.within(one).equals_value(other))
                    })
            }
            _ => false,
        }
    }

    /// Only errors ask for it, and they must not carry the client's data.
    fn to_value(&self) -> Cow<'b, Json_> {
        Cow::Borrowed(self.reported())
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref(self.value).addr()))
    }
}

/// The members of an object, by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Members<'b> {
    members: &'b [(Cow<'b, str>, Value<'b>)],
    of: Metered<'b>,
}

impl<'b> Object<'b, Body> for Members<'b> {
    type Node = Metered<'b>;
    type MemberName = &'b str;
    type MembersIter = MembersIter<'b>;

    fn len(&self) -> usize {
        self.members.len()
    }

    fn get(&self, key: &Box<str>) -> Option<Metered<'b>> {
        self.of.look()?;
        let place = self.members.binary_search_by(|(name, _)| name.as_ref().cmp(key)).ok()?;
        self.members.get(place).map(|(_, value)| self.of.within(value))
    }

    fn members(&self) -> MembersIter<'b> {
        MembersIter { rest: self.members.iter(), of: self.of }
    }
}

/// The members one by one, while there are steps left.
#[derive(Debug)]
pub(crate) struct MembersIter<'b> {
    rest: std::slice::Iter<'b, (Cow<'b, str>, Value<'b>)>,
    of: Metered<'b>,
}

impl<'b> Iterator for MembersIter<'b> {
    type Item = (&'b str, Metered<'b>);

    fn next(&mut self) -> Option<Self::Item> {
        self.of.look()?;
        let (name, value) = self.rest.next()?;
        self.of.spend_text(name);
        Some((name, self.of.within(value)))
    }
}

/// The items of an array.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Items<'b> {
    items: &'b [Value<'b>],
    of: Metered<'b>,
}

impl<'b> Array<'b, Body> for Items<'b> {
    type Node = Metered<'b>;
    type ElementsIter = ItemsIter<'b>;

    fn len(&self) -> usize {
        self.items.len()
    }

    fn elements(&self) -> ItemsIter<'b> {
        ItemsIter { rest: self.items.iter(), of: self.of }
    }

    /// By sorting: twins stand side by side then, at n log n comparisons for any items.
    fn is_unique(&self) -> bool {
        let mut sorted: Vec<&Value<'b>> = self.items.iter().collect();
        sorted.sort_unstable_by(|one, other| self.of.compare(one, other));
        let pairs = sorted.iter().zip(sorted.iter().skip(1));
        !pairs.into_iter().any(|(one, other)| self.of.compare(one, other).is_eq())
    }
}

/// The items one by one, while there are steps left.
#[derive(Debug)]
pub(crate) struct ItemsIter<'b> {
    rest: std::slice::Iter<'b, Value<'b>>,
    of: Metered<'b>,
}

impl<'b> Iterator for ItemsIter<'b> {
    type Item = Metered<'b>;

    fn next(&mut self) -> Option<Metered<'b>> {
        self.of.look()?;
        self.rest.next().map(|value| self.of.within(value))
    }
}

impl<'b> Metered<'b> {
    /// An order of all values in which equal ones are those that JSON Schema calls equal. Metered by what it looks at.
    fn compare(&self, one: &Value<'_>, other: &Value<'_>) -> Ordering {
        if self.look().is_none() {
            return Ordering::Equal;
        }
        match (one, other) {
            (Value::Boolean(one), Value::Boolean(other)) => one.cmp(other),
            (Value::Number(one), Value::Number(other)) => compare_numbers(one, other),
            (Value::String(one), Value::String(other)) => self.compare_text(one, other),
            (Value::Array(ones), Value::Array(others)) => {
                ones.len().cmp(&others.len()).then_with(|| {
                    let pairs = ones.iter().zip(others);
                    first_unequal(pairs.map(|(one, other)| self.compare(one, other)))
                })
            }
            (Value::Object(ones), Value::Object(others)) => {
                ones.len().cmp(&others.len()).then_with(|| {
                    let pairs = ones.iter().zip(others);
                    first_unequal(pairs.map(|((name, one), (other_name, other))| {
                        self.compare_text(name, other_name).then_with(|| self.compare(one, other))
                    }))
                })
            }
            _ => rank(one).cmp(&rank(other)),
        }
    }

    fn compare_text(&self, one: &str, other: &str) -> Ordering {
        self.spend_bytes(one.len().min(other.len()));
        one.cmp(other)
    }
}

fn first_unequal(mut orders: impl Iterator<Item = Ordering>) -> Ordering {
    orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn rank(value: &Value<'_>) -> u8 {
    match value {
        Value::Null => 0,
        Value::Boolean(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}
