//! Counts what a listener answered, in the text form that Prometheus reads.
//! Labels are bounded: route templates, the methods of RFC 9110, statuses and reasons; never a path or a tenant.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, http::Method, routing::get};

/// The media type of the text form.
const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The counters of one listener; cheap to clone, all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<Mutex<BTreeMap<Labels, Sum>>>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    route: String,
    method: &'static str,
    status: u16,
    reason: &'static str,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: u64,
    time: Duration,
}

impl Requests {
    pub(crate) fn count(
        &self,
        (method, route): (&Method, &str),
        status: u16,
        reason: Option<&'static str>,
        took: Duration,
    ) {
        let labels = Labels {
            route: route.to_owned(),
            method: known(method),
            status,
            reason: reason.unwrap_or(""),
        };
        // Counters stay true whatever happened to a thread that held the lock.
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = sums.entry(labels).or_default();
        sum.count = sum.count.saturating_add(1);
        sum.time = sum.time.saturating_add(took);
    }

    /// The text form.
    pub fn render(&self) -> String {
        const TOTAL: &str = "gatehouse_http_requests_total";
        const SECONDS: &str = "gatehouse_http_request_seconds_sum";
        let sums = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut text = String::new();
        for (name, help) in [
            (TOTAL, "Requests answered."),
            (SECONDS, "Seconds from a request's headers to its answer's, summed."),
        ] {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} counter\n"));
            for (Labels { route, method, status, reason }, sum) in &sums {
                let labels = format!(
                    r#"route="{route}",method="{method}",status="{status}",reason="{reason}""#
                );
                let written = if name == TOTAL {
                    writeln!(text, "{name}{{{labels}}} {}", sum.count)
                } else {
                    writeln!(text, "{name}{{{labels}}} {:.6}", sum.time.as_secs_f64())
                };
                // Writing into a string cannot fail.
                written.unwrap_or_default();
            }
        }
        text
    }

    /// `/metrics`, for the admin listener.
    pub fn router(&self) -> Router {
        self.router_with(String::new)
    }

    /// As [`Self::router`], with further metrics in the same text form behind our own.
    pub fn router_with(&self, more: impl Fn() -> String + Clone + Send + Sync + 'static) -> Router {
        let requests = self.clone();
        let text = async move || ([("content-type", MEDIA_TYPE)], requests.render() + &more());
        Router::new().route("/metrics", get(text))
    }
}

/// A client may invent methods; they count as one.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_bounded_labels() {
        let requests = Requests::default();
        let invented = Method::from_bytes(b"SPAM").unwrap();
        for method in [&Method::GET, &Method::GET, &invented] {
            requests.count((method, "/a/{id}"), 404, Some("not_found"), Duration::from_millis(250));
        }
        let text = requests.render();
        for line in [
            r#"gatehouse_http_requests_total{route="/a/{id}",method="GET",status="404",reason="not_found"} 2"#,
            r#"gatehouse_http_request_seconds_sum{route="/a/{id}",method="GET",status="404",reason="not_found"} 0.500000"#,
            r#"gatehouse_http_requests_total{route="/a/{id}",method="other",status="404",reason="not_found"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
