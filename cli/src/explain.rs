//! `gatehouse explain`: walks a made-up request through the filter's own policy and says each decision, in the order
//! in which the policy takes them. The caller is assumed to have proved itself, and the limiter to let it pass: what is
//! explained is the edge document and the role matrix. Judges nothing itself.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use gatehouse_authn::{Algorithm, Key, Unavailable, Verifier};
use gatehouse_contract::{
    ApiVersion, Role, Roles, TenantId, Tier,
    sidecar::{self, CheckAnswer, LeaseAnswer, LeaseAsk, PrincipalAsk, PrincipalFacts},
};
use gatehouse_edge::{Answer, Call, Parts, RequestView, Step, Suite, VmState};
use serde_json::Value;
use time::{
    Date, OffsetDateTime, PrimitiveDateTime, Time, format_description::well_known::Rfc3339,
};

use self::request::Request;
use crate::{
    lint,
    outcome::{self, EXIT_INPUT, EXIT_USAGE, Outcome},
};

mod made;
mod request;
mod told;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gatehouse explain --config suite.json POST /api/v1/registry/agents --role viewer
  gatehouse explain --config suite.json POST /api/v1/factory/tenants --platform
  gatehouse explain --config suite.json GET /api/v1/registry/agents
  gatehouse explain --config suite.json DELETE /api/v1/registry/agents/7 --role admin --scope agents:read
  gatehouse explain --config suite.json GET /api/registry/agents --role viewer --pin v2 --at 2027-06-01
  gatehouse explain --config suite.json GET / -H 'Origin: https://app.example' -H 'Accept: application/json'
  gatehouse explain --config suite.json --request create.http --role developer
  gatehouse explain --config istio/base/wasmplugin.yaml GET /api/v1/registry/agents --role viewer

Without --role, --platform and --scope the request has the credential that it brings along, or none; with --scope it is an API key.
A file holds one request: a line METHOD PATH and headers below it, or {\"method\", \"path\", \"headers\"}.
Exit 0 when it is forwarded or answered, 1 when it is refused.")]
pub struct Args {
    /// The edge document (JSON or YAML), or a manifest that embeds one; - is stdin
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The request's method, upper case
    #[arg(required_unless_present = "request", value_parser = method)]
    method: Option<String>,
    /// Path and query as the client sends them, or a URL
    #[arg(required_unless_present = "request")]
    path: Option<String>,
    /// A file with the request; - is stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["method", "path"])]
    request: Option<PathBuf>,
    /// A header of the request, after those of the file
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = request::header)]
    header: Vec<(String, String)>,
    /// A role that the record gives the caller in its tenant
    #[arg(long, value_name = "ROLE")]
    role: Vec<Role>,
    /// The caller holds the platform membership
    #[arg(long)]
    platform: bool,
    /// A permission that the caller's API key is narrowed to
    #[arg(long, value_name = "PERMISSION")]
    scope: Vec<String>,
    /// The issuer of the caller's token; the document's first unless given
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// The tier of the caller's tenant
    #[arg(long, value_name = "TIER", default_value = "free")]
    tier: Tier,
    /// The API version that the caller's tenant is pinned to
    #[arg(long, value_name = "VERSION")]
    pin: Option<ApiVersion>,
    /// When it is, as 2027-06-01, 2027-06-01T10:00:00Z or seconds since 1970; now unless given
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Duration>,
}

/// Methods are told apart by case: `get` is one that nobody serves, and hardly meant.
fn method(text: &str) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    match text == upper {
        true => Ok(upper),
        false => Err(format!("methods are told apart by case; write {upper}")),
    }
}

/// Tokens are valid here: the question is what follows.
struct Assumed;

impl Verifier for Assumed {
    fn verify(&self, _: Algorithm, _: &Key, _: &[u8], _: &[u8]) -> Result<bool, Unavailable> {
        Ok(true)
    }
}

/// Stands for the caller's tenant where the document names none.
const SOME_TENANT: &str = "00000000-0000-4000-8000-000000000001";
/// Who calls.
const CALLER: &str = "explain";

/// The cookie of browser sessions (design §3.1).
const SESSION: &str = "__Host-gatehouse";

/// What the request proves itself with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credential {
    /// Nothing.
    None,
    /// What the request brings along.
    Own,
    /// A token that is made here.
    Token,
    /// A key that is made here.
    ApiKey,
}

/// A walk's end.
struct Walked {
    step: Step,
    /// What the limiter was asked.
    limiter: Option<LeaseAsk>,
    /// The tenant that the record was asked for.
    tenant: Option<TenantId>,
}

pub fn run(args: &Args) -> Outcome {
    let file = outcome::name(&args.config);
    let text = match outcome::read(&args.config) {
        Ok(text) => text,
        Err(line) => return Outcome::failed(EXIT_INPUT, line),
    };
    let text = match lint::suite(&text) {
        Ok(text) => text,
        Err(cause) => {
            let line = format_args!(
                "{file}: $: {cause}; give an edge document, or a manifest that holds one"
            );
            return Outcome::failed(EXIT_INPUT, line);
        }
    };
    // The document as it stands first: its mistakes are told in its own words.
    let compiled = Suite::compile(&text, Parts::Suite).and_then(|_| {
        let (suite, _warnings) = Suite::compile(&made::with_known_keys(&text), Parts::Suite)?;
        suite.with_keys(&|_name| Some(made::CONTEXT_KEY.to_owned()))
    });
    let suite = match compiled {
        Ok((suite, _warnings)) => suite,
        Err(mistakes) => {
            let mut outcome = Outcome::default();
            for mistake in mistakes {
                outcome.fail(EXIT_INPUT, format_args!("{file}: {mistake}"));
            }
            return outcome;
        }
    };
    let mut request = match requested(args) {
        Ok(request) => request,
        Err(outcome) => return outcome,
    };
    // A clock before 1970 is none.
    let machine = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = args.at.unwrap_or_else(machine);
    let assumed = !args.role.is_empty() || args.platform || !args.scope.is_empty();
    let document: Value = serde_json::from_str(&text).unwrap_or_default();
    let source = |name| document.get("sources")?.get(name)?.as_str();
    let (query, cookie) = (source("query"), source("cookie"));
    let named = |text: &str, name: &str| {
        text.split(['?', '&', ';', ' '])
            .any(|part| part.split_once('=').is_some_and(|(of, _)| of == name))
    };
    let brings = |(name, value): &(String, String)| {
        let in_cookie = name.eq_ignore_ascii_case("cookie")
            && [cookie, Some(SESSION)].into_iter().flatten().any(|name| named(value, name));
        is_credential(name) || in_cookie
    };
    let in_query = query.is_some_and(|name| named(&request.path, name));
    let credential = match (assumed, args.scope.is_empty()) {
        (true, true) => Credential::Token,
        (true, false) => Credential::ApiKey,
        (false, _) if in_query || request.headers.iter().any(brings) => Credential::Own,
        (false, _) => Credential::None,
    };
    let made = match credential {
        Credential::None | Credential::Own => None,
        Credential::Token => match made::token(&text, args.issuer.as_deref(), &args.role, now) {
            Some(token) => Some(("authorization", format!("Bearer {token}"))),
            None => {
                let line = format_args!("{file}: no such issuer in the document");
                return Outcome::failed(EXIT_INPUT, line);
            }
        },
        Credential::ApiKey => made::api_key().map(|key| ("x-api-key", key)),
    };
    if let Some((name, value)) = made {
        // One credential: two are refused.
        request.headers.retain(|header| !brings(header));
        request.headers.push((name.to_owned(), value));
    }
    let walked = walk(&suite, args, &request, now);
    let request = &request;
    told::tell(&told::Walk { suite: &suite, args, request, credential, query, walked })
}

fn is_credential(name: &str) -> bool {
    ["authorization", "x-api-key"].iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

fn requested(args: &Args) -> Result<Request, Outcome> {
    let mut request = match (&args.request, &args.method, &args.path) {
        (Some(path), ..) => {
            let file = outcome::name(path);
            let text = outcome::read(path).map_err(|line| Outcome::failed(EXIT_INPUT, line))?;
            request::read(&text).map_err(|lines| {
                let mut outcome = Outcome::default();
                for line in lines {
                    outcome.fail(EXIT_INPUT, format_args!("{file}: {line}"));
                }
                outcome
            })?
        }
        (None, Some(method), Some(path)) => Request::new(method, path, Vec::new()),
        (None, ..) => return Err(Outcome::failed(EXIT_USAGE, "no request; write METHOD PATH")),
    };
    request.headers.extend(args.header.iter().cloned());
    Ok(request)
}

/// A day, an instant, or seconds since 1970.
fn moment(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "write 2027-06-01, 2027-06-01T10:00:00Z or seconds since 1970";
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let day = time::macros::format_description!("[year]-[month]-[day]");
    let instant = OffsetDateTime::parse(text, &Rfc3339).or_else(|_| {
        Date::parse(text, day).map(|day| PrimitiveDateTime::new(day, Time::MIDNIGHT).assume_utc())
    });
    let seconds = instant.ok().and_then(|instant| u64::try_from(instant.unix_timestamp()).ok());
    seconds.map(Duration::from_secs).ok_or_else(|| EXPECTED.to_owned())
}

/// The tenant that a question for a principal names.
fn asked_tenant(call: &Call) -> Option<TenantId> {
    match serde_json::from_slice(&call.body).ok()? {
        PrincipalAsk::Subject { tenant, .. } => Some(tenant),
        PrincipalAsk::ApiKey { .. } | PrincipalAsk::Session { .. } => SOME_TENANT.parse().ok(),
    }
}

/// Feeds the policy what a willing sidecar would answer, until it has decided.
fn walk(suite: &Suite, args: &Args, request: &Request, now: Duration) -> Walked {
    let lower: Vec<(String, &str)> = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
        .collect();
    let mut headers = vec![
        (":method", request.method.as_str()),
        (":path", request.path.as_str()),
        (":authority", request.host.as_str()),
    ];
    headers.extend(lower.iter().map(|(name, value)| (name.as_str(), *value)));
    let mut vm = VmState::new([0, 0]);
    let mut step = suite.on_request(&mut vm, &RequestView::new(&headers), now, &Assumed);
    let (mut limiter, mut tenant) = (None, None);
    // Principal, limit: a third question would be one that this command does not know.
    for _ in 0..2 {
        let Step::Call { call, pending } = step else { break };
        if call.path == sidecar::LEASE_PATH {
            limiter = serde_json::from_slice(&call.body).ok();
        } else {
            tenant = tenant.or(asked_tenant(&call));
        }
        let body = answer(&call, args);
        let answer = match &body {
            Some(body) => Answer::Sidecar { status: 200, body: body.as_bytes() },
            None => Answer::Unavailable,
        };
        step = suite.on_answer(&mut vm, *pending, answer, now, &Assumed);
    }
    Walked { step, limiter, tenant }
}

fn answer(call: &Call, args: &Args) -> Option<String> {
    let path = call.path.split('?').next().unwrap_or_default();
    let body = match path {
        sidecar::PRINCIPAL_PATH => serde_json::to_string(&PrincipalFacts {
            roles: roles(args),
            platform: args.platform,
            tier: args.tier,
            version_pin: args.pin.as_ref().map(|pin| pin.as_str().to_owned()),
            scopes: (!args.scope.is_empty()).then(|| args.scope.clone()),
            epoch: 1,
            ..PrincipalFacts::member(asked_tenant(call)?, CALLER)
        }),
        sidecar::LEASE_PATH => serde_json::to_string(&LeaseAnswer {
            check: Some(CheckAnswer {
                allowed: true,
                retry_after_s: None,
                degraded: false,
                day_used_percent: None,
                limits: Vec::new(),
            }),
            lease: None,
            share: None,
        }),
        _ => return None,
    };
    body.ok()
}

fn roles(args: &Args) -> Roles {
    args.role.iter().copied().collect()
}
