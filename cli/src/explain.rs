//! `gatehouse explain`: walks a made-up request through the filter's own policy and says what came of it. The caller
//! is assumed to have proved itself, and the limiter to let it pass: what is explained is the edge document and the
//! role matrix. Judges nothing itself.

use std::{path::PathBuf, time::Duration};

use gatehouse_authn::{Algorithm, Key, Unavailable, Verifier};
use gatehouse_contract::{
    Reason, Role, Roles, TenantId,
    rbac::{Access, Found, Matrix, Route},
    sidecar::{self, CheckAnswer, LeaseAnswer, LeaseAsk, PrincipalAsk, PrincipalFacts},
};
use gatehouse_edge::{
    Answer, Call, Decision, Edit, Parts, Reply, RequestView, Ruling, Step, Suite, VmState, path,
};

use crate::outcome::{self, EXIT_INPUT, EXIT_REFUSED, Outcome};

mod made;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gatehouse explain --config suite.json POST /api/v1/registry/agents --role viewer
  gatehouse explain --config suite.json POST /api/v1/factory/tenants --platform
  gatehouse explain --config suite.json GET /api/v1/registry/agents

  gatehouse explain --config suite.json DELETE /api/v1/registry/agents/7 --role admin --scope agents:read

Without --role and --platform the request has no credential; with --scope it is an API key. Exit 0 when it is forwarded, 1 when it is refused.")]
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
    /// A permission that the caller's API key is narrowed to
    #[arg(long, value_name = "PERMISSION")]
    scope: Vec<String>,
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
/// Who calls.
const CALLER: &str = "explain";

pub fn run(args: &Args) -> Outcome {
    let file = args.config.display();
    let text = match outcome::read(&args.config) {
        Ok(text) => text,
        Err(line) => return Outcome::failed(EXIT_INPUT, line),
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
    let credential = if args.role.is_empty() && !args.platform && args.scope.is_empty() {
        None
    } else if args.scope.is_empty() {
        match made::token(&text, args.issuer.as_deref(), &args.role) {
            Some(token) => Some(("authorization", format!("Bearer {token}"))),
            None => {
                let line = format_args!("{file}: no such issuer in the document");
                return Outcome::failed(EXIT_INPUT, line);
            }
        }
    } else {
        made::api_key().map(|key| ("x-api-key", key))
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
    let (step, asked) = walk(&suite, args, credential.as_ref());
    verdict(&mut outcome, &suite, step, asked);
    outcome
}

/// The tenant that a question for a principal names.
fn asked_tenant(call: &Call) -> Option<TenantId> {
    match serde_json::from_slice(&call.body).ok()? {
        PrincipalAsk::Subject { tenant, .. } => Some(tenant),
        PrincipalAsk::ApiKey { .. } | PrincipalAsk::Session { .. } => SOME_TENANT.parse().ok(),
    }
}

/// Feeds the policy what a willing sidecar would answer, until it has decided; and what was asked of the limiter.
fn walk(
    suite: &Suite,
    args: &Args,
    credential: Option<&(&str, String)>,
) -> (Step, Option<LeaseAsk>) {
    let mut headers =
        vec![(":method", args.method.as_str()), (":path", &args.path), (":authority", "gateway")];
    headers.extend(credential.map(|(name, value)| (*name, value.as_str())));
    let mut vm = VmState::new([0, 0]);
    let mut step = suite.on_request(&mut vm, &RequestView::new(&headers), NOW, &Assumed);
    let mut limiter = None;
    // Principal, limit: a third question would be one that this command does not know.
    for _ in 0..2 {
        let Step::Call { call, pending } = step else { break };
        if call.path == sidecar::LEASE_PATH {
            limiter = serde_json::from_slice(&call.body).ok();
        }
        let body = answer(&call, args);
        let answer = match &body {
            Some(body) => Answer::Sidecar { status: 200, body: body.as_bytes() },
            None => Answer::Unavailable,
        };
        step = suite.on_answer(&mut vm, *pending, answer, NOW, &Assumed);
    }
    (step, limiter)
}

/// What the limiter was asked to charge, and what happens without it.
fn limits(outcome: &mut Outcome, suite: &Suite, step: &Step, asked: Option<LeaseAsk>) {
    let kept_here = match step {
        Step::Continue { record, .. } | Step::Reply(Reply { record, .. }) => record.limit.as_ref(),
        Step::Call { .. } => None,
    };
    if let Some(check) = asked.and_then(|ask| ask.check) {
        outcome.say(format_args!(
            "limiter    asks the sidecar: {} {}, cost {}",
            check.method, check.route, check.cost
        ));
        outcome.say(format_args!("  away     {}", suite.limiter_away(check.tier)));
    } else if let Some(limit) = kept_here {
        outcome.say(format_args!(
            "limiter    {} per tenant and minute, in each worker",
            limit.limit()
        ));
    } else if matches!(step, Step::Continue { .. }) {
        outcome.say("limiter    not asked");
    }
}

fn answer(call: &Call, args: &Args) -> Option<String> {
    let path = call.path.split('?').next().unwrap_or_default();
    let body = match path {
        sidecar::PRINCIPAL_PATH => serde_json::to_string(&PrincipalFacts {
            roles: roles(args),
            platform: args.platform,
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
    let held = match (roles == Roles::NONE, args.platform) {
        (true, false) if args.scope.is_empty() => return "no credential".to_owned(),
        (true, false) => "no role".to_owned(),
        (true, true) => "platform membership, no role".to_owned(),
        (false, false) => format!("{roles} of a tenant on tier free"),
        (false, true) => format!("{roles} of a tenant on tier free, platform membership"),
    };
    match args.scope.as_slice() {
        [] => held,
        scopes => format!("{held}, by an API key for {}", scopes.join(", ")),
    }
}

/// Which rule opened the route, or why it stayed closed.
fn because(outcome: &mut Outcome, suite: &Suite, decision: Option<Decision>) {
    let Some((rule, ruling)) =
        decision.and_then(|decision| Some((suite.rule(decision)?, decision.ruling)))
    else {
        return;
    };
    let permission = rule.permission.unwrap_or_default();
    match ruling {
        Ruling::Public => outcome.say("because    anyone may pass"),
        Ruling::Role(role) => outcome.say(format_args!("because    {role} holds {permission}")),
        Ruling::Platform => {
            outcome.say(format_args!("because    the platform membership holds {permission}"));
        }
        Ruling::NotHeld => outcome.say(format_args!(
            "because    nothing that the caller holds, as far as its issuer may grant it, holds {permission}"
        )),
        Ruling::KeyNarrowed => {
            outcome.say(format_args!("because    the API key is narrowed, and not to {permission}"));
        }
    }
}

fn verdict(outcome: &mut Outcome, suite: &Suite, step: Step, asked: Option<LeaseAsk>) {
    if let Step::Continue { record, .. } | Step::Reply(Reply { record, .. }) = &step {
        because(outcome, suite, record.decision);
    }
    limits(outcome, suite, &step, asked);
    match step {
        Step::Continue { edits, record } => {
            if let Some(version) = &record.version {
                outcome.say(format_args!("version    {version}"));
            }
            match record.shadowed {
                None => outcome.say("verdict    forwarded"),
                Some(reason) => outcome.say(format_args!(
                    "verdict    forwarded in shadow mode; else refused: {}",
                    told(reason)
                )),
            }
            for edit in edits {
                match edit {
                    Edit::Set(name, _) if name == "x-request-id" => {}
                    Edit::Set(name, _) if name == "x-gatehouse-context" => {
                        outcome.say(format_args!("  set      {name}: signed"));
                    }
                    Edit::Set(name, value) => {
                        outcome.say(format_args!("  set      {name}: {value}"))
                    }
                    Edit::Remove(name) => outcome.say(format_args!("  remove   {name}")),
                    Edit::UpstreamUri(uri) => outcome.say(format_args!("  uri      {uri}")),
                }
            }
        }
        Step::Reply(Reply { reason: None, status, .. }) => {
            outcome.say(format_args!("verdict    answered here: {status}"));
        }
        Step::Reply(Reply { reason: Some(reason), .. }) => {
            outcome.say(format_args!("verdict    refused: {}", told(reason)));
            outcome.fail(EXIT_REFUSED, format_args!("refused: {}", reason.title()));
        }
        Step::Call { call, .. } => {
            outcome.fail(EXIT_INPUT, format_args!("undecided: the policy asks for {}", call.path));
        }
    }
}

fn told(reason: Reason) -> String {
    format!("{} {}", reason.status(), reason.code())
}

/// Arguments go to a terminal: control characters become visible.
fn shown(text: &str) -> String {
    text.escape_debug().to_string()
}
