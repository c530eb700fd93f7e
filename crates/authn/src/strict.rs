//! Reads JSON that came from outside: one object, no member twice at any depth, bounded nesting.
//! `serde_json::Value` would let the last of two equal members win, silently (acceptance J10), and makes an allocation
//! for every name and every text. Here a document is its text and one flat list of what stands where in it: tokens are
//! read on the request path.
//! Knows nothing of tokens.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// A document that was read strictly.
#[derive(Debug, Clone, Default)]
pub(crate) struct Document {
    text: String,
    /// The texts that do not stand in `text` as they are: those with escapes.
    unescaped: String,
    nodes: Vec<Node>,
}

/// A JSON value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'d> {
    Null,
    Bool(bool),
    /// A whole number from 0.
    Whole(u64),
    /// Every other number.
    Fraction(f64),
    Text(&'d str),
    List(List<'d>),
    Object(Object<'d>),
}

/// The items of a list in their order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct List<'d>(Inner<'d>);

/// The members of an object in their order, no name twice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Object<'d>(Inner<'d>);

/// Why a text was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    NotAnObject,
    MemberTwice,
    TooDeep,
}

/// One value, or a member's name before its value. What is inside of a list or an object follows it.
#[derive(Debug, Clone, Copy)]
enum Node {
    /// `key` is that of [`key`].
    Name {
        span: Span,
        key: u64,
    },
    Null,
    Bool(bool),
    Whole(u64),
    Fraction(f64),
    Text(Span),
    /// `end` is the place of the first node behind it.
    List {
        end: usize,
    },
    Object {
        end: usize,
    },
}

/// Where a text stands.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    unescaped: bool,
}

/// The nodes inside of a list or an object.
#[derive(Debug, Clone, Copy)]
struct Inner<'d> {
    document: &'d Document,
    from: usize,
    to: usize,
}

// === impl Document ===

impl Document {
    /// Reads `text` as one object nested at most `depth` deep; the object itself is the first level.
    pub(crate) fn read(text: Vec<u8>, depth: usize) -> Result<Self, Fault> {
        // A member costs about this much of a token's text.
        const BYTES_PER_NODE: usize = 10;
        let text = String::from_utf8(text).map_err(|_not_utf8| Fault::NotAnObject)?;
        let mut builder = Builder {
            text: &text,
            unescaped: String::new(),
            nodes: Vec::with_capacity(text.len() / BYTES_PER_NODE),
            fault: Fault::NotAnObject,
        };
        let mut reader = serde_json::Deserializer::from_str(&text);
        let read = Strict { depth, builder: &mut builder }.deserialize(&mut reader);
        let Builder { unescaped, nodes, fault, .. } = builder;
        match (read, reader.end(), nodes.first()) {
            (Ok(()), Ok(()), Some(Node::Object { .. })) => Ok(Self { text, unescaped, nodes }),
            _ => Err(fault),
        }
    }

    /// The object that it is.
    pub(crate) fn root(&self) -> Object<'_> {
        Object(Inner { document: self, from: 1, to: self.nodes.len() })
    }

    /// The text that was read.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn str(&self, span: Span) -> &str {
        let text = if span.unescaped { &self.unescaped } else { &self.text };
        text.get(span.start..span.end).unwrap_or_default()
    }
}

// === impl Value ===

impl<'d> Value<'d> {
    pub(crate) fn as_str(self) -> Option<&'d str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What one step of an RFC 6901 pointer names; lists are not descended into.
    pub(crate) fn member(self, name: &str) -> Option<Self> {
        match self {
            Self::Object(object) => object.get(name),
            _ => None,
        }
    }
}

// === impl Object ===

impl<'d> Object<'d> {
    /// The member `name`. `null` is a value here, not an absence.
    pub(crate) fn get(self, name: &str) -> Option<Value<'d>> {
        let Inner { document, mut from, to } = self.0;
        let wanted = key(name);
        while from < to {
            let Node::Name { span, key } = document.nodes.get(from)? else { return None };
            let value = from.saturating_add(1);
            if *key == wanted && (name.len() < WHOLE || document.str(*span) == name) {
                return Inner { from: value, ..self.0 }.next();
            }
            from = document.nodes.get(value)?.after(value);
        }
        None
    }

    pub(crate) fn has(self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

// === impl List ===

impl<'d> List<'d> {
    /// The items one by one.
    pub(crate) fn iter(self) -> impl Iterator<Item = Value<'d>> {
        self.0
    }

    /// How many there are.
    pub(crate) fn len(self) -> usize {
        self.0.count()
    }
}

// === impl Node ===

impl Node {
    /// The place behind it and all inside of it, where it stands at `at`.
    fn after(self, at: usize) -> usize {
        match self {
            Self::List { end } | Self::Object { end } => end,
            Self::Name { .. } | Self::Null | Self::Bool(_) => at.saturating_add(1),
            Self::Whole(_) | Self::Fraction(_) | Self::Text(_) => at.saturating_add(1),
        }
    }
}

// === impl Inner ===

impl<'d> Iterator for Inner<'d> {
    type Item = Value<'d>;

    fn next(&mut self) -> Option<Value<'d>> {
        if self.from >= self.to {
            return None;
        }
        let inside = Self { from: self.from.saturating_add(1), ..*self };
        let node = *self.document.nodes.get(self.from)?;
        self.from = node.after(self.from);
        Some(match node {
            Node::Null => Value::Null,
            Node::Bool(value) => Value::Bool(value),
            Node::Whole(number) => Value::Whole(number),
            Node::Fraction(number) => Value::Fraction(number),
            // A name is never where a value is looked for.
            Node::Name { span, .. } | Node::Text(span) => Value::Text(self.document.str(span)),
            Node::List { end } => Value::List(List(Self { to: end, ..inside })),
            Node::Object { end } => Value::Object(Object(Self { to: end, ..inside })),
        })
    }
}

/// What has been read so far.
struct Builder<'t> {
    text: &'t str,
    unescaped: String,
    nodes: Vec<Node>,
    fault: Fault,
}

impl Builder<'_> {
    fn fail<E: serde::de::Error>(&mut self, fault: Fault) -> E {
        self.fault = fault;
        E::custom("refused")
    }

    /// A text that stands in ours as it is.
    fn borrowed(&mut self, text: &str) -> Span {
        // Both are addresses of one allocation: the reader lends pieces of what it was given.
        let start = text.as_ptr().addr().checked_sub(self.text.as_ptr().addr());
        match start.map(|start| (start, start.saturating_add(text.len()))) {
            Some((start, end)) if end <= self.text.len() => Span { start, end, unescaped: false },
            _ => self.owned(text),
        }
    }

    fn owned(&mut self, text: &str) -> Span {
        let start = self.unescaped.len();
        self.unescaped.push_str(text);
        let end = self.unescaped.len();
        Span { start, end, unescaped: true }
    }

    fn close(&mut self, at: usize, node: fn(usize) -> Node) {
        let end = self.nodes.len();
        if let Some(open) = self.nodes.get_mut(at) {
            *open = node(end);
        }
    }
}

/// Reads one value of which at most `depth` levels may be lists or objects.
struct Strict<'b, 't> {
    depth: usize,
    builder: &'b mut Builder<'t>,
}

impl<'t> Strict<'_, 't> {
    /// What reads the values inside of this one.
    fn inner<E: serde::de::Error>(&mut self) -> Result<Strict<'_, 't>, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Strict { depth, builder: &mut *self.builder }),
            None => Err(self.builder.fail(Fault::TooDeep)),
        }
    }

    fn push<E>(self, node: Node) -> Result<(), E> {
        self.builder.nodes.push(node);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.push(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.push(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.push(Node::Whole(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        // Only negative numbers come this way, and none of them is of use: the loss of precision harms nothing.
        self.push(Node::Fraction(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.push(Node::Fraction(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<(), E> {
        let span = self.builder.borrowed(value);
        self.push(Node::Text(span))
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        let span = self.builder.owned(value);
        self.push(Node::Text(span))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let at = self.builder.nodes.len();
        self.builder.nodes.push(Node::List { end: 0 });
        loop {
            let item = self.inner()?;
            if items.next_element_seed(item)?.is_none() {
                break;
            }
        }
        self.builder.close(at, |end| Node::List { end });
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let at = self.builder.nodes.len();
        self.builder.nodes.push(Node::Object { end: 0 });
        loop {
            let Strict { builder, .. } = self.inner()?;
            if members.next_key_seed(Name { builder })?.is_none() {
                break;
            }
            let value = self.inner()?;
            members.next_value_seed(value)?;
        }
        self.builder.close(at, |end| Node::Object { end });
        if has_twins(self.builder, at) {
            return Err(A::Error::custom(self.builder.fail::<A::Error>(Fault::MemberTwice)));
        }
        Ok(())
    }
}

/// Reads a member's name.
struct Name<'b, 't> {
    builder: &'b mut Builder<'t>,
}

impl<'de> DeserializeSeed<'de> for Name<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<(), E> {
        let span = self.builder.borrowed(name);
        self.builder.nodes.push(Node::Name { span, key: key(name) });
        Ok(())
    }

    fn visit_str<E>(self, name: &str) -> Result<(), E> {
        let span = self.builder.owned(name);
        self.builder.nodes.push(Node::Name { span, key: key(name) });
        Ok(())
    }
}

/// Names shorter than this are told apart by their keys alone.
const WHOLE: usize = 8;

/// The first seven bytes of a name, and its length as far as a byte tells it: two names that differ in it differ.
fn key(name: &str) -> u64 {
    let mut bytes = [0; WHOLE];
    for (place, byte) in bytes.iter_mut().zip(name.bytes().take(WHOLE - 1)) {
        *place = byte;
    }
    let [.., length] = &mut bytes;
    *length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    u64::from_le_bytes(bytes)
}

/// Whether the object at `at` has a member twice.
fn has_twins(builder: &Builder<'_>, at: usize) -> bool {
    /// Up to so many names, comparing the key of each with each is cheaper than a list to sort.
    const FEW: usize = 16;
    let names = || Names { builder, at: at.saturating_add(1) };
    let mut keys = [0; FEW];
    let mut count = 0;
    for (_, key) in names() {
        match keys.get_mut(count) {
            Some(place) => *place = key,
            None => return are_twins(names()),
        }
        count += 1;
    }
    let mut rest = keys.get(..count).unwrap_or_default();
    while let Some((key, others)) = rest.split_first() {
        if others.contains(key) {
            return are_twins(names());
        }
        rest = others;
    }
    false
}

/// Whether two of these names are one, byte for byte.
fn are_twins<'b>(names: impl Iterator<Item = (&'b [u8], u64)>) -> bool {
    let mut names: Vec<&[u8]> = names.map(|(name, _)| name).collect();
    names.sort_unstable();
    names.iter().zip(names.iter().skip(1)).any(|(one, next)| one == next)
}

/// The names of the object that was read last, with their keys.
struct Names<'b> {
    builder: &'b Builder<'b>,
    at: usize,
}

impl<'b> Iterator for Names<'b> {
    type Item = (&'b [u8], u64);

    fn next(&mut self) -> Option<Self::Item> {
        let Node::Name { span, key } = self.builder.nodes.get(self.at)? else { return None };
        let value = self.at.saturating_add(1);
        self.at = self.builder.nodes.get(value)?.after(value);
        let text = if span.unescaped { &self.builder.unescaped } else { self.builder.text };
        Some((text.as_bytes().get(span.start..span.end)?, *key))
    }
}

#[cfg(test)]
mod tests;
