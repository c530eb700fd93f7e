//! Files of JSON or YAML: their values, and where in the text each of them stands. Knows no meaning.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::Value;

/// What a file holds.
pub struct Source<'t> {
    text: &'t str,
    /// One in JSON; one per document in YAML.
    pub values: Vec<Value>,
    /// Whether it is JSON, and so to be judged as it was written.
    pub json: bool,
    marked: Vec<Node>,
}

/// Line and column, both from 1.
pub type Place = (usize, usize);

/// A value and where it begins.
struct Node {
    place: Place,
    kind: Kind,
}

enum Kind {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Member>),
}

/// One member of an object; names may stand twice.
struct Member {
    place: Place,
    name: String,
    node: Node,
}

/// No manifest is as deep.
const DEEPEST: usize = 100;

impl<'t> Source<'t> {
    /// Reads `text`; the error is a cause.
    pub fn read(text: &'t str) -> Result<Self, String> {
        if text.trim_start().starts_with(['{', '[']) {
            let value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
            // Nearly all JSON is YAML. Where it is not, places are missing, and nothing else.
            let marked = parse(text).unwrap_or_default();
            return Ok(Self { text, values: vec![value], json: true, marked });
        }
        let marked = parse(text)?;
        Ok(Self { text, values: marked.iter().map(Node::value).collect(), json: false, marked })
    }

    /// Members that stand twice in one object: readers differ in which of them counts.
    pub fn twins(&self) -> Vec<(String, Place)> {
        let mut found = Vec::new();
        self.marked.iter().for_each(|node| node.twins("$", &mut found));
        found
    }

    /// Where the member at `path` of the document `at` begins, or what holds it where it is missing.
    pub fn place(&self, at: usize, path: &str) -> Option<Place> {
        locate(self.marked.get(at)?, path)
    }

    /// Where something stands in a text that is itself a value: `outer` leads to the text, `inner` into it.
    pub fn place_within(&self, at: usize, outer: &str, text: &str, inner: &str) -> Option<Place> {
        let (from, _) = self.place(at, outer)?;
        let first = text.lines().find(|line| !line.trim().is_empty())?.trim();
        let before = from.saturating_sub(1);
        // Indented as a block; a text in quotes has no lines of its own.
        let (offset, line) =
            self.text.lines().skip(before).enumerate().find(|(_, line)| line.trim() == first)?;
        let indent = line.chars().count().saturating_sub(line.trim_start().chars().count());
        let (line, column) = locate(parse(text).ok()?.first()?, inner)?;
        Some((before.saturating_add(offset).saturating_add(line), indent.saturating_add(column)))
    }
}

impl Node {
    fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::List(items) => items.iter().map(Self::value).collect(),
            Kind::Map(members) => members
                .iter()
                .map(|member| (member.name.clone(), member.node.value()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    fn twins(&self, path: &str, found: &mut Vec<(String, Place)>) {
        match &self.kind {
            Kind::Scalar(_) => {}
            Kind::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    item.twins(&format!("{path}[{at}]"), found);
                }
            }
            Kind::Map(members) => {
                for (at, member) in members.iter().enumerate() {
                    let path = format!("{path}.{}", member.name);
                    if members.iter().take(at).any(|before| before.name == member.name) {
                        found.push((path.clone(), member.place));
                    }
                    member.node.twins(&path, found);
                }
            }
        }
    }
}

fn locate(root: &Node, path: &str) -> Option<Place> {
    let mut node = root;
    let mut place = root.place;
    let mut rest = path.strip_prefix('$')?;
    while !rest.is_empty() {
        let found = match (&node.kind, rest.strip_prefix('.'), rest.strip_prefix('[')) {
            // Names may hold dots: the longest that fits.
            (Kind::Map(members), Some(name), _) => members
                .iter()
                .filter_map(|member| {
                    let after = name.strip_prefix(member.name.as_str())?;
                    let ends = after.is_empty() || after.starts_with(['.', '[']);
                    ends.then_some((member.place, &member.node, after))
                })
                .min_by_key(|(_, _, after)| after.len()),
            // A name that holds other signs (`contract::document`).
            (Kind::Map(members), _, Some(name)) if name.starts_with('"') => {
                let mut names = serde_json::Deserializer::from_str(name).into_iter::<String>();
                let named = names.next().and_then(Result::ok);
                let after = name.get(names.byte_offset()..).and_then(|rest| rest.strip_prefix(']'));
                members
                    .iter()
                    .find(|member| Some(&member.name) == named.as_ref())
                    .and_then(|member| after.map(|after| (member.place, &member.node, after)))
            }
            (Kind::List(items), _, Some(index)) => {
                index.split_once(']').and_then(|(index, after)| {
                    let item = items.get(index.parse::<usize>().ok()?)?;
                    Some((item.place, item, after))
                })
            }
            _ => None,
        };
        let Some((at, next, after)) = found else { break };
        (place, node, rest) = (at, next, after);
    }
    Some(place)
}

fn parse(text: &str) -> Result<Vec<Node>, String> {
    let mut parser = Parser::new_from_str(text);
    let mut documents = Vec::new();
    while let Some((event, span)) = next(&mut parser)? {
        match event {
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::Nothing => {}
            event => documents.push(node(&mut parser, event, span, 0)?),
        }
    }
    Ok(documents)
}

type Events<'t> = Parser<'t, saphyr_parser::StrInput<'t>>;

fn next<'t>(parser: &mut Events<'t>) -> Result<Option<(Event<'t>, Span)>, String> {
    parser.next().transpose().map_err(|error| format!("not YAML: {error}"))
}

fn node<'t>(
    parser: &mut Events<'t>,
    event: Event<'t>,
    span: Span,
    depth: usize,
) -> Result<Node, String> {
    let place = (span.start.line(), span.start.col().saturating_add(1));
    if depth > DEEPEST {
        return Err(format!("line {}: deeper than {DEEPEST} levels", place.0));
    }
    let within = depth.saturating_add(1);
    let kind = match event {
        Event::Scalar(text, style, _, None) => Kind::Scalar(match style {
            ScalarStyle::Plain => plain(&text),
            _ => Value::from(text.as_ref()),
        }),
        Event::SequenceStart(_, None) => {
            let mut items = Vec::new();
            loop {
                match next(parser)? {
                    Some((Event::SequenceEnd, _)) | None => break Kind::List(items),
                    Some((event, span)) => items.push(node(parser, event, span, within)?),
                }
            }
        }
        Event::MappingStart(_, None) => {
            let mut members = Vec::new();
            loop {
                let (name, place) = match next(parser)? {
                    Some((Event::MappingEnd, _)) | None => break Kind::Map(members),
                    Some((Event::Scalar(name, ..), span)) => {
                        (name.into_owned(), (span.start.line(), span.start.col().saturating_add(1)))
                    }
                    Some((_, span)) => {
                        return Err(format!("line {}: a key is no text", span.start.line()));
                    }
                };
                let Some((event, span)) = next(parser)? else { break Kind::Map(members) };
                let node = node(parser, event, span, within)?;
                members.push(Member { place, name, node });
            }
        }
        _ => return Err(format!("line {}: write it without tags and aliases", place.0)),
    };
    Ok(Node { place, kind })
}

/// YAML's core schema (1.2, §10.3.2), as far as JSON has it.
fn plain(text: &str) -> Value {
    let digits = text.trim_start_matches(['-', '+', '.']);
    let number = digits.starts_with(|c: char| c.is_ascii_digit())
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'));
    let radix = |prefix: &str, radix| {
        text.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, radix).ok())
    };
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if number => match (text.parse::<u64>(), text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(number), _, _) => Value::from(number),
            (_, Ok(number), _) => Value::from(number),
            (_, _, Ok(number)) => Value::from(number),
            _ => Value::from(text),
        },
        _ => match radix("0x", 16).or(radix("0o", 8)) {
            Some(number) => Value::from(number),
            None => Value::from(text),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(text: &str, expected: &[Value]) {
        assert_eq!(Source::read(text).unwrap().values, expected, "{text}");
    }

    #[test]
    fn words_of_yaml_are_what_they_are_in_json() {
        check(
            "a: 1\nb: -2\nc: 0x1f\nd: 1.5\ne: yes\nf: true\ng: ~\nh: '1'\ni: 1.2.3\nj:\nk: 2027-01-01\n",
            &[json!({
                "a": 1, "b": -2, "c": 31, "d": 1.5, "e": "yes", "f": true, "g": null, "h": "1",
                "i": "1.2.3", "j": null, "k": "2027-01-01",
            })],
        );
        check("- 1\n- [a, {b: c}]\n---\n{}\n", &[json!([1, ["a", {"b": "c"}]]), json!({})]);
        check("", &[]);
    }

    #[test]
    fn bytes_that_are_no_document_end_in_a_cause() {
        let deep = format!("a: {}", "[".repeat(5000));
        for bad in ["a: [", "a: *b", "a: !!binary x", "? [x]\n: y", "{", "a: b: c", deep.as_str()] {
            assert!(Source::read(bad).is_err(), "{}", bad.get(..20).unwrap_or(bad));
        }
    }

    #[test]
    fn a_place_is_the_members_or_its_holders() {
        let text = "a:\n  b.c:\n    - x: 1\n    - y: 2\n  d: {e: [7]}\n";
        let source = Source::read(text).unwrap();
        for (path, expected) in [
            ("$", (1, 1)),
            ("$.a", (1, 1)),
            ("$.a.b.c", (2, 3)),
            ("$.a.b.c[1].y", (4, 7)),
            ("$.a.b.c[1].z", (4, 7)),
            ("$.a[\"b.c\"][1].y", (4, 7)),
            ("$.a[\"b.d\"]", (1, 1)),
            ("$.a.d.e[0]", (5, 11)),
            ("$.zzz", (1, 1)),
        ] {
            assert_eq!(source.place(0, path), Some(expected), "{path}");
        }
        assert_eq!(Source::read("a: 1\nb: {c: 1, c: 2}").unwrap().twins().len(), 1);
    }
}
