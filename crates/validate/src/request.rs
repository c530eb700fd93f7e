//! A request as the module meets it: first its headers, then its whole body. Says what to do; the shell does it.
//! Knows no host.

use std::borrow::Cow;

use gatehouse_contract::{Reason, problem};

use crate::{
    document::{Rule, Validator},
    judge::Refusal,
};

/// A header's name and value.
type Pair<'h> = (&'h [u8], &'h [u8]);

/// What a request's headers call for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// No schema: everything passes as it comes.
    Pass,
    /// The whole body is to be judged.
    Await(Awaited),
    /// It is refused.
    Refuse(Refusal),
}

/// What is kept of a request until its body is there: hosts show its headers no more by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    place: usize,
    request_id: Option<Box<str>>,
}

/// An answer of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Why.
    pub reason: Reason,
    /// The headers, content type included.
    pub headers: Vec<(&'static str, &'static str)>,
    /// A problem, or the message of a gRPC status.
    pub body: Vec<u8>,
    /// The gRPC code for a caller that speaks gRPC: the host makes trailers of it.
    pub grpc_code: Option<u8>,
}

/// The longest request id that is told back.
const MAX_ID_BYTES: usize = 128;

impl Validator {
    /// Looks at the headers of a request. `normal` brings a path into its one form, or says that it has none.
    pub fn begin<'h>(
        &self,
        headers: &[Pair<'h>],
        normal: impl FnOnce(&'h [u8]) -> Option<Cow<'h, str>>,
    ) -> Begin {
        let (Some(method), Some(target)) = (one(headers, b":method"), one(headers, b":path"))
        else {
            return Begin::Refuse(no_path());
        };
        if !self.knows(method) {
            return Begin::Pass;
        }
        let Some(path) = normal(target) else { return Begin::Refuse(no_path()) };
        let Some((place, rule)) = self.find(method, &path) else { return Begin::Pass };
        match rule.admits(headers) {
            Ok(()) => {
                Begin::Await(Awaited { place, request_id: request_id(headers).map(Into::into) })
            }
            Err(refusal) => Begin::Refuse(refusal),
        }
    }

    /// Judges the whole body of a request that was awaited.
    pub fn end(&self, awaited: &Awaited, body: &[u8]) -> Result<(), Refusal> {
        match self.rule(awaited.place) {
            Some(rule) => rule.judge(body),
            // Only of another document; it is no reason to pass.
            None => Err(Refusal::new(Reason::Internal, "the rule is gone")),
        }
    }

    /// The largest body that may come, in bytes.
    pub fn max_body_bytes(&self, awaited: &Awaited) -> usize {
        self.rule(awaited.place).map_or(0, Rule::max_body_bytes)
    }
}

impl Awaited {
    /// The answer to the request. It was taken for JSON: its client speaks no gRPC.
    pub fn answer(&self, refusal: &Refusal) -> Answer {
        problem(refusal, self.request_id.as_deref())
    }
}

impl Rule {
    fn admits(&self, headers: &[Pair<'_>]) -> Result<(), Refusal> {
        let encoded = headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case(b"content-encoding")
                && !value.eq_ignore_ascii_case(b"identity")
        });
        self.accepts(one(headers, b"content-type"), encoded)?;
        let length =
            one(headers, b"content-length").and_then(|value| std::str::from_utf8(value).ok());
        match length.and_then(|text| text.parse::<u64>().ok()) {
            Some(length) if length > self.max_body_bytes() as u64 => Err(Refusal::too_large()),
            _ => Ok(()),
        }
    }
}

fn no_path() -> Refusal {
    Refusal::new(Reason::PathInvalid, "the path has no single form")
}

/// The answer to the request with these headers, in its dialect.
pub fn answer(refusal: &Refusal, headers: &[Pair<'_>]) -> Answer {
    let reason = refusal.reason;
    let speaks_grpc = one(headers, b"content-type")
        .and_then(|value| value.split_at_checked(GRPC.len()))
        .is_some_and(|(start, _)| start.eq_ignore_ascii_case(GRPC));
    if speaks_grpc {
        let body = reason.title().as_bytes().to_vec();
        return Answer { reason, headers: Vec::new(), body, grpc_code: Some(reason.grpc_code()) };
    }
    problem(refusal, request_id(headers))
}

fn problem(refusal: &Refusal, request_id: Option<&str>) -> Answer {
    let mut problem = refusal.problem();
    if let Some(id) = request_id {
        problem = problem.request_id(id);
    }
    let headers = vec![("content-type", problem::MEDIA_TYPE)];
    Answer { reason: refusal.reason, headers, body: problem.to_json(), grpc_code: None }
}

const GRPC: &[u8] = b"application/grpc";

/// The only value of a header; `None` if there are none or more.
fn one<'h>(headers: &[Pair<'h>], wanted: &[u8]) -> Option<&'h [u8]> {
    let mut values = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let (_, value) = values.next()?;
    values.next().is_none().then_some(value)
}

/// The request's id, where it is safe in JSON and logs; the module before this one has made it so.
fn request_id<'h>(headers: &[Pair<'h>]) -> Option<&'h str> {
    let value = one(headers, b"x-request-id")?;
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let fitting = !value.is_empty() && value.len() <= MAX_ID_BYTES && value.iter().all(fits);
    if fitting { std::str::from_utf8(value).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"routes":[{"method":"POST","path":"/a/{id}","max_body_bytes":30,
        "schema":{"required":["a"]}}]}"#;

    fn pairs<'h>(headers: &[(&'h str, &'h str)]) -> Vec<Pair<'h>> {
        headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect()
    }

    fn begin(headers: &[(&str, &str)]) -> Begin {
        Validator::compile(DOCUMENT).unwrap().begin(&pairs(headers), |target| {
            let text = std::str::from_utf8(target).unwrap();
            let path = text.split('?').next().unwrap();
            (!path.contains("//")).then(|| Cow::Owned(path.replace("%61", "a")))
        })
    }

    #[test]
    fn x7_a_request_passes_waits_or_is_refused_by_its_headers() {
        let json = ("content-type", "application/json");
        let to = |method, path| [(":method", method), (":path", path)];
        let with =
            |more: &[(&'static str, &'static str)]| [to("POST", "/a/1").as_slice(), more].concat();
        for (headers, expected) in [
            (with(&[json]), "waits"),
            (with(&[json, ("Content-Length", "30"), ("content-encoding", "identity")]), "waits"),
            ([to("POST", "/%61/1?x=/b").as_slice(), &[json]].concat(), "waits"),
            (to("POST", "/b/1").to_vec(), "passes"),
            (to("GET", "/a/1").to_vec(), "passes"),
            (to("GET", "//a").to_vec(), "passes"),
            (to("POST", "//a/1").to_vec(), "path_invalid"),
            (vec![json], "path_invalid"),
            ([to("POST", "/b"), to("POST", "/a/1")].concat(), "path_invalid"),
            (with(&[]), "media_type_unsupported"),
            (with(&[json, json]), "media_type_unsupported"),
            (with(&[json, ("content-encoding", "gzip")]), "media_type_unsupported"),
            (with(&[("content-type", "text/plain")]), "media_type_unsupported"),
            (with(&[json, ("content-length", "31")]), "body_too_large"),
            (with(&[json, ("content-length", "99999999999999999999")]), "waits"),
        ] {
            let got = match begin(&headers) {
                Begin::Pass => "passes",
                Begin::Await(_) => "waits",
                Begin::Refuse(refusal) => refusal.reason.code(),
            };
            assert_eq!(got, expected, "{headers:?}");
        }
    }

    #[test]
    fn x7_an_answer_is_a_problem_with_the_requests_id_or_a_grpc_status() {
        let refusal = Refusal::new(Reason::MediaTypeUnsupported, "x");
        let text = |answer: &Answer| String::from_utf8(answer.body.clone()).unwrap();
        let told = answer(&refusal, &pairs(&[("x-request-id", "r-1")]));
        assert_eq!(told.headers, [("content-type", "application/problem+json")]);
        assert_eq!(told.grpc_code, None);
        assert!(text(&told).contains(r#""request_id":"r-1""#));
        let told = answer(&refusal, &pairs(&[("x-request-id", "a\" b")]));
        assert!(!text(&told).contains("request_id"));
        let told = answer(&refusal, &pairs(&[("content-type", "application/grpc+proto")]));
        assert_eq!((told.grpc_code, told.headers.len()), (Some(3), 0));
        assert_eq!(text(&told), Reason::MediaTypeUnsupported.title());
        // What was awaited keeps the id: a host shows no headers later.
        let head = [(":method", "POST"), (":path", "/a/1"), ("x-request-id", "r-2")];
        let Begin::Await(awaited) =
            begin(&[head.as_slice(), &[("content-type", "application/json")]].concat())
        else {
            panic!()
        };
        assert!(text(&awaited.answer(&refusal)).contains(r#""request_id":"r-2""#));
    }

    #[test]
    fn a_rule_that_is_gone_lets_nothing_pass() {
        let validator = Validator::compile(DOCUMENT).unwrap();
        let at = |place| Awaited { place, request_id: None };
        let end = |place, body: &str| {
            validator.end(&at(place), body.as_bytes()).map_err(|refusal| refusal.reason)
        };
        assert_eq!(end(0, r#"{"a":1}"#), Ok(()));
        assert_eq!(end(0, "{}"), Err(Reason::BodyInvalid));
        assert_eq!(end(1, r#"{"a":1}"#), Err(Reason::Internal));
        assert_eq!((validator.max_body_bytes(&at(0)), validator.max_body_bytes(&at(1))), (30, 0));
    }
}
