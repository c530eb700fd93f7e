//! Plain HTTP to services on this machine, as an independent client sees it: statuses are answers, not errors.
//! Knows no route.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::Context;
use serde_json::Value;
use ureq::{Agent, Body, http};

/// No call here takes longer, but the ones that wait for a sandbox poll.
const LIMIT: Duration = Duration::from_secs(15);

/// More than any answer of ours.
const MAX_RAW_BYTES: u64 = 1 << 20;

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The body, as text.
    pub body: String,
}

impl Answer {
    /// A header's value; the first when there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(there, _)| there == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// A member of the JSON body, as text; empty when it is not there.
    pub fn text(&self, pointer: &str) -> String {
        match self.json().pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        }
    }
}

fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(LIMIT))
        // Each call is a client of its own, and no proxy stands between us and loopback.
        .max_idle_connections(0)
        .proxy(None)
        .max_redirects(0)
        .build()
        .into()
}

/// Sends a request with these headers and body.
pub fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> anyhow::Result<Answer> {
    let context = || format!("{method} {url}");
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answered = if body.is_empty() {
        agent().run(request.body(()).with_context(context)?)
    } else {
        agent().run(request.body(body).with_context(context)?)
    };
    read(answered.with_context(context)?)
}

fn read(mut answer: http::Response<Body>) -> anyhow::Result<Answer> {
    let headers = answer
        .headers()
        .iter()
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect();
    let body = answer.body_mut().read_to_string().context("reading the answer")?;
    Ok(Answer { status: answer.status().as_u16(), headers, body })
}

/// Sends the bytes of a request that no HTTP library would write (header names in any spelling), and reads the
/// status and the headers of the answer. `head` ends with the empty line and asks to close the connection.
pub fn raw(port: u16, head: &str) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("connecting")?;
    stream.set_read_timeout(Some(LIMIT)).context("bounding the wait")?;
    stream.write_all(head.as_bytes()).context("sending")?;
    let mut text = Vec::new();
    stream.take(MAX_RAW_BYTES).read_to_end(&mut text).context("reading the answer")?;
    let text = String::from_utf8_lossy(&text);
    let (head, body) = text.split_once("\r\n\r\n").context("an answer without a head")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    Ok(Answer {
        status: status.parse().context("an answer without a status")?,
        headers: lines.filter_map(field).collect(),
        body: body.to_owned(),
    })
}

/// A header line, its name in lower case.
pub fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_ascii_lowercase(), value.trim().to_owned()))
}

/// The status of a plain GET; `None` where nobody answers.
pub fn status(url: &str) -> Option<u16> {
    send("GET", url, &[], &[]).ok().map(|answer| answer.status)
}
