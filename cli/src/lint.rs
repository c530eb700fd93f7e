//! `gatehouse lint`: compiles edge documents with the filter's own compiler, by themselves or within what Envoy, Istio
//! and Kong are given, and names what those documents would make of them. Knows no rules of the edge document itself.

use std::path::PathBuf;

use clap::ValueEnum as _;
use gatehouse_edge::{Host, Parts, Suite};
use gatehouse_validate::Validator;
use serde_json::{Value, json};

use crate::{
    finding::{Finding, Weight},
    outcome::{self, EXIT_INPUT, EXIT_REFUSED, Outcome},
    source::Source,
};

mod chain;
mod headers;
mod kong;
mod manifest;
mod vm;

pub(crate) use manifest::{is_type, walk};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  gatehouse lint suite.json
  gatehouse lint --module auth auth.json
  gatehouse lint --strict istio/base/wasmplugin.yaml kong/kong.yaml
  gatehouse lint --json - < suite.json

A file is an edge document (JSON or YAML), or a manifest that embeds one: Envoy's configuration, EnvoyFilter and WasmPlugin of
Istio, Kong's declarative configuration and KongPlugin. Every finding is one line on stderr:
FILE:LINE:COLUMN: [warning:] $.path: cause; mend.")]
pub struct Args {
    /// Edge documents, or manifests that embed them (JSON or YAML); - is stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Refuse documents with warnings too
    #[arg(long)]
    strict: bool,
    /// The module that an edge document by itself is for; manifests name it
    #[arg(long, value_name = "MODULE", default_value = "suite")]
    module: Module,
}

/// A module that reads the edge document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Module {
    /// All steps in one
    Suite,
    /// Who calls, and what that caller may do
    Auth,
    /// Which API version answers
    Version,
    /// How much a caller may
    Ratelimit,
    /// What is changed of requests and responses
    Transform,
    /// Bodies by JSON Schema; its document is one of its own
    Validate,
}

impl Module {
    /// By the name that hosts load it under.
    fn named(name: &str) -> Option<Self> {
        Self::value_variants().iter().copied().find(|module| module.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Suite => "suite",
            Self::Auth => "auth",
            Self::Version => "version",
            Self::Ratelimit => "ratelimit",
            Self::Transform => "transform",
            Self::Validate => "validate",
        }
    }

    /// What the module says of its document.
    fn compile(self, text: &str) -> Vec<Finding> {
        let edge = |parts| Suite::compile(text, parts).map(|(_, warnings)| warnings);
        let compiled = match self {
            Self::Suite => edge(Parts::Suite),
            Self::Auth => edge(Parts::Auth),
            Self::Version => edge(Parts::Version),
            Self::Ratelimit => edge(Parts::RateLimit),
            Self::Transform => edge(Parts::Transform),
            Self::Validate => Validator::compile(text).map(|_| Vec::new()),
        };
        match compiled {
            Ok(warnings) => warnings.into_iter().map(Finding::from).collect(),
            Err(mistakes) => mistakes.into_iter().map(Finding::from).collect(),
        }
    }
}

/// An edge document and where it stands.
#[derive(Debug)]
struct Embedded {
    /// The document of the file, from 0.
    document: usize,
    /// A JSON path; `$` for a file that is nothing else.
    at: String,
    text: String,
    /// Whether `at` leads to a text that holds it.
    quoted: bool,
    module: Module,
    /// The host that the manifest is for.
    host: Option<Host>,
    /// Its place among other modules, where that can be told.
    slot: Option<chain::Slot>,
}

/// A file that was read and judged by itself.
struct Examined<'t> {
    name: String,
    source: Option<Source<'t>>,
    embedded: Vec<Embedded>,
    findings: Vec<Finding>,
}

pub fn run(args: &Args) -> Outcome {
    let mut outcome = Outcome::default();
    let texts: Vec<(String, Result<String, String>)> =
        args.files.iter().map(|path| (outcome::name(path), outcome::read(path))).collect();
    let mut files = Vec::new();
    for (name, text) in &texts {
        match text {
            Ok(text) => files.push(examine(name, text, args.module)),
            Err(line) => outcome.fail(EXIT_INPUT, line),
        }
    }
    for (file, document, found) in chain::judge(&files) {
        if let Some(examined) = files.get_mut(file) {
            let source = examined.source.as_ref();
            let place = source.and_then(|source| source.place(document, &found.path));
            examined.findings.push(Finding { place, ..found });
        }
    }
    let told: Vec<Value> =
        files.iter().map(|examined| tell(args.strict, examined, &mut outcome)).collect();
    outcome.fact("files", told);
    outcome
}

fn tell(strict: bool, examined: &Examined<'_>, outcome: &mut Outcome) -> Value {
    let Examined { name: file, embedded, findings, .. } = examined;
    let mistakes = findings.iter().filter(|found| found.weight == Weight::Mistake).count();
    let warnings = findings.len().saturating_sub(mistakes);
    for finding in findings {
        match finding.weight {
            Weight::Mistake => outcome.fail(EXIT_REFUSED, finding.line(file)),
            Weight::Warning => outcome.warn(finding.line(file)),
        }
    }
    let refused = mistakes > 0 || strict && warnings > 0;
    if mistakes == 0 && refused {
        outcome.fail(EXIT_REFUSED, format_args!("{file}: refused: {}", warned(warnings)));
    } else if !refused {
        outcome.say(format_args!("{file}: ok, {}", warned(warnings)));
    }
    let embedded: Vec<Value> =
        embedded.iter().map(|one| json!({"at": one.at, "module": one.module.name()})).collect();
    let findings: Vec<Value> = findings.iter().map(Finding::object).collect();
    json!({"file": file, "ok": !refused, "documents": embedded, "findings": findings})
}

/// The edge documents of a file and what is wrong with it.
fn examine<'t>(name: &str, text: &'t str, module: Module) -> Examined<'t> {
    let name = name.to_owned();
    match within(text, module) {
        Ok((source, embedded, findings)) => {
            Examined { name, source: Some(source), embedded, findings }
        }
        Err(cause) => {
            let mend =
                "give an edge document, or a manifest of Envoy, Istio or Kong that holds one";
            let findings = vec![Finding::mistake("$", cause, mend)];
            Examined { name, source: None, embedded: Vec::new(), findings }
        }
    }
}

/// The one document of the fused module that a file holds, by itself or within a manifest, as JSON; else why there is
/// none.
pub(crate) fn suite(text: &str) -> Result<String, String> {
    let (_, embedded, _) = within(text, Module::Suite)?;
    let mut suites = embedded.into_iter().filter(|one| one.module == Module::Suite);
    match (suites.next(), suites.next()) {
        (Some(one), None) => Ok(one.text),
        (None, _) => {
            let single = "a chain's document is explained whole from a file of its own";
            Err(format!("holds no document of the fused module; {single}"))
        }
        (Some(_), Some(_)) => Err("holds several documents of the fused module".to_owned()),
    }
}

type Within<'t> = (Source<'t>, Vec<Embedded>, Vec<Finding>);

/// `Err` where it holds nothing that is known here.
fn within(text: &str, module: Module) -> Result<Within<'_>, String> {
    let source = Source::read(text)?;
    let mut findings = Vec::new();
    let mut embedded = Vec::new();
    if let ([value], true) = (source.values.as_slice(), source.values.iter().all(is_edge)) {
        // As it was written: a reader of values would not see a member that stands twice.
        let text = if source.json { text.to_owned() } else { value.to_string() };
        let at = "$".to_owned();
        let (host, slot) = (None, None);
        embedded.push(Embedded { document: 0, at, text, quoted: false, module, host, slot });
    } else {
        let mut known = false;
        for (document, value) in source.values.iter().enumerate() {
            let manifest = manifest::read(document, value);
            let within = |found: &Finding| {
                manifest.embedded.iter().any(|one| found.path.starts_with(&one.at))
            };
            // An edge document has dates of its own, and a better judge.
            let headers = headers::check(value).into_iter().filter(|found| !within(found));
            let told: Vec<Finding> = manifest.findings.into_iter().chain(headers).collect();
            let told = told.into_iter();
            let told =
                told.map(|found| Finding { place: source.place(document, &found.path), ..found });
            let before = findings.len();
            findings.extend(told);
            known |= manifest.known || findings.len() > before;
            embedded.extend(manifest.embedded);
        }
        if !known {
            return Err("holds no configuration of Gatehouse's".to_owned());
        }
    }
    // Of an edge document in JSON the compiler says it.
    if !(source.json && embedded.iter().any(|one| one.at == "$")) {
        for (path, place) in source.twins() {
            let twin = Finding::mistake(path, "stands twice", "keep one of them");
            findings.push(Finding { place: Some(place), ..twin });
        }
    }
    for one in &embedded {
        findings.extend(compile(&source, one));
    }
    Ok((source, embedded, findings))
}

fn compile(source: &Source<'_>, one: &Embedded) -> Vec<Finding> {
    let mut found = one.module.compile(&one.text);
    if let (Some(wanted), Some(written)) = (one.host, Suite::named_host(&one.text))
        && wanted != written
    {
        let (cause, mend) = match wanted {
            Host::Envoy => ("this manifest is for Envoy", "write \"envoy\""),
            Host::Kong => ("this manifest is for Kong", "write \"kong\""),
        };
        found.push(Finding::mistake("$.host", cause, mend));
    }
    let place = |found: Finding| {
        let inner = found.path.clone();
        let found = found.within(&one.at);
        let place = if one.quoted {
            source.place_within(one.document, &one.at, &one.text, &inner)
        } else {
            source.place(one.document, &found.path)
        };
        Finding { place, ..found }
    };
    found.into_iter().map(place).collect()
}

/// Whether it is an edge document and no manifest: what no manifest is.
fn is_edge(value: &Value) -> bool {
    const OTHERS: &[&str] = &[
        "apiVersion",
        "kind",
        "_format_version",
        "static_resources",
        "resources",
        "plugins",
        "plugin",
        "filters",
        "http_filters",
    ];
    value.as_object().is_some_and(|members| {
        let ours = ["host", "signatures", "issuers", "versions"];
        ours.iter().any(|name| members.contains_key(*name))
            || !OTHERS.iter().any(|name| members.contains_key(*name)) && !has_headers(value)
    })
}

fn has_headers(value: &Value) -> bool {
    !headers::check(value).is_empty()
}

fn warned(count: usize) -> String {
    match count {
        1 => "1 warning".to_owned(),
        count => format!("{count} warnings"),
    }
}
