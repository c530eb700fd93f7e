//! Modules that one proxy runs, put into the order in which it runs them: what each needs before it, and what they must
//! agree on. Judges what was given; who lints one manifest of several is told of that one. Knows no module's document
//! but for what two of them must say alike.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Embedded, Examined, Module};
use crate::finding::Finding;

/// Where a module stands among those of its proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// The proxy, by what selects it; the list itself for Envoy's own configuration, whose file is not in here.
    chain: String,
    /// Whether another file may hold more of the same chain.
    open: bool,
    place: Place,
}

/// What decides the order, first things first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    phase: u8,
    /// Ascending.
    rank: i128,
    name: String,
    index: usize,
}

/// Phases of Istio's in their order; what names none stands behind them, and what is put before the router last.
const PHASES: [&str; 3] = ["AUTHN", "AUTHZ", "STATS"];
const NO_PHASE: u8 = 3;
const BEFORE_ROUTER: u8 = 4;

impl Slot {
    /// A WasmPlugin's or a TrafficExtension's: by phase, then by descending priority, then by name.
    pub(super) fn of_istio(value: &Value) -> Option<Self> {
        let spec = value.get("spec")?;
        let phase = spec.get("phase").and_then(Value::as_str);
        let phase = PHASES.iter().position(|name| Some(*name) == phase);
        let targets = ["targetRefs", "targetRef"].iter().find_map(|name| spec.get(*name));
        let selected = spec.pointer("/selector/matchLabels").or(targets);
        // Without a priority a plugin comes behind those that have one.
        let priority = spec.get("priority").and_then(Value::as_i64).unwrap_or(i64::MIN);
        let place = Place {
            phase: phase.and_then(|at| u8::try_from(at).ok()).unwrap_or(NO_PHASE),
            rank: -i128::from(priority),
            name: name(value),
            index: 0,
        };
        Some(Self { chain: proxies(value, selected), open: true, place })
    }

    /// Of a filter at `path` in Envoy's own configuration, or in an EnvoyFilter that puts it before the router.
    pub(super) fn of_envoy(document: usize, root: &Value, path: &str) -> Option<Self> {
        let index = |after: &str| after.split(']').next()?.parse::<usize>().ok();
        if root.get("kind").and_then(Value::as_str) == Some("EnvoyFilter") {
            let at = index(path.strip_prefix("$.spec.configPatches[")?)?;
            let patch = root.pointer(&format!("/spec/configPatches/{at}"))?;
            let text = |pointer: &str| patch.pointer(pointer).and_then(Value::as_str);
            let before = text("/match/listener/filterChain/filter/subFilter/name");
            let router = before.is_some_and(|name| name == "envoy.filters.http.router");
            if text("/patch/operation") != Some("INSERT_BEFORE") || !router {
                return None;
            }
            let priority = root.pointer("/spec/priority").and_then(Value::as_i64).unwrap_or(0);
            let rank = i128::from(priority);
            let place = Place { phase: BEFORE_ROUTER, rank, name: name(root), index: at };
            let selected = root.pointer("/spec/workloadSelector/labels");
            return Some(Self { chain: proxies(root, selected), open: true, place });
        }
        let (list, after) = path.rsplit_once("http_filters[")?;
        let chain = format!("{document}{list}");
        let place = Place { phase: 0, rank: 0, name: String::new(), index: index(after)? };
        Some(Self { chain, open: false, place })
    }

    /// Whether what Istio itself judges comes behind a module that must be before it.
    pub(super) fn before_istio(
        &self,
        module: Module,
        value: &Value,
        path: &str,
    ) -> Option<Finding> {
        let first = matches!(module, Module::Suite | Module::Auth | Module::Version);
        let written = value.pointer("/spec/phase").and_then(Value::as_str);
        (first && self.place.phase != 0).then(|| {
            let first = match written {
                Some(phase) => format!("in {phase} Istio's own authentication"),
                None => "without a phase Istio's own policy".to_owned(),
            };
            let cause = format!(
                "{first} comes first, and judges paths that are not in their one form and headers that clients made up"
            );
            Finding::warning(format!("{path}.spec.phase"), cause, "write AUTHN")
        })
    }
}

fn name(value: &Value) -> String {
    let of = |name: &str| value.pointer(&format!("/metadata/{name}")).and_then(Value::as_str);
    format!("{}.{}", of("name").unwrap_or_default(), of("namespace").unwrap_or_default())
}

/// What selects the same proxies alike.
fn proxies(value: &Value, selected: Option<&Value>) -> String {
    let namespace = value.pointer("/metadata/namespace").and_then(Value::as_str);
    format!("{} {}", namespace.unwrap_or_default(), selected.unwrap_or(&Value::Null))
}

/// A module and where it was found.
struct Link<'e> {
    file: usize,
    embedded: &'e Embedded,
    place: &'e Place,
    document: Value,
}

/// What is wrong with the chains of all files; each finding with the file and the document that it is about.
pub(super) fn judge(files: &[Examined<'_>]) -> Vec<(usize, usize, Finding)> {
    let mut chains: BTreeMap<(Option<usize>, &str), Vec<Link<'_>>> = BTreeMap::new();
    for (file, examined) in files.iter().enumerate() {
        for embedded in &examined.embedded {
            let Some(slot) = &embedded.slot else { continue };
            let within = (!slot.open).then_some(file);
            chains.entry((within, slot.chain.as_str())).or_default().push(Link {
                file,
                embedded,
                place: &slot.place,
                document: serde_json::from_str(&embedded.text).unwrap_or_default(),
            });
        }
    }
    let mut found = Vec::new();
    for mut links in chains.into_values() {
        links.sort_by(|a, b| a.place.cmp(b.place));
        for (at, link) in links.iter().enumerate() {
            let (before, rest) = links.split_at(at);
            let behind = rest.get(1..).unwrap_or_default();
            let told = order(link, before, behind, files)
                .into_iter()
                .chain(alike(link, before, files))
                .map(|finding| (link.file, link.embedded.document, finding));
            found.extend(told);
        }
    }
    found
}

/// The single modules in the order in which they must stand.
const SINGLE: [Module; 4] = [Module::Version, Module::Auth, Module::Ratelimit, Module::Transform];

fn step(module: Module) -> Option<usize> {
    SINGLE.iter().position(|one| *one == module)
}

fn order(
    link: &Link<'_>,
    before: &[Link<'_>],
    behind: &[Link<'_>],
    files: &[Examined<'_>],
) -> Vec<Finding> {
    let module = link.embedded.module;
    let at = link.embedded.at.as_str();
    let named = |other: &Link<'_>| {
        let file = files.get(other.file).map_or("", |file| file.name.as_str());
        format!("{} of {file}", other.embedded.module.name())
    };
    let mut found = Vec::new();
    let fused = |one: Module| one == Module::Suite;
    let doubled = before.iter().find(|other| {
        let other = other.embedded.module;
        other == module
            || fused(other) && step(module).is_some()
            || fused(module) && step(other).is_some()
    });
    if let Some(other) = doubled {
        let cause =
            format!("the same proxies run {}, too, and do the same work twice", named(other));
        found.push(Finding::mistake(at, cause, "apply one of them; lint alternatives apart"));
        return found;
    }
    let late = behind.iter().find(|other| match (step(module), step(other.embedded.module)) {
        (Some(own), Some(others)) => others < own,
        _ => false,
    });
    if let Some(other) = late {
        let cause = format!("stands before {}, which must come first", named(other));
        let mend = "put version, auth, ratelimit, transform in this order: in Istio by phase, then descending priority";
        found.push(Finding::mistake(at, cause, mend));
    } else if module == Module::Ratelimit
        && !before.iter().any(|other| other.embedded.module == Module::Auth)
    {
        let cause = "no auth stands before it in what is given here: nobody would pass (503)";
        found.push(Finding::warning(at, cause, "lint it together with the module auth"));
    }
    let judges = |other: &&Link<'_>| {
        module == Module::Validate && matches!(other.embedded.module, Module::Suite | Module::Auth)
    };
    if let Some(other) = behind.iter().find(judges) {
        let cause = format!(
            "stands before {}: strangers have their bodies judged, and learn what is taken",
            named(other)
        );
        found.push(Finding::warning(at, cause, "put it behind"));
    }
    let (own, last) = (link.place, before.last());
    if let Some(other) = last
        && own.phase < BEFORE_ROUTER
        && !own.name.is_empty()
        && (own.phase, own.rank) == (other.place.phase, other.place.rank)
    {
        let cause = format!("has the priority of {}, so that their names decide", named(other));
        found.push(Finding::warning(at, cause, "give each a priority of its own"));
    }
    found
}

/// What two modules of a chain must say alike, and which read it.
const ALIKE: [(&str, &str, &[Module]); 2] = [
    ("/versions/served", "versions.served", &SINGLE),
    ("/sources", "sources", &[Module::Auth, Module::Transform]),
];

fn alike(link: &Link<'_>, before: &[Link<'_>], files: &[Examined<'_>]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (pointer, name, readers) in ALIKE {
        let said = |link: &Link<'_>| link.document.pointer(pointer).cloned().unwrap_or_default();
        let reads = |link: &Link<'_>| readers.contains(&link.embedded.module);
        let other = before.iter().find(|other| reads(other) && !said(other).is_null());
        let (true, Some(other)) = (reads(link), other) else { continue };
        // What a module needs its own compiler asks for.
        let (own, theirs) = (said(link), said(other));
        if own.is_null() || own == theirs {
            continue;
        }
        let file = files.get(other.file).map_or("", |file| file.name.as_str());
        let cause = format!("is not what {} of {file} has", other.embedded.module.name());
        let path = format!("{}.{name}", link.embedded.at);
        found.push(Finding::mistake(path, cause, "give all modules of a chain one document"));
    }
    found
}
