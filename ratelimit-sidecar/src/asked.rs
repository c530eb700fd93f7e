//! `GET /v1/check`: a check for callers that send no JSON. Each value stands in the query or in a header, never in
//! both. The body is that of `POST /v1/check`, what a client sees of its limits stands in the headers as well, and
//! `status=429` makes a denial a 429 for callers that read no body.
//! Knows no limit.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, Uri},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{
    Reason, header as names,
    sidecar::{CheckAnswer, CheckAsk},
};
use gatehouse_ratelimit::{decision::Shown, header};
use gatehouse_service::Reply;

use crate::{
    app::{App, json},
    store::Store,
};

/// The request's method, where it stands in a header.
pub const METHOD: &str = "x-gatehouse-method";
/// The route's template, where it stands in a header.
pub const ROUTE: &str = "x-gatehouse-route";
/// The cost, where it stands in a header.
pub const COST: &str = "x-gatehouse-cost";

/// What may be asked: the query's name and the header's.
pub const VALUES: [(&str, Option<&str>); 7] = [
    ("tenant", Some(names::TENANT_ID)),
    ("tier", Some(names::TENANT_TIER)),
    ("method", Some(METHOD)),
    ("route", Some(ROUTE)),
    ("subject", Some(names::USER_ID)),
    ("cost", Some(COST)),
    ("status", None),
];

/// A check, and whether a denial is a 429.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    ask: CheckAsk,
    as_status: bool,
}

/// What is wrong: where, why, and what to write instead.
type Mistake = (&'static str, &'static str, &'static str);

pub async fn check<S: Store>(State(app): State<App<S>>, uri: Uri, headers: HeaderMap) -> Response {
    let asked = match read(uri.query().unwrap_or_default(), &headers) {
        Ok(asked) => asked,
        Err((name, cause, mend)) => return Reply::mistake(name, cause, mend).into_response(),
    };
    let answer = match app.engine.check(&asked.ask).await {
        Ok(answer) => answer,
        Err(_) => return Reply::new(Reason::LimiterUnavailable).into_response(),
    };
    let mut response = if asked.as_status && !answer.allowed {
        Reply::new(Reason::QuotaExceeded).into_response()
    } else {
        json(&answer)
    };
    shown(&answer, response.headers_mut());
    response
}

fn shown(answer: &CheckAnswer, headers: &mut HeaderMap) {
    let limits: Vec<Shown<'_>> = answer.limits.iter().map(Shown::from).collect();
    header::each(&limits, answer.retry_after_s, |name, value| {
        // Names of limits and numbers: always a header's value.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    });
}

fn read(query: &str, headers: &HeaderMap) -> Result<Asked, Mistake> {
    let [tenant, tier, method, route, subject, cost, status] = values(query, headers)?;
    let needed = |value: Option<String>, name| {
        value.ok_or((name, "missing", "send it in the query or in its header"))
    };
    let tenant = needed(tenant, "tenant")?
        .parse()
        .map_err(|_| ("tenant", "not a UUID", "write its canonical form, in lower case"))?;
    let tier = needed(tier, "tier")?
        .parse()
        .map_err(|_| ("tier", "not a tier", "write free, pro or enterprise"))?;
    let method = needed(method, "method")?;
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(("method", "not a method", "write it in upper case, such as GET"));
    }
    let route = needed(route, "route")?;
    if !route.starts_with('/') {
        return Err(("route", "not a route", "write its template, such as /api/v1/agents/{id}"));
    }
    if subject.as_deref() == Some("") {
        return Err(("subject", "empty", "write the caller's id, or leave it out"));
    }
    let whole = |_| ("cost", "not a cost", "write a whole number, 0 to ask without charging");
    let cost = cost.map_or(Ok(1), |cost| cost.parse().map_err(whole))?;
    let as_status = match status.as_deref() {
        None => false,
        Some("429") => true,
        Some(_) => return Err(("status", "not a status", "write 429, or leave it out")),
    };
    let ask = CheckAsk { tenant, tier, limits: None, subject, method, route, cost, forced: false };
    Ok(Asked { ask, as_status })
}

/// The values in the order of [`VALUES`]. Whatever else the query holds is a mistake: a name that was misspelt must
/// not become a default.
fn values(query: &str, headers: &HeaderMap) -> Result<[Option<String>; VALUES.len()], Mistake> {
    let mut values = [const { None }; VALUES.len()];
    let put = |slot: Option<&mut Option<String>>, name, value: String| match slot {
        Some(slot) if slot.is_none() => {
            *slot = Some(value);
            Ok(())
        }
        _ => Err((name, "stands twice", "send it once, in the query or in its header")),
    };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let Some(index) = VALUES.iter().position(|(known, _)| *known == name) else {
            return Err((
                "query",
                "a name that is not known",
                "see GET /v1/check in /openapi.json",
            ));
        };
        let known = VALUES.get(index).map_or("query", |(known, _)| known);
        put(values.get_mut(index), known, value.into_owned())?;
    }
    for ((known, header), slot) in VALUES.iter().zip(&mut values) {
        let Some(header) = header else { continue };
        let mut slot = Some(slot);
        for value in headers.get_all(*header) {
            let text = value
                .to_str()
                .map_err(|_| (*known, "not text", "send visible ASCII characters"))?;
            put(slot.take(), known, text.to_owned())?;
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";

    /// `headers` are lines; `expected` is the check in a few words, or the mistake.
    fn check(query: &str, headers: &str, expected: &str) {
        let mut map = HeaderMap::new();
        for (name, value) in headers.lines().filter_map(|line| line.split_once(": ")) {
            map.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        let got = match read(query, &map) {
            Ok(Asked { ask, as_status }) => format!(
                "{} {} {} {:?} {}{}",
                ask.tier,
                ask.method,
                ask.route,
                ask.subject,
                ask.cost,
                if as_status { " 429" } else { "" }
            ),
            Err((name, cause, _)) => format!("{name}: {cause}"),
        };
        assert_eq!(got, expected, "{query} {headers}");
    }

    #[test]
    fn each_value_stands_in_the_query_or_in_a_header() {
        let whole = format!("tenant={TENANT}&tier=pro&method=GET&route=/a/%7Bid%7D");
        check(&whole, "", "pro GET /a/{id} None 1");
        check(
            &format!("{whole}&cost=0&subject=u&status=429"),
            "",
            "pro GET /a/{id} Some(\"u\") 0 429",
        );
        let headers = format!("x-tenant-id: {TENANT}\nx-tenant-tier: free");
        check("method=PUT&route=/", &headers, "free PUT / None 1");
        let more = format!(
            "{headers}\nx-gatehouse-method: GET\nx-gatehouse-route: /x\nx-user-id: u\nx-gatehouse-cost: 7"
        );
        check("", &more, "free GET /x Some(\"u\") 7");
        check("cost=1", &more, "cost: stands twice");
        check("", &format!("{more}\nx-tenant-id: {TENANT}"), "tenant: stands twice");
        check(&format!("{whole}&tier=pro"), "", "tier: stands twice");
    }

    #[test]
    fn what_is_not_understood_is_a_mistake() {
        let with = |name: &str, value: &str| {
            let all = [("tenant", TENANT), ("tier", "pro"), ("method", "GET"), ("route", "/")];
            let all = all.map(|(known, good)| {
                format!("{known}={}", if known == name { value } else { good })
            });
            all.join("&")
        };
        check(&with("tenant", "acme"), "", "tenant: not a UUID");
        check(&with("tier", "gold"), "", "tier: not a tier");
        check(&with("method", "get"), "", "method: not a method");
        check(&with("method", ""), "", "method: not a method");
        check(&with("route", "x"), "", "route: not a route");
        for cost in ["-1", "1.5", "4294967296", ""] {
            check(&format!("{}&cost={cost}", with("", "")), "", "cost: not a cost");
        }
        check(&format!("{}&status=403", with("", "")), "", "status: not a status");
        check(&format!("{}&Cost=1", with("", "")), "", "query: a name that is not known");
        check(&format!("{}&subject=", with("", "")), "", "subject: empty");
        check("", "", "tenant: missing");
    }
}
