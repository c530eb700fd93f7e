//! One HTTP request and what came back, refusals included.

use std::{io::Read as _, time::Duration};

use serde_json::Value;

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    /// As [`Self::json`], for answers that may be something else.
    pub fn json_or_null(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body without what is this request's own.
    pub fn body_but_request_id(&self) -> Value {
        let mut body = self.json();
        for member in ["request_id", "instance"] {
            assert!(body.as_object_mut().unwrap().remove(member).is_some(), "{member}");
        }
        body
    }
}

pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .max_redirects(0)
        .build()
        .into()
}

/// Sends one request with these headers and this body.
pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = match body {
        Some(body) => agent().run(request.body(body.to_owned()).unwrap()),
        None => agent().run(request.body(()).unwrap()),
    };
    let mut answer = answer.unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    let headers = answer.headers().iter();
    let headers = headers.map(|(key, value)| (key.to_string(), value.to_str().unwrap().to_owned()));
    let headers: Vec<(String, String)> = headers.collect();
    // A stream of events has no end to wait for: that it begins is seen here, and the rest where it is tested.
    let tells = headers.iter().any(|(_, value)| value == "text/event-stream");
    let answer = Answer {
        status: answer.status().as_u16(),
        text: match tells && method != "HEAD" {
            true => {
                let mut begin = [0; 7];
                answer.body_mut().as_reader().read_exact(&mut begin).unwrap();
                String::from_utf8(begin.to_vec()).unwrap()
            }
            false => answer.body_mut().read_to_string().unwrap(),
        },
        headers,
    };
    crate::described::check(method, url, &answer);
    answer
}
