//! `gatehouse explain`: walks a made-up request through the filter's own policy and says what came of it. The caller
//! is assumed to have proved itself, and the limiter to let it pass: what is explained is the edge document and the
//! role matrix. Judges nothing itself.

use std::{path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use gatehouse_authn::{
    Algorithm, Key, Unavailable, Verifier,
    probe::{self},
};
use gatehouse_contract::{
    Role, Roles, TenantId,
    rbac::{Access, Found, Matrix, Route},
    sidecar::{self, CheckAnswer, JwksAnswer, PrincipalAsk, PrincipalFacts},
};
use gatehouse_edge::{Answer, Call, Edit, Parts, Reply, RequestView, Step, Suite, VmState, path};
use serde_json::{Map, Value, json};

use crate::outcome::{self, EXIT_INPUT, EXIT_REFUSED, Outcome};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gatehouse explain --config suite.json POST /api/v1/registry/agents --role viewer
  gatehouse explain --config suite.json POST /api/v1/factory/tenants --platform
  gatehouse explain --config suite.json GET /api/v1/registry/agents

Without --role and --platform the request has no credential. Exit 0 when it is forwarded, 1 when it is refused.")]
pub struct Args {
    /// The edge document
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The request's method, upper case
    method: String,
    /// Path and query as the client sends them
    path: String,
    /// A role that the record gives the caller in its tenant
    #[arg(long, value_name = "ROLE")]
    role: Vec<Role>,
    /// The caller holds the platform membership
    #[arg(long)]
    platform: bool,
    /// The issuer of the caller's token; the document's first unless given
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
}

/// Tokens are valid here: the question is what follows.
struct Assumed;

impl Verifier for Assumed {
    fn verify(&self, _: Algorithm, _: &Key, _: &[u8], _: &[u8]) -> Result<bool, Unavailable> {
        Ok(true)
    }
}

/// Any time will do, as the token is made for it.
const NOW: Duration = Duration::from_secs(1_700_000_000);
/// Stands for the caller's tenant where the document names none.
const SOME_TENANT: &str = "00000000-0000-4000-8000-000000000001";

pub fn run(args: &Args) -> Outcome {
    let file = args.config.display();
    let text = match outcome::read(&args.config) {
        Ok(text) => text,
        Err(line) => return Outcome::failed(EXIT_INPUT, line),
    };
    let suite = match Suite::compile(&text, Parts::Suite) {
        Ok((suite, _warnings)) => suite,
        Err(mistakes) => {
            let mut outcome = Outcome::default();
            for mistake in mistakes {
                outcome.fail(EXIT_INPUT, format_args!("{file}: {mistake}"));
            }
            return outcome;
        }
    };
    let anonymous = args.role.is_empty() && !args.platform;
    let authorization = if anonymous {
        None
    } else {
        match credential(&text, args.issuer.as_deref()) {
            Some(token) => Some(format!("Bearer {token}")),
            None => {
                let line = format_args!("{file}: no such issuer in the document");
                return Outcome::failed(EXIT_INPUT, line);
            }
        }
    };
    let mut outcome = Outcome::default();
    outcome.say(format_args!("request    {} {}", args.method, shown(&args.path)));
    match path::normalise(args.path.as_bytes()) {
        Ok(target) => {
            if target.rewritten {
                outcome.say(format_args!("path       {} (rewritten)", target.path));
            }
            outcome.say(format_args!("rule       {}", rule(&args.method, &target.path)));
        }
        Err(invalid) => outcome.say(format_args!("path       {invalid}")),
    }
    outcome.say(format_args!("caller     {}", caller(args)));
    let step = walk(&suite, args, authorization.as_deref());
    verdict(&mut outcome, step);
    outcome
}

/// The tenant that a question for a principal names.
fn asked_tenant(call: &Call) -> Option<TenantId> {
    match serde_json::from_slice(&call.body).ok()? {
        PrincipalAsk::Subject { tenant, .. } => Some(tenant),
        PrincipalAsk::ApiKey { .. } | PrincipalAsk::Session { .. } => None,
    }
}

/// Feeds the policy what a willing sidecar would answer, until it has decided.
fn walk(suite: &Suite, args: &Args, authorization: Option<&str>) -> Step {
    let mut headers =
        vec![(":method", args.method.as_str()), (":path", &args.path), (":authority", "gateway")];
    headers.extend(authorization.map(|value| ("authorization", value)));
    let mut vm = VmState::new([0, 0]);
    let mut step = suite.on_request(&mut vm, &RequestView::new(&headers), NOW, &Assumed);
    // Keys, principal, limit: a fourth question would be one that this command does not know.
    for _ in 0..3 {
        let Step::Call { call, pending } = step else { break };
        let body = answer(&call, args);
        let answer = match &body {
            Some(body) => Answer::Sidecar { status: 200, body: body.as_bytes() },
            None => Answer::Unavailable,
        };
        step = suite.on_answer(&mut vm, *pending, answer, NOW, &Assumed);
    }
    step
}

fn answer(call: &Call, args: &Args) -> Option<String> {
    let path = call.path.split('?').next().unwrap_or_default();
    let body = match path {
        sidecar::JWKS_PATH => serde_json::to_string(&JwksAnswer {
            generation: 1,
            jwks: probe::KEYS.to_owned(),
            max_age_ms: 60_000,
        }),
        sidecar::PRINCIPAL_PATH => serde_json::to_string(&PrincipalFacts {
            roles: roles(args),
            platform: args.platform,
            epoch: 1,
            ..PrincipalFacts::member(asked_tenant(call)?, "caller")
        }),
        sidecar::CHECK_PATH => serde_json::to_string(&CheckAnswer {
            allowed: true,
            retry_after_s: None,
            limits: Vec::new(),
        }),
        _ => return None,
    };
    body.ok()
}

fn roles(args: &Args) -> Roles {
    args.role.iter().copied().collect()
}

/// A token of the issuer named, or of the first, that fits the document's rules for it.
fn credential(document: &str, issuer: Option<&str>) -> Option<String> {
    let document: Value = serde_json::from_str(document).ok()?;
    let issuers = document.get("issuers")?.as_array()?;
    let name = |entry: &&Value| entry.get("issuer").and_then(Value::as_str) == issuer;
    let entry = if issuer.is_some() { issuers.iter().find(name) } else { issuers.first() }?;
    let first = |member: &str| entry.get(member).and_then(|list| list.get(0)).cloned();
    let algorithm = first("algorithms")?;
    let mut claims = Map::new();
    claims.insert("iss".to_owned(), entry.get("issuer")?.clone());
    claims.insert("aud".to_owned(), first("audiences").unwrap_or(Value::Null));
    claims.insert("sub".to_owned(), json!("explain"));
    claims.insert("exp".to_owned(), json!(NOW.as_secs().saturating_add(60)));
    let pointer = entry.get("tenant_claim").and_then(Value::as_str).unwrap_or("/tenant_id");
    let tenant = first("tenants").unwrap_or_else(|| json!(SOME_TENANT));
    let (outer, value) = nested(pointer, tenant)?;
    claims.insert(outer, value);
    let header = json!({ "alg": algorithm, "typ": "at+jwt" });
    // Of the right form for any verifier; `Assumed` looks no further.
    let signature = vec![7; if algorithm == "ES256" { 64 } else { 256 }];
    let part = |value: String| URL_SAFE_NO_PAD.encode(value);
    Some(format!(
        "{}.{}.{}",
        part(header.to_string()),
        part(Value::Object(claims).to_string()),
        URL_SAFE_NO_PAD.encode(signature)
    ))
}

/// The member and its value under which `pointer` (RFC 6901) finds `value`.
fn nested(pointer: &str, value: Value) -> Option<(String, Value)> {
    let steps: Vec<String> =
        pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    let (outer, inner) = steps.split_first()?;
    let value = inner.iter().rev().fold(value, |value, step| json!({ step.as_str(): value }));
    Some((outer.clone(), value))
}

/// What the matrix says of this place, whoever asks.
fn rule(method: &str, path: &str) -> String {
    let matrix = match Matrix::builtin() {
        Ok(matrix) => matrix,
        Err(broken) => return broken.to_string(),
    };
    // As the filter does (acceptance J33).
    let looked_up = if method == "HEAD" { "GET" } else { method };
    match matrix.find(looked_up, path) {
        Found::Route(Route { method, template, access: Access::Public, .. }) => {
            format!("{method} {template} is public")
        }
        Found::Route(Route {
            method,
            template,
            access: Access::Held { permission, roles, platform },
            ..
        }) => {
            let mut holders: Vec<String> = roles.iter().map(|role| role.to_string()).collect();
            holders.extend(platform.then(|| "platform".to_owned()));
            format!("{method} {template} needs {permission}, held by {}", holders.join(", "))
        }
        Found::OtherMethod => "the path is known, the method is not".to_owned(),
        Found::Nothing => "none: what no rule opens is closed".to_owned(),
    }
}

fn caller(args: &Args) -> String {
    let roles = roles(args);
    match (roles == Roles::NONE, args.platform) {
        (true, false) => "no credential".to_owned(),
        (true, true) => "platform membership, no role".to_owned(),
        (false, false) => format!("{roles} of a tenant on tier free"),
        (false, true) => format!("{roles} of a tenant on tier free, platform membership"),
    }
}

fn verdict(outcome: &mut Outcome, step: Step) {
    match step {
        Step::Continue { edits, record } => {
            if let Some(version) = &record.version {
                outcome.say(format_args!("version    {version}"));
            }
            outcome.say("verdict    forwarded");
            for edit in edits {
                match edit {
                    Edit::Set(name, _) if name == "x-request-id" => {}
                    Edit::Set(name, value) => {
                        outcome.say(format_args!("  set      {name}: {value}"))
                    }
                    Edit::Remove(name) => outcome.say(format_args!("  remove   {name}")),
                    Edit::UpstreamUri(uri) => outcome.say(format_args!("  uri      {uri}")),
                }
            }
        }
        Step::Reply(Reply { status, reason, .. }) => {
            outcome.say(format_args!("verdict    refused: {status} {}", reason.code()));
            outcome.fail(EXIT_REFUSED, format_args!("refused: {}", reason.title()));
        }
        Step::Call { call, .. } => {
            outcome.fail(EXIT_INPUT, format_args!("undecided: the policy asks for {}", call.path));
        }
    }
}

/// Arguments go to a terminal: control characters become visible.
fn shown(text: &str) -> String {
    text.escape_debug().to_string()
}
