//! The request that `gatehouse explain` walks: from flags, from a file as editors write them (`.http`), or from JSON.
//! Knows no policy.

use gatehouse_contract::document;
use serde_json::Value;

/// A request as a client sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path and query.
    pub(super) path: String,
    pub(super) host: String,
    /// In their order, names as they were written.
    pub(super) headers: Vec<(String, String)>,
}

const HOST: &str = "gateway";

/// Reads a file; the errors are lines without the file's name.
pub(super) fn read(text: &str) -> Result<Request, Vec<String>> {
    if text.trim_start().starts_with('{') { from_json(text) } else { from_lines(text) }
}

/// `Name: value`, as curl has it.
pub(super) fn header(line: &str) -> Result<(String, String), String> {
    match line.split_once(':') {
        Some((name, value)) if is_token(name.trim_end()) => {
            Ok((name.trim_end().to_owned(), value.trim().to_owned()))
        }
        _ => Err(format!("{line:?} is no header; write \"Name: value\"")),
    }
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

impl Request {
    /// `target` is a path with its query, or a whole URL.
    pub(super) fn new(method: &str, target: &str, headers: Vec<(String, String)>) -> Self {
        let (host, path) = match target.split_once("://") {
            Some((_, rest)) => match rest.find('/') {
                Some(slash) => rest.split_at(slash),
                None => (rest, "/"),
            },
            None => (HOST, target),
        };
        let written = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = written.map_or(host, |(_, value)| value).to_owned();
        let headers =
            headers.into_iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")).collect();
        Self { method: method.to_owned(), path: path.to_owned(), host, headers }
    }
}

fn from_lines(text: &str) -> Result<Request, Vec<String>> {
    let comment = |line: &str| line.starts_with('#') || line.starts_with("//");
    let mut lines = (1_usize..)
        .zip(text.lines())
        .skip_while(|(_, line)| line.trim().is_empty() || comment(line));
    let missing = || vec!["no request; write \"GET /path\" and headers below it".to_owned()];
    let (_, first) = lines.next().ok_or_else(missing)?;
    let mut words = first.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Err(missing()) };
    if !is_token(method) || words.next().is_some_and(|word| !word.starts_with("HTTP/")) {
        return Err(missing());
    }
    let (mut headers, mut mistakes) = (Vec::new(), Vec::new());
    // An empty line ends the headers; what follows is the body, which no step of this chain reads.
    for (number, line) in lines.take_while(|(_, line)| !line.trim().is_empty()) {
        match header(line) {
            _ if comment(line) => {}
            Ok(read) => headers.push(read),
            Err(cause) => mistakes.push(format!("line {number}: {cause}")),
        }
    }
    if mistakes.is_empty() { Ok(Request::new(method, target, headers)) } else { Err(mistakes) }
}

fn from_json(text: &str) -> Result<Request, Vec<String>> {
    let read = document::read(text, |doc| {
        let method = doc.text_or("method", "GET");
        let path = doc.text("path");
        let mut headers = Some(Vec::new());
        let members = doc.raw("headers");
        if members.is_some_and(|members| !members.is_object()) {
            doc.note("headers", "no object", "write {\"name\": \"value\"}");
        }
        for (name, value) in members.and_then(Value::as_object).into_iter().flatten() {
            let values = match value {
                Value::Array(values) => values.as_slice(),
                one => std::slice::from_ref(one),
            };
            for value in values {
                match (value.as_str(), headers.as_mut()) {
                    (Some(value), Some(headers)) if is_token(name) => {
                        headers.push((name.clone(), value.to_owned()));
                    }
                    (Some(_), None) if is_token(name) => {}
                    _ => {
                        let mend = "write a text, or a list of texts";
                        doc.note(&format!("headers.{name}"), "no header", mend);
                        headers = None;
                    }
                }
            }
        }
        Some(Request::new(&method?, &path?, headers?))
    });
    read.map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Expected<'e> = (&'e str, &'e str, &'e str, &'e [(&'e str, &'e str)]);

    fn check(text: &str, expected: Result<Expected<'_>, &[&str]>) {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let expected = expected
            .map(|(method, host, path, headers)| Request {
                method: method.to_owned(),
                path: path.to_owned(),
                host: host.to_owned(),
                headers: headers.iter().map(own).collect(),
            })
            .map_err(|lines| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
        assert_eq!(read(text), expected, "{text}");
    }

    #[test]
    fn a_request_stands_in_lines_or_in_json() {
        check(
            "### one\n\nPOST https://api.example/api/v1/x?y=1 HTTP/1.1\nAccept: a/b\n# note\nX-A:1\n\n{\"a\": 1}\n",
            Ok(("POST", "api.example", "/api/v1/x?y=1", &[("Accept", "a/b"), ("X-A", "1")])),
        );
        check("GET /x\nHost: h\n", Ok(("GET", "h", "/x", &[])));
        check(
            r#"{"path": "/x", "headers": {"accept": ["a", "b"], "x": "1"}}"#,
            Ok(("GET", "gateway", "/x", &[("accept", "a"), ("accept", "b"), ("x", "1")])),
        );
    }

    #[test]
    fn what_is_no_request_is_told() {
        for bad in ["", "GET", "G{ET /x", "GET /x y"] {
            check(bad, Err(&["no request; write \"GET /path\" and headers below it"]));
        }
        let cause = "line 2: \"no header\" is no header; write \"Name: value\"";
        check("GET /x\nno header\n", Err(&[cause]));
        check(
            r#"{"path": "/x", "headers": {"a b": "1"}, "query": 1}"#,
            Err(&[
                "$.headers.a b: no header; write a text, or a list of texts",
                "$.query: unknown field; remove it; known here: headers, method, path",
            ]),
        );
    }
}
