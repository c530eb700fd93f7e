//! What `gatehouse explain` says of a walk: one line per decision for people, and the same as an object for programs.
//! Knows how to read a decision, and none of the rules.

use anstyle::AnsiColor;
use gatehouse_contract::{Reason, Roles, header};
use gatehouse_edge::{
    Decision, Edit, Reply, RequestRecord, Rule, Ruling, Step, Suite, Unruled, VersionSource, path,
    protected_names,
};
use serde_json::{Value, json};

use super::{Args, Credential, Request, Walked, roles};
use crate::outcome::{EXIT_INPUT, EXIT_REFUSED, Outcome};

/// A walk and what it was of.
pub(super) struct Walk<'w> {
    pub(super) suite: &'w Suite,
    pub(super) args: &'w Args,
    pub(super) request: &'w Request,
    pub(super) credential: Credential,
    /// The query parameter that may hold a token.
    pub(super) query: Option<&'w str>,
    pub(super) walked: Walked,
}

impl Walk<'_> {
    /// The path without the token that its query may hold: what is printed here is pasted elsewhere.
    fn hide(&self, path: &str) -> String {
        let (Some(name), Some((path, query))) = (self.query, path.split_once('?')) else {
            return path.to_owned();
        };
        let hidden = |part: &str| match part.split_once('=') {
            Some((of, _)) if of == name => format!("{of}=…"),
            _ => part.to_owned(),
        };
        let parts: Vec<String> = query.split('&').map(hidden).collect();
        format!("{path}?{}", parts.join("&"))
    }
}

/// The lines so far.
#[derive(Default)]
struct Lines {
    outcome: Outcome,
    steps: Vec<Value>,
}

impl Lines {
    fn step(&mut self, name: &str, text: impl Into<String>) {
        let text = text.into();
        self.outcome.say(format_args!("{name:<10} {text}"));
        self.steps.push(json!({"step": name.trim_start(), "says": text}));
    }
}

pub(super) fn tell(walk: &Walk<'_>) -> Outcome {
    let Walk { suite, request, walked, .. } = walk;
    let mut lines = Lines::default();
    let target = format!("{} {}", shown(&request.method), shown(&walk.hide(&request.path)));
    lines.step("request", target);
    let record = match &walked.step {
        Step::Continue { record, .. } | Step::Reply(Reply { record, .. }) => Some(record),
        Step::Call { .. } => None,
    };
    lines.step("request id", request_id(request, record));
    let protected: Vec<(&str, &str)> =
        request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let names: Vec<String> = protected_names(&protected).into_iter().map(shown).collect();
    if !names.is_empty() {
        lines.step("stripped", names.join(", "));
    }
    if let Step::Reply(Reply { reason: None, .. }) = &walked.step {
        lines.step("cors", "a preflight, answered before anything else is asked");
    } else {
        decisions(&mut lines, walk, record);
    }
    if let Some(record) = record {
        for note in &record.notes {
            lines.step("log", shown(note));
        }
    }
    verdict(&mut lines, walk);
    if let Some(record) = record {
        response(&mut lines, suite, &walked.step, record);
    }
    let Lines { mut outcome, steps } = lines;
    outcome.fact("steps", steps);
    outcome
}

fn decisions(lines: &mut Lines, walk: &Walk<'_>, record: Option<&RequestRecord>) {
    let Walk { suite, args, request, credential, walked, .. } = walk;
    let rule = match path::normalise(request.path.as_bytes()) {
        Ok(target) => {
            let rewritten = if target.rewritten { " (rewritten)" } else { "" };
            lines.step("path", format!("{}{rewritten}", target.path));
            Some(rule(suite, &request.method, &target.path, record))
        }
        Err(invalid) => {
            lines.step("path", invalid.to_string());
            None
        }
    };
    let late = |source| matches!(source, VersionSource::Pin | VersionSource::Default);
    let version = record.and_then(|record| Some((record.version.as_deref()?, record.source)));
    let told = version.map(|(version, source)| match source {
        Some(source) => format!("{version}, by {}", by(source)),
        None => format!("none that is served is named; {version} is told"),
    });
    let is_late = version.is_some_and(|(_, source)| source.is_some_and(late));
    if let (Some(told), false) = (&told, is_late) {
        lines.step("version", told.clone());
    }
    let brings = match credential {
        Credential::None => "none",
        Credential::Own => "the one that the request brings along",
        Credential::Token => "a bearer token, taken for valid",
        Credential::ApiKey => "an API key, taken for valid",
    };
    lines.step("credential", brings);
    lines.step("caller", caller(args, *credential));
    if let Some(tenant) = walked.tenant {
        lines.step("tenant", format!("{tenant}, active, on tier {}", args.tier));
    }
    if let (Some(told), true) = (told, is_late) {
        lines.step("version", told);
    }
    if let Some(rule) = rule {
        lines.step("rule", rule);
    }
    because(lines, suite, record.and_then(|record| record.decision));
    limits(lines, walk, record);
}

fn by(source: VersionSource) -> &'static str {
    match source {
        VersionSource::Path => "the path",
        VersionSource::Accept => "Accept",
        VersionSource::Pin => "the tenant's pin",
        VersionSource::Default => "the document's default",
    }
}

fn request_id(request: &Request, record: Option<&RequestRecord>) -> String {
    let theirs =
        request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(header::REQUEST_ID));
    match (theirs, record) {
        (None, _) | (_, None) => "made here".to_owned(),
        (Some((_, theirs)), Some(record)) if *theirs == *record.request_id => {
            format!("{}, the client's", shown(theirs))
        }
        (Some((_, theirs)), Some(_)) => format!("made here: {} is none", shown(theirs)),
    }
}

/// What the limiter was asked to charge, and what happens without it.
fn limits(lines: &mut Lines, walk: &Walk<'_>, record: Option<&RequestRecord>) {
    let Walk { suite, walked, .. } = walk;
    if let Some(check) = walked.limiter.as_ref().and_then(|ask| ask.check.as_ref()) {
        let cost = format!("{} {}, cost {}", check.method, check.route, check.cost);
        lines.step("limiter", format!("asks the sidecar: {cost}"));
        lines.step("  away", suite.limiter_away(check.tier));
    } else if let Some(limit) = record.and_then(|record| record.limit.as_ref()) {
        let limit = limit.limit();
        lines.step("limiter", format!("{limit} per tenant and minute, in each worker"));
    } else if matches!(walked.step, Step::Continue { .. }) {
        lines.step("limiter", "not asked");
    }
}

/// What the matrix says of this place, whoever asks.
fn rule(suite: &Suite, method: &str, path: &str, record: Option<&RequestRecord>) -> String {
    let unnamed = record.is_some_and(
        |record| matches!(record.source, Some(source) if !matches!(source, VersionSource::Path)),
    );
    let version = record.and_then(|record| record.version.as_deref());
    let path = match (path.strip_prefix("/api/"), version) {
        (Some(rest), Some(version)) if unnamed => format!("/api/{version}/{rest}"),
        _ => path.to_owned(),
    };
    match suite.rule_for(method, &path) {
        Ok(Rule { method, template, permission: None, .. }) => {
            format!("{method} {template} is public")
        }
        Ok(Rule { method, template, permission: Some(permission), roles, platform }) => {
            let mut holders: Vec<String> = roles.iter().map(|role| role.to_string()).collect();
            holders.extend(platform.then(|| "platform".to_owned()));
            format!("{method} {template} needs {permission}, held by {}", holders.join(", "))
        }
        Err(Unruled::OtherMethod) => "the path is known, the method is not".to_owned(),
        Err(Unruled::Nothing) => "none: what no rule opens is closed".to_owned(),
    }
}

fn caller(args: &Args, credential: Credential) -> String {
    let (roles, tier) = (roles(args), args.tier);
    let held = match (roles == Roles::NONE, args.platform) {
        (true, false) if credential == Credential::Own => {
            return format!("whoever it names, with no role, of a tenant on tier {tier}");
        }
        (true, false) if args.scope.is_empty() => return "nobody".to_owned(),
        (true, false) => "no role".to_owned(),
        (true, true) => "platform membership, no role".to_owned(),
        (false, false) => format!("{roles} of a tenant on tier {tier}"),
        (false, true) => format!("{roles} of a tenant on tier {tier}, platform membership"),
    };
    match args.scope.as_slice() {
        [] => held,
        scopes => format!("{held}, by an API key for {}", scopes.join(", ")),
    }
}

/// Which rule opened the route, or why it stayed closed.
fn because(lines: &mut Lines, suite: &Suite, decision: Option<Decision>) {
    let Some((rule, ruling)) =
        decision.and_then(|decision| Some((suite.rule(decision)?, decision.ruling)))
    else {
        return;
    };
    let permission = rule.permission.unwrap_or_default();
    let text = match ruling {
        Ruling::Public => "anyone may pass".to_owned(),
        Ruling::Role(role) => format!("{role} holds {permission}"),
        Ruling::Platform => format!("the platform membership holds {permission}"),
        Ruling::NotHeld => format!(
            "nothing that the caller holds, as far as its issuer may grant it, holds {permission}"
        ),
        Ruling::KeyNarrowed => format!("the API key is narrowed, and not to {permission}"),
    };
    lines.step("because", text);
}

fn verdict(lines: &mut Lines, walk: &Walk<'_>) {
    let (green, red) = (AnsiColor::Green.on_default(), AnsiColor::Red.on_default());
    let Lines { outcome, .. } = lines;
    match &walk.walked.step {
        Step::Continue { edits, record } => {
            outcome.fact("verdict", "forwarded");
            match record.shadowed {
                None => outcome.say(format_args!("verdict    {green}forwarded{green:#}")),
                Some(reason) => {
                    outcome.fact("shadowed", reason.code());
                    outcome.say(format_args!(
                        "verdict    {green}forwarded{green:#} in shadow mode; else refused: {}",
                        told(reason)
                    ));
                }
            }
            let edits = shown_edits(edits);
            for (kind, text) in &edits {
                outcome.say(format_args!("  {kind:<8} {text}"));
            }
            outcome.fact("request", object(&edits));
        }
        Step::Reply(Reply { reason: None, status, .. }) => {
            outcome.fact("verdict", "answered");
            outcome.fact("status", *status);
            outcome.say(format_args!("verdict    {green}answered here{green:#}: {status}"));
        }
        Step::Reply(Reply { reason: Some(reason), status, .. }) => {
            outcome.fact("verdict", "refused");
            outcome.fact("reason", reason.code());
            outcome.fact("status", *status);
            outcome.say(format_args!("verdict    {red}refused{red:#}: {}", told(*reason)));
            outcome.fail(EXIT_REFUSED, format_args!("refused: {}", reason.title()));
        }
        Step::Call { call, .. } => {
            outcome.fail(EXIT_INPUT, format_args!("undecided: the policy asks for {}", call.path));
        }
    }
}

/// What the client sees beside what the upstream says.
fn response(lines: &mut Lines, suite: &Suite, step: &Step, record: &RequestRecord) {
    let edits = match step {
        Step::Continue { .. } => suite.on_response(record, &[(":status", "200")]),
        Step::Reply(Reply { headers, .. }) => {
            headers.iter().map(|(name, value)| Edit::Set((*name).into(), value.clone())).collect()
        }
        Step::Call { .. } => return,
    };
    let edits = shown_edits(&edits);
    if !edits.is_empty() {
        lines.outcome.say("response");
    }
    for (kind, text) in &edits {
        lines.outcome.say(format_args!("  {kind:<8} {text}"));
    }
    lines.outcome.fact("response", object(&edits));
}

/// Each edit's kind and what it does. Ids are made anew for each request, and contexts signed: neither is of interest.
fn shown_edits(edits: &[Edit]) -> Vec<(&'static str, String)> {
    let one = |edit: &Edit| match edit {
        Edit::Set(name, _) if name == header::REQUEST_ID => None,
        Edit::Set(name, _) if name == header::CONTEXT => Some(("set", format!("{name}: signed"))),
        Edit::Set(name, _) if super::is_credential(name) => Some(("set", format!("{name}: …"))),
        Edit::Set(name, _) if name == "cookie" => Some(("set", format!("{name}: …"))),
        Edit::Set(name, value) => Some(("set", format!("{name}: {}", shown(&value.to_string())))),
        Edit::Add(name, value) => Some(("add", format!("{name}: {}", shown(&value.to_string())))),
        Edit::Remove(name) => Some(("remove", shown(name))),
        Edit::UpstreamUri(uri) => Some(("uri", shown(uri))),
    };
    edits.iter().filter_map(one).collect()
}

fn object(edits: &[(&'static str, String)]) -> Value {
    edits.iter().map(|(kind, text)| json!({"edit": kind, "header": text})).collect()
}

fn told(reason: Reason) -> String {
    format!("{} {}", reason.status(), reason.code())
}

/// What comes from outside goes to a terminal: control characters become visible.
fn shown(text: &str) -> String {
    text.escape_debug().to_string().replace("\\\"", "\"")
}
