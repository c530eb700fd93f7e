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
        while from < to {
            let Node::Text(span) = document.nodes.get(from)? else { return None };
            let value = from.saturating_add(1);
            // Most names differ in their length.
            if span.end.saturating_sub(span.start) == name.len() && document.str(*span) == name {
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
            Self::Null | Self::Bool(_) | Self::Whole(_) | Self::Fraction(_) | Self::Text(_) => {
                at.saturating_add(1)
            }
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
            Node::Text(span) => Value::Text(self.document.str(span)),
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
    fn borrowed(&mut self, text: &str) {
        // Both are addresses of one allocation: the reader lends pieces of what it was given.
        let start = text.as_ptr().addr().checked_sub(self.text.as_ptr().addr());
        match start.map(|start| (start, start.saturating_add(text.len()))) {
            Some((start, end)) if self.text.get(start..end) == Some(text) => {
                self.nodes.push(Node::Text(Span { start, end, unescaped: false }));
            }
            _ => self.owned(text),
        }
    }

    fn owned(&mut self, text: &str) {
        let start = self.unescaped.len();
        self.unescaped.push_str(text);
        let end = self.unescaped.len();
        self.nodes.push(Node::Text(Span { start, end, unescaped: true }));
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
        self.builder.borrowed(value);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.builder.owned(value);
        Ok(())
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
            // A name is a text at any depth.
            let name = self.inner()?;
            if members.next_key_seed(name)?.is_none() {
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

/// Whether the object at `at` has a member twice.
fn has_twins(builder: &Builder<'_>, at: usize) -> bool {
    /// Up to so many names, comparing each with each is cheaper than a list to sort.
    const FEW: usize = 16;
    let names = || Names { builder, at: at.saturating_add(1) };
    if names().nth(FEW).is_none() {
        let mut rest = names();
        while let Some(name) = rest.next() {
            if rest.clone().any(|other| other == name) {
                return true;
            }
        }
        return false;
    }
    let mut names: Vec<&[u8]> = names().collect();
    names.sort_unstable();
    names.iter().zip(names.iter().skip(1)).any(|(one, next)| one == next)
}

/// The names of the object that was read last.
#[derive(Clone)]
struct Names<'b> {
    builder: &'b Builder<'b>,
    at: usize,
}

impl<'b> Iterator for Names<'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        let Node::Text(span) = self.builder.nodes.get(self.at)? else { return None };
        let value = self.at.saturating_add(1);
        self.at = self.builder.nodes.get(value)?.after(value);
        let text = if span.unescaped { &self.builder.unescaped } else { self.builder.text };
        text.as_bytes().get(span.start..span.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(), Fault>) {
        assert_eq!(Document::read(text.as_bytes().to_vec(), 3).map(drop), expected, "{text}");
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
        let not_utf8 = Document::read(b"{\"a\":\"\xff\"}".to_vec(), 3);
        assert_eq!(not_utf8.map(drop), Err(Fault::NotAnObject));
    }

    #[test]
    fn keeps_whole_numbers_exact() {
        let text = br#"{"a":18446744073709551615,"b":-1,"c":1.5}"#;
        let read = Document::read(text.to_vec(), 3).unwrap();
        let read = read.root();
        assert!(matches!(read.get("a"), Some(Value::Whole(u64::MAX))));
        assert!(matches!(read.get("b"), Some(Value::Fraction(-1.0))));
        assert!(matches!(read.get("c"), Some(Value::Fraction(1.5))));
        assert!(read.has("c") && !read.has("d"));
    }

    #[test]
    fn finds_every_value_where_it_stands() {
        let text = r#" {"a" : [null,{"a":"x","b":[]},true,"\u0079\n","ä"],"" :{"a~b":"\u00e4" , "n":1}, "z":"end"} "#;
        let read = Document::read(text.as_bytes().to_vec(), 4).unwrap();
        let root = read.root();
        let text_at = |value: Option<Value<'_>>| value.and_then(Value::as_str).map(str::to_owned);
        assert_eq!(text_at(root.get("z")).as_deref(), Some("end"));
        let inner = root.get("").unwrap();
        assert_eq!(text_at(inner.member("a~b")).as_deref(), Some("ä"));
        assert!(matches!(inner.member("n"), Some(Value::Whole(1))));
        assert!(inner.member("a").is_none() && inner.member("z").is_none());
        let Some(Value::List(list)) = root.get("a") else { panic!() };
        let items: Vec<_> = list.iter().collect();
        assert!(matches!(items[..], [Value::Null, Value::Object(_), Value::Bool(true), ..]));
        assert_eq!(text_at(items[1].member("a")).as_deref(), Some("x"));
        assert!(items[1].member("null").is_none());
        let Some(Value::List(empty)) = items[1].member("b") else { panic!() };
        assert_eq!(empty.iter().count(), 0);
        assert_eq!(items[3].as_str(), Some("y\n"));
        assert_eq!((items[4].as_str(), items.len()), (Some("ä"), 5));
        assert_eq!(read.text(), text);
    }

    #[test]
    fn j10_many_members_are_compared_too() {
        for count in [1, 2, 15, 16, 17, 18, 400] {
            let members = |last: usize| {
                let names = (0..count - 1).chain([last]);
                let members: Vec<_> = names.map(|name| format!("\"n{name}\":[{name}]")).collect();
                format!("{{{}}}", members.join(","))
            };
            check(&members(count), Ok(()));
            for twin in [0, (count - 1) / 2, count.saturating_sub(2)] {
                let expected = if count > 1 { Err(Fault::MemberTwice) } else { Ok(()) };
                check(&members(twin), expected);
            }
        }
    }
}
