//! `gatehouse convert`: makes an edge document of what Kong's and Envoy's own plugins are given. What has no equivalent
//! is named, each by its JSON path; nothing is dropped in silence, and nothing is guessed: what the source does not say
//! is missing, and the compiler says so. Knows no plugin.

use std::{collections::BTreeSet, path::PathBuf};

use gatehouse_edge::{Host, Parts, Suite};
use serde_json::{Map, Value, json};

use crate::{
    finding::{Finding, Weight},
    outcome::{self, EXIT_INPUT, EXIT_REFUSED, Outcome},
    source::Source,
};

mod envoy;
pub(crate) mod kong;
mod pem;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gatehouse convert kong.yaml > suite.json
  gatehouse convert --sidecar gatehouse-sidecar envoy.yaml > suite.json
  gatehouse convert --json jwt-plugin.yaml

Takes Kong's plugins jwt and rate-limiting (declarative configuration, KongPlugin, consumers with their jwt_secrets) and Envoy's
filters jwt_authn and ratelimit with its service's descriptors. The document goes to stdout, whether it compiles or not; stderr says
what has no equivalent, what the document now means, and what is missing. Exit 0 when it compiles, else 1.")]
pub struct Args {
    /// Configuration of Kong or Envoy (JSON or YAML); - is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The proxy that is to run the filter; where the file comes from unless given
    #[arg(long, value_name = "HOST")]
    host: Option<Proxy>,
    /// How the proxy reaches the sidecar: a cluster (Envoy), host:port or unix:/path (Kong)
    #[arg(long, value_name = "TARGET")]
    sidecar: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Proxy {
    Envoy,
    Kong,
}

/// What becomes of the source.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) issuers: Vec<Value>,
    pub(crate) sources: Map<String, Value>,
    /// The limiter in one word or at length.
    pub(crate) limiter: Option<Value>,
    /// How to reach the sidecar, where the source names one or needs one.
    pub(crate) sidecar: Map<String, Value>,
    /// The longest life of a token, where it is said of all issuers.
    pub(crate) max_lifetime_s: Option<u64>,
    /// Whether secrets are written in base64.
    pub(crate) base64_secrets: bool,
    /// What belongs into the sidecar's document.
    pub(crate) limits: Map<String, Value>,
    pub(crate) versions: BTreeSet<String>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) kong: bool,
    /// Whether anything was found that is converted here.
    pub(crate) known: bool,
}

pub fn run(args: &Args) -> Outcome {
    let file = outcome::name(&args.file);
    let text = match outcome::read(&args.file) {
        Ok(text) => text,
        Err(line) => return Outcome::failed(EXIT_INPUT, line),
    };
    let source = match Source::read(&text) {
        Ok(source) => source,
        Err(cause) => return Outcome::failed(EXIT_INPUT, format_args!("{file}: $: {cause}")),
    };
    let mut outcome = Outcome::default();
    let mut whole = Draft::default();
    let mut told = Vec::new();
    for (at, value) in source.values.iter().enumerate() {
        kong::read(value, &mut whole);
        envoy::read(value, &mut whole);
        let place = |found: Finding| Finding { place: source.place(at, &found.path), ..found };
        told.extend(whole.findings.drain(..).map(place));
    }
    if !whole.known {
        let line = format_args!(
            "{file}: $: holds none of Kong's jwt and rate-limiting and Envoy's jwt_authn and ratelimit; give such a configuration"
        );
        return Outcome::failed(EXIT_INPUT, line);
    }
    for found in &told {
        match found.weight {
            Weight::Mistake => outcome.fail(EXIT_REFUSED, found.line(&file)),
            Weight::Warning => outcome.warn(found.line(&file)),
        }
    }
    let limits = std::mem::take(&mut whole.limits);
    let document = whole.document(args);
    let text = format!("{document:#}");
    let said = match Suite::compile(&text, Parts::Suite) {
        Ok((_, warnings)) => warnings.into_iter().map(Finding::from).collect::<Vec<_>>(),
        Err(mistakes) => mistakes.into_iter().map(Finding::from).collect(),
    };
    outcome.say(&text);
    for found in &said {
        match found.weight {
            Weight::Mistake => outcome.fail(EXIT_REFUSED, found.line("result")),
            Weight::Warning => outcome.warn(found.line("result")),
        }
    }
    if !limits.is_empty() {
        let limits = json!({ "limits": limits });
        outcome.warn(format_args!("the sidecar's document: {limits}"));
        outcome.fact("sidecar_document", limits);
    }
    outcome.fact("document", document);
    outcome.fact("source", told.iter().map(Finding::object).collect::<Vec<_>>());
    outcome.fact("result", said.iter().map(Finding::object).collect::<Vec<_>>());
    outcome
}

impl Draft {
    pub(crate) fn note(&mut self, path: impl Into<String>, cause: impl Into<String>, mend: &str) {
        self.findings.push(Finding::warning(path, cause, mend));
    }

    /// Warns of every member of `config` that is neither `known` nor what the source has by itself.
    pub(crate) fn rest(
        &mut self,
        config: &Value,
        path: &str,
        known: &[&str],
        plain: &[(&str, Value)],
    ) {
        for (name, value) in config.as_object().into_iter().flatten() {
            let by_default = plain.iter().any(|(of, default)| of == name && default == value);
            if !known.contains(&name.as_str()) && !by_default && !is_empty(value) {
                self.findings.push(nothing_like(&format!("{path}.{name}")));
            }
        }
    }

    fn document(self, args: &Args) -> Value {
        let kong = args.host.map_or(self.kong, |host| host == Proxy::Kong);
        let host = if kong { Host::Kong } else { Host::Envoy };
        let (host, signatures) = match host {
            Host::Envoy => ("envoy", "native"),
            Host::Kong => ("kong", "portable"),
        };
        let mut document = Map::new();
        let mut put = |name: &str, value: Value| drop(document.insert(name.to_owned(), value));
        put("host", json!(host));
        put("signatures", json!(signatures));
        let mut sidecar = self.sidecar;
        if let Some(target) = &args.sidecar {
            sidecar.insert("target".to_owned(), json!(target));
        }
        if !sidecar.is_empty() {
            put("sidecar", Value::Object(sidecar));
        }
        let mut issuers = self.issuers;
        for issuer in issuers.iter_mut().filter_map(Value::as_object_mut) {
            if let Some(seconds) = self.max_lifetime_s {
                issuer.insert("max_lifetime_s".to_owned(), json!(seconds));
            }
            if let (true, Some(secret)) = (self.base64_secrets, issuer.get_mut("secret")) {
                kong::jwt::decode(secret);
            }
        }
        put("issuers", Value::Array(issuers));
        if !self.sources.is_empty() {
            put("sources", Value::Object(self.sources));
        }
        if let Some(limiter) = self.limiter {
            put("limiter", limiter);
        }
        if let Some(default) = self.versions.first() {
            put("versions", json!({"default": default, "served": self.versions}));
        }
        Value::Object(document)
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn nothing_like(path: &str) -> Finding {
    Finding { mend: None, ..Finding::warning(path, "has no equivalent and is left out", "") }
}

/// The versions that paths of the source name.
fn versions(path: &str, versions: &mut BTreeSet<String>) {
    let token = path.split_once("/api/").and_then(|(_, rest)| rest.split('/').next());
    let is_version = |token: &&str| {
        token.strip_prefix('v').is_some_and(|rest| {
            let digits = rest.split('-').next().unwrap_or_default();
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    versions.extend(token.filter(is_version).map(str::to_owned));
}
