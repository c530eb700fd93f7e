//! Reads a configuration document (a JSON object) and reports *all* its mistakes at once, each with its JSON
//! path, its cause and the mend. Filters and services read their configuration through this and nothing else,
//! so that an unknown or misspelt field can never mean "no policy".
//! Knows neither files nor hosts.
//!
//! Getters return `None` after noting a mistake: call them all, then build the value with `?`. The schema of a
//! document is what its reader asks for, so that a getter that is called on a condition stands in no schema.

use std::{
    cell::RefCell, collections::BTreeSet, fmt, net::SocketAddr, ops::RangeInclusive, str::FromStr,
};

use serde_json::{Map, Value};

/// Notes in the schema what the member `name` may be; nothing of it is in a module that runs.
macro_rules! tell {
    ($doc:ident, $name:expr, $($form:tt)+) => {
        #[cfg(feature = "describe")]
        $doc.tell($name, describe::Form::$($form)+);
    };
}

/// In place of reading an object: what its reader asks for.
macro_rules! tell_within {
    ($doc:ident, $name:expr, $build:expr, $($form:tt)+) => {
        #[cfg(feature = "describe")]
        if $doc.sheet.is_some() {
            let form = $doc.describe_within($build);
            $doc.tell($name, form.$($form)+);
            return None;
        }
    };
}

#[cfg(feature = "describe")]
mod describe;
mod place;
mod twins;
mod words;

#[cfg(feature = "describe")]
pub use describe::describe;
pub use place::member;
pub use words::Words;

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where: a JSON path such as `$.issuers[0].algorithms`; names with other signs stand as `["a.b"]`.
    pub path: String,
    /// What is wrong.
    pub cause: String,
    /// What to write instead.
    pub mend: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path, self.cause, self.mend)
    }
}

/// An object within the document being read.
pub struct Document<'a> {
    members: &'a Map<String, Value>,
    path: String,
    asked: RefCell<BTreeSet<&'static str>>,
    mistakes: &'a RefCell<Vec<Mistake>>,
    /// There while the reader is described, and there is no document.
    #[cfg(feature = "describe")]
    sheet: Option<RefCell<describe::Sheet>>,
}

/// Reads `text` with `build`. `Err` holds every mistake: members that stand twice, then the others in the order of
/// the getters' calls.
pub fn read<T>(
    text: &str,
    build: impl FnOnce(&Document<'_>) -> Option<T>,
) -> Result<T, Vec<Mistake>> {
    let whole = |cause: String, mend: &str| {
        vec![Mistake { path: "$".to_owned(), cause, mend: mend.to_owned() }]
    };
    let value: Value = serde_json::from_str(text)
        .map_err(|error| whole(format!("not JSON: {error}"), "write one JSON object"))?;
    let Value::Object(members) = &value else {
        return Err(whole("not an object".to_owned(), "write one JSON object"));
    };
    let mistakes = RefCell::new(twins::find(text));
    let built = Document::descend(members, "$".to_owned(), &mistakes, build);
    let mistakes = mistakes.into_inner();
    match built {
        Some(value) if mistakes.is_empty() => Ok(value),
        Some(_) | None if !mistakes.is_empty() => Err(mistakes),
        _ => Err(whole("refused without a reason".to_owned(), "report this as a bug")),
    }
}

impl<'a> Document<'a> {
    fn descend<T>(
        members: &'a Map<String, Value>,
        path: String,
        mistakes: &'a RefCell<Vec<Mistake>>,
        build: impl FnOnce(&Document<'a>) -> Option<T>,
    ) -> Option<T> {
        let here = Document {
            members,
            path,
            asked: RefCell::default(),
            mistakes,
            #[cfg(feature = "describe")]
            sheet: None,
        };
        let built = build(&here);
        here.refuse_unknown();
        built
    }

    fn refuse_unknown(&self) {
        let asked = self.asked.borrow();
        for name in self.members.keys().filter(|name| !asked.contains(name.as_str())) {
            let mend = match asked.iter().find(|known| near(known, name)) {
                Some(known) => format!("did you mean \"{known}\"?"),
                None => format!(
                    "remove it; known here: {}",
                    asked.iter().copied().collect::<Vec<_>>().join(", ")
                ),
            };
            self.note_at(place::member(&self.path, name), "unknown field", mend);
        }
    }

    /// Notes a mistake about the member `name` of this object.
    pub fn note(&self, name: &str, cause: impl Into<String>, mend: impl Into<String>) {
        self.note_at(format!("{}.{name}", self.path), cause, mend);
    }

    fn note_at(&self, path: String, cause: impl Into<String>, mend: impl Into<String>) {
        let (cause, mend) = (cause.into(), mend.into());
        self.mistakes.borrow_mut().push(Mistake { path, cause, mend });
    }

    /// The member as it stands; `null` counts as absent.
    pub fn raw(&self, name: &'static str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(name);
        self.members.get(name).filter(|value| !value.is_null())
    }

    /// Whether the member is there and `null`: what takes something away in a merge patch (RFC 7396).
    pub fn is_null(&self, name: &'static str) -> bool {
        self.asked.borrow_mut().insert(name);
        self.members.get(name).is_some_and(Value::is_null)
    }

    fn required(&self, name: &'static str, expected: &str) -> Option<&'a Value> {
        let value = self.raw(name);
        if value.is_none() {
            self.note(name, "missing", format!("write {expected}"));
        }
        value
    }

    fn wrong<T>(&self, name: &str, value: &Value, expected: &str) -> Option<T> {
        let shown = match value {
            Value::String(_) | Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
            Value::Null => "null".to_owned(),
        };
        self.note(name, format!("{shown} does not fit"), format!("write {expected}"));
        None
    }

    fn as_parsed<T: FromStr>(&self, name: &str, value: &Value, expected: &str) -> Option<T> {
        match value.as_str().filter(|text| !text.is_empty()).map(T::from_str) {
            Some(Ok(parsed)) => Some(parsed),
            _ => self.wrong(name, value, expected),
        }
    }

    fn one<T: FromStr>(&self, name: &'static str, expected: &str) -> Option<T> {
        self.required(name, expected).and_then(|value| self.as_parsed(name, value, expected))
    }

    fn one_or<T: FromStr>(&self, name: &'static str, default: T, expected: &str) -> Option<T> {
        match self.raw(name) {
            None => Some(default),
            Some(value) => self.as_parsed(name, value, expected),
        }
    }

    fn one_opt<T: FromStr>(&self, name: &'static str, expected: &str) -> Option<Option<T>> {
        match self.raw(name) {
            None => Some(None),
            Some(value) => self.as_parsed(name, value, expected).map(Some),
        }
    }

    fn many<T: FromStr>(&self, name: &'static str, expected: &str) -> Option<Vec<T>> {
        let mut items = Some(Vec::new());
        self.each(name, expected, |index, value| {
            let item = self.as_parsed(&format!("{name}[{index}]"), value, expected);
            match (items.as_mut(), item) {
                (Some(items), Some(item)) => items.push(item),
                _ => items = None,
            }
        })?;
        items
    }

    /// A required, non-empty string in the form of `T`; `expected` describes it for people.
    pub fn parsed<T: FromStr>(&self, name: &'static str, expected: &str) -> Option<T> {
        tell!(self, name, text(expected).required());
        self.one(name, expected)
    }

    /// As [`Self::parsed`], with a default.
    pub fn parsed_or<T: FromStr>(
        &self,
        name: &'static str,
        default: T,
        expected: &str,
    ) -> Option<T> {
        tell!(self, name, text(expected));
        self.one_or(name, default, expected)
    }

    /// As [`Self::parsed`], absent allowed.
    pub fn parsed_opt<T: FromStr>(&self, name: &'static str, expected: &str) -> Option<Option<T>> {
        tell!(self, name, text(expected));
        self.one_opt(name, expected)
    }

    /// A required, non-empty string.
    pub fn text(&self, name: &'static str) -> Option<String> {
        self.parsed(name, "a non-empty string")
    }

    /// A string with a default.
    pub fn text_or(&self, name: &'static str, default: &str) -> Option<String> {
        self.parsed_or_text(name, default, "a non-empty string")
    }

    /// As [`Self::parsed_or`], with a default that stands in the schema, too.
    pub fn parsed_or_text<T: FromStr>(
        &self,
        name: &'static str,
        default: &str,
        expected: &str,
    ) -> Option<T> {
        tell!(self, name, text(expected).or(default.into()));
        match self.one_opt(name, expected)? {
            Some(value) => Some(value),
            None => self.as_parsed(name, &Value::from(default), expected),
        }
    }

    /// A string that may be absent.
    pub fn text_opt(&self, name: &'static str) -> Option<Option<String>> {
        self.parsed_opt(name, "a non-empty string")
    }

    /// A required `address:port`.
    pub fn socket(&self, name: &'static str) -> Option<SocketAddr> {
        self.parsed(name, "an address and port such as \"127.0.0.1:8080\"")
    }

    /// A whole number within `range`; without a default it is required. The unit belongs into `name`.
    pub fn integer(
        &self,
        name: &'static str,
        default: Option<u64>,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        tell!(self, name, integer(&range).or_required(default.map(Value::from)));
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        match (self.raw(name), default) {
            (Some(value), _) => match value.as_u64().filter(|number| range.contains(number)) {
                Some(number) => Some(number),
                None => self.wrong(name, value, &expected),
            },
            (None, Some(default)) => Some(default),
            (None, None) => {
                self.note(name, "missing", format!("write {expected}"));
                None
            }
        }
    }

    /// As [`Self::integer`], absent allowed.
    pub fn integer_opt(
        &self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<Option<u64>> {
        tell!(self, name, integer(&range));
        match self.raw(name) {
            None => Some(None),
            Some(_) => self.integer(name, None, range).map(Some),
        }
    }

    /// `true` or `false`, with a default.
    pub fn flag(&self, name: &'static str, default: bool) -> Option<bool> {
        tell!(self, name, flag().or(default.into()));
        match self.raw(name) {
            None => Some(default),
            Some(Value::Bool(flag)) => Some(*flag),
            Some(value) => self.wrong(name, value, "true or false"),
        }
    }

    /// A list of non-empty strings, each in the form of `T`. Absent is an empty list.
    pub fn parsed_list<T: FromStr>(&self, name: &'static str, expected: &str) -> Option<Vec<T>> {
        tell!(self, name, text(expected).list());
        self.many(name, expected)
    }

    /// Notes that a list is empty, where it was read and may not be.
    pub fn refuse_empty<T>(&self, name: &'static str, items: Option<&[T]>, mend: &str) {
        #[cfg(feature = "describe")]
        self.tell_not_empty(name);
        if items.is_some_and(<[T]>::is_empty) {
            self.note(name, "empty or missing", mend);
        }
    }

    /// A required value in any form.
    pub fn value(&self, name: &'static str, expected: &str) -> Option<&'a Value> {
        tell!(self, name, any(expected).required());
        self.required(name, expected)
    }

    /// A member that is read by `first` where it is as `is` says, else by `second`.
    pub fn either<T>(
        &self,
        name: &'static str,
        is: impl FnOnce(&Value) -> bool,
        first: impl FnOnce(&Self) -> Option<T>,
        second: impl FnOnce(&Self) -> Option<T>,
    ) -> Option<T> {
        #[cfg(feature = "describe")]
        if self.sheet.is_some() {
            drop(first(self));
            // Whether it may be absent is what the second says, who reads what is absent.
            drop(second(self));
            return None;
        }
        match self.raw(name) {
            Some(value) if is(value) => first(self),
            _ => second(self),
        }
    }

    /// A list of objects, each read by `build`. Absent is an empty list.
    pub fn objects<T>(
        &self,
        name: &'static str,
        mut build: impl FnMut(&Document<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        tell_within!(self, name, &mut build, list());
        let mut items = Some(Vec::new());
        self.each(name, "an object", |index, value| {
            let at = format!("{name}[{index}]");
            let item = match value {
                Value::Object(members) => {
                    Self::descend(members, format!("{}.{at}", self.path), self.mistakes, &mut build)
                }
                other => self.wrong(&at, other, "an object"),
            };
            match (items.as_mut(), item) {
                (Some(items), Some(item)) => items.push(item),
                _ => items = None,
            }
        })?;
        items
    }

    fn each(
        &self,
        name: &'static str,
        expected: &str,
        mut visit: impl FnMut(usize, &'a Value),
    ) -> Option<()> {
        match self.raw(name) {
            None => Some(()),
            Some(Value::Array(values)) => {
                values.iter().enumerate().for_each(|(index, value)| visit(index, value));
                Some(())
            }
            Some(value) => self.wrong(name, value, &format!("a list, each {expected}")),
        }
    }

    /// A required object, read by `build`.
    pub fn object<T>(
        &self,
        name: &'static str,
        build: impl FnOnce(&Document<'a>) -> Option<T>,
    ) -> Option<T> {
        tell_within!(self, name, build, required());
        self.required(name, "an object")?;
        self.object_opt(name, build).flatten()
    }

    /// An object that may be absent.
    pub fn object_opt<T>(
        &self,
        name: &'static str,
        build: impl FnOnce(&Document<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        tell_within!(self, name, build, optional());
        match self.raw(name) {
            None => Some(None),
            Some(Value::Object(members)) => {
                Self::descend(members, format!("{}.{name}", self.path), self.mistakes, build)
                    .map(Some)
            }
            Some(value) => self.wrong(name, value, "an object"),
        }
    }
}

/// Whether `typed` is probably `known` misspelt: one edit apart, or apart in case and separators only.
fn near(known: &str, typed: &str) -> bool {
    let plain = |text: &str| -> Vec<char> {
        text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let (known, typed) = (plain(known), plain(typed));
    let (short, long) = if known.len() < typed.len() { (known, typed) } else { (typed, known) };
    if long.len() - short.len() > 1 {
        return false;
    }
    let same = short.iter().zip(&long).take_while(|(a, b)| a == b).count();
    let rest = |text: &[char], skip: usize| text.get(same + skip..).map(<[char]>::to_vec);
    rest(&short, 0) == rest(&long, 0)
        || rest(&short, 0) == rest(&long, 1)
        || rest(&short, 1).is_some() && rest(&short, 1) == rest(&long, 1)
}

#[cfg(test)]
mod tests;
