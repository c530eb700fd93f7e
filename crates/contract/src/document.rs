//! Reads a configuration document (a JSON object) and reports *all* its mistakes at once, each with its JSON
//! path, its cause and the mend. Filters and services read their configuration through this and nothing else,
//! so that an unknown or misspelt field can never mean "no policy".
//! Knows neither files nor hosts.
//!
//! Getters return `None` after noting a mistake: call them all, then build the value with `?`.

use std::{
    cell::RefCell, collections::BTreeSet, fmt, net::SocketAddr, ops::RangeInclusive, str::FromStr,
};

use serde_json::{Map, Value};

mod twins;

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where: a JSON path such as `$.issuers[0].algorithms`.
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
        let here = Document { members, path, asked: RefCell::default(), mistakes };
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
            self.note(name, "unknown field".to_owned(), mend);
        }
    }

    /// Notes a mistake about the member `name` of this object.
    pub fn note(&self, name: &str, cause: impl Into<String>, mend: impl Into<String>) {
        self.mistakes.borrow_mut().push(Mistake {
            path: format!("{}.{name}", self.path),
            cause: cause.into(),
            mend: mend.into(),
        });
    }

    /// The member as it stands; `null` counts as absent.
    pub fn raw(&self, name: &'static str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(name);
        self.members.get(name).filter(|value| !value.is_null())
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

    /// A required, non-empty string in the form of `T`; `expected` describes it for people.
    pub fn parsed<T: FromStr>(&self, name: &'static str, expected: &str) -> Option<T> {
        self.required(name, expected).and_then(|value| self.as_parsed(name, value, expected))
    }

    /// As [`Self::parsed`], with a default.
    pub fn parsed_or<T: FromStr>(
        &self,
        name: &'static str,
        default: T,
        expected: &str,
    ) -> Option<T> {
        match self.raw(name) {
            None => Some(default),
            Some(value) => self.as_parsed(name, value, expected),
        }
    }

    /// As [`Self::parsed`], absent allowed.
    pub fn parsed_opt<T: FromStr>(&self, name: &'static str, expected: &str) -> Option<Option<T>> {
        match self.raw(name) {
            None => Some(None),
            Some(value) => self.as_parsed(name, value, expected).map(Some),
        }
    }

    /// A required, non-empty string.
    pub fn text(&self, name: &'static str) -> Option<String> {
        self.parsed(name, "a non-empty string")
    }

    /// A string with a default.
    pub fn text_or(&self, name: &'static str, default: &str) -> Option<String> {
        self.parsed_or(name, default.to_owned(), "a non-empty string")
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

    /// `true` or `false`, with a default.
    pub fn flag(&self, name: &'static str, default: bool) -> Option<bool> {
        match self.raw(name) {
            None => Some(default),
            Some(Value::Bool(flag)) => Some(*flag),
            Some(value) => self.wrong(name, value, "true or false"),
        }
    }

    /// A list of non-empty strings, each in the form of `T`. Absent is an empty list.
    pub fn parsed_list<T: FromStr>(&self, name: &'static str, expected: &str) -> Option<Vec<T>> {
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

    /// A list of objects, each read by `build`. Absent is an empty list.
    pub fn objects<T>(
        &self,
        name: &'static str,
        mut build: impl FnMut(&Document<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
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
        self.required(name, "an object")?;
        self.object_opt(name, build).flatten()
    }

    /// An object that may be absent.
    pub fn object_opt<T>(
        &self,
        name: &'static str,
        build: impl FnOnce(&Document<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
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
mod tests {
    use super::*;

    type Inner = (u64, Option<String>);

    fn check(text: &str, expected: Result<(String, Vec<Inner>), &[&str]>) {
        let got = read(text, |doc| {
            let name = doc.text("name");
            let limits = doc.objects("limits", |doc| {
                let per_min = doc.integer("per_min", None, 1..=100);
                let note = doc.text_opt("note");
                Some((per_min?, note?))
            });
            Some((name?, limits?))
        });
        let got =
            got.map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(got, expected.map_err(|all| all.iter().map(ToString::to_string).collect()));
    }

    #[test]
    fn reads_a_good_document() {
        check(
            r#"{"name":"a","limits":[{"per_min":5},{"per_min":6,"note":"n"}]}"#,
            Ok(("a".to_owned(), vec![(5, None), (6, Some("n".to_owned()))])),
        );
    }

    #[test]
    fn reports_every_mistake_with_its_path_and_mend() {
        check(
            r#"{"nmae":"a","limits":[{"per_min":0},{"per-min":6},7]}"#,
            Err(&[
                "$.name: missing; write a non-empty string",
                "$.limits[0].per_min: 0 does not fit; write a whole number from 1 to 100",
                "$.limits[1].per_min: missing; write a whole number from 1 to 100",
                "$.limits[1].per-min: unknown field; did you mean \"per_min\"?",
                "$.limits[2]: 7 does not fit; write an object",
                "$.nmae: unknown field; remove it; known here: limits, name",
            ]),
        );
        check(
            r#"{"name":"a","limits":[{"per_min":5,"note":"n","per_min":6}],"name":"b","x":{"y":1,"\u0079":2}}"#,
            Err(&[
                "$.limits[0].per_min: stands twice; keep one of them",
                "$.name: stands twice; keep one of them",
                "$.x.y: stands twice; keep one of them",
                "$.x: unknown field; remove it; known here: limits, name",
            ]),
        );
        check(r"[]", Err(&["$: not an object; write one JSON object"]));
    }

    #[test]
    fn a_misspelling_is_recognised() {
        for (known, typed, expected) in [
            ("audiences", "audience", true),
            ("audiences", "audeinces", false),
            ("timeout_ms", "timeoutMs", true),
            ("name", "nane", true),
            ("name", "title", false),
        ] {
            assert_eq!(near(known, typed), expected, "{known} {typed}");
        }
    }
}
