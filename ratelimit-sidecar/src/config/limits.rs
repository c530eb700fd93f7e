//! `$.limits`: what weighs on a request, by tier and endpoint, and what holds while the store is away.
//! Knows no window's contents.

use std::{collections::BTreeMap, str::FromStr};

use gatehouse_contract::{Document, Tier, document, rbac};
use gatehouse_ratelimit::{
    Algorithm, Policy, Span,
    policy::{Endpoint, MAX_LIMIT, Settings, TierLimits},
};
use serde_json::Value;

/// `$.limits`, compiled.
#[derive(Debug, Clone)]
pub struct Limits {
    pub policy: Policy,
    /// The window of tier, endpoint and subject limits, in seconds.
    pub window_s: u32,
    pub mode: Mode,
    away: BTreeMap<Tier, Away>,
}

/// What a tier's checks are answered while no store decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Away {
    /// By a window in this process: the limit ÷ the sidecars that were last seen alive.
    #[default]
    Local,
    /// All pass.
    Open,
    /// 503 `limiter_unavailable`, gRPC `UNAVAILABLE`.
    Closed,
}

/// Whether decisions may be charged ahead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Where a limit is large enough and its window busy.
    #[default]
    Auto,
    /// Wherever a limit is large enough, from the first check on.
    Lease,
    /// Never: each decision is one of the store's.
    Strict,
}

const AWAY: &str = "\"local\", \"open\" or \"closed\"";
const MODE: &str = "\"auto\", \"lease\" or \"strict\"";
const ALGORITHM: &str = "\"sub_buckets\", \"ring\", \"sorted_set\" or \"gcra\"";
const UNLIMITED: &str = "unlimited";
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH or DELETE";

/// A tier's tenants, requests per minute (specification GRL-002).
const TIERS: &[(&str, Tier, u64)] =
    &[("free", Tier::Free, 60), ("pro", Tier::Pro, 600), ("enterprise", Tier::Enterprise, 6000)];

/// Design §3.4: (method, route, requests per minute).
pub const ENDPOINTS: &[(&str, &str, u32)] = &[
    ("POST", "/api/v1/registry/agents", 10),
    ("POST", "/api/v1/runtime/executions", 100),
    ("DELETE", "/api/v1/registry/agents/{agent}", 5),
];
/// All other endpoints, each for itself.
const ENDPOINT: u64 = 1000;
const BURST: u64 = 5;

/// One tier as it is written.
struct Written {
    limits: TierLimits,
    away: Away,
}

// === impl Limits ===

impl Limits {
    /// What a tier's checks are answered while no store decides.
    pub fn away(&self, tier: Tier) -> Away {
        self.away.get(&tier).copied().unwrap_or_default()
    }
}

/// Reads `$.limits`; what is absent is the design's.
pub fn read(doc: &Document<'_>) -> Option<Limits> {
    // An object without members has every default.
    doc.object_opt("limits", limits)?.or_else(|| document::read("{}", limits).ok())
}

fn limits(doc: &Document<'_>) -> Option<Limits> {
    // All are read before any is judged, so that every mistake is reported.
    let tiers = match doc.object_opt("tiers", tiers) {
        Some(Some(tiers)) => Some(tiers),
        Some(None) => document::read("{}", tiers).ok(),
        None => None,
    };
    let listed = doc.raw("endpoints").is_some();
    let endpoints = doc.objects("endpoints", endpoint);
    let endpoint_default = ceiling(doc, "endpoint_default", Some(ENDPOINT));
    let window_s = doc.integer("window_s", Some(60), 1..=86_400);
    let multiplier = doc.integer("burst_multiplier", Some(BURST), 0..=1000);
    let algorithm = doc.parsed_or("algorithm", Counted(Algorithm::default()), ALGORITHM);
    let mode = doc.parsed_or("mode", Mode::default(), MODE);
    let (tiers, endpoints) = (tiers?, endpoints?);
    let window_s = u32::try_from(window_s?).ok()?;
    // The matrix is part of this build and tested there: it cannot be broken here.
    let matrix = rbac::Matrix::builtin().ok()?;
    let known = matrix.routes().iter().map(|route| (route.method.clone(), route.template.clone()));
    let settings = Settings {
        tiers: tiers.iter().map(|(tier, written)| (*tier, written.limits)).collect(),
        endpoints: if listed { endpoints } else { by_design() },
        endpoint_default: endpoint_default?,
        known: known.collect(),
        window: Span::from_secs(window_s),
        burst_multiplier: u32::try_from(multiplier?).ok()?,
        algorithm: algorithm?.0,
    };
    Some(Limits {
        policy: Policy::new(&settings),
        window_s,
        mode: mode?,
        away: tiers.iter().map(|(tier, written)| (*tier, written.away)).collect(),
    })
}

fn tiers(doc: &Document<'_>) -> Option<BTreeMap<Tier, Written>> {
    let read: Vec<_> = TIERS.iter().map(|tier| Some((tier.1, tier_of(doc, *tier)?))).collect();
    read.into_iter().collect()
}

/// A number is requests per window, and nothing else.
fn tier_of(doc: &Document<'_>, (name, _, max): (&'static str, Tier, u64)) -> Option<Written> {
    if doc.raw(name).is_some_and(Value::is_object) {
        return doc.object(name, |doc| {
            let per_window = per_window(doc, Some(max));
            let per_subject = ceiling(doc, "per_subject", None);
            let per_day = day(doc);
            let away = doc.parsed_or("away", Away::default(), AWAY);
            let limits = TierLimits {
                per_window: per_window?,
                per_subject: per_subject?,
                per_day: per_day?,
            };
            Some(Written { limits, away: away? })
        });
    }
    let per_window = Some(limit(doc, name, Some(max))?);
    Some(Written { limits: TierLimits { per_window, ..TierLimits::default() }, away: Away::Local })
}

fn endpoint(doc: &Document<'_>) -> Option<Endpoint> {
    let method = doc.parsed::<Method>("method", METHODS);
    let route = doc.text("route");
    let max = per_window(doc, None);
    let algorithm = doc.parsed_opt::<Counted>("algorithm", ALGORITHM);
    let algorithm = algorithm?.map(|counted| counted.0);
    Some(Endpoint { method: method?.0, route: route?, max: max??, algorithm })
}

fn by_design() -> Vec<Endpoint> {
    let endpoint = |(method, route, max): &(&str, &str, u32)| Endpoint {
        method: (*method).to_owned(),
        route: (*route).to_owned(),
        max: *max,
        algorithm: None,
    };
    ENDPOINTS.iter().map(endpoint).collect()
}

/// `per_window`, or `per_minute`, its older name. Required without a default, and then never without a number.
fn per_window(doc: &Document<'_>, default: Option<u64>) -> Option<Option<u32>> {
    let (new, old) = (doc.raw("per_window").is_some(), doc.raw("per_minute").is_some());
    if new && old {
        doc.note("per_minute", "stands beside \"per_window\"", "write one of both");
        return None;
    }
    let name = if old { "per_minute" } else { "per_window" };
    match default {
        Some(_) => ceiling(doc, name, default),
        None => limit(doc, name, None).map(Some),
    }
}

/// A limit that may be absent: by its default, or as `"unlimited"`.
fn ceiling(doc: &Document<'_>, name: &'static str, default: Option<u64>) -> Option<Option<u32>> {
    match doc.raw(name) {
        None if default.is_none() => Some(None),
        Some(Value::String(word)) if word == UNLIMITED => Some(None),
        _ => limit(doc, name, default).map(Some),
    }
}

fn limit(doc: &Document<'_>, name: &'static str, default: Option<u64>) -> Option<u32> {
    let value = doc.integer(name, default, 0..=u64::from(MAX_LIMIT))?;
    u32::try_from(value).ok()
}

fn day(doc: &Document<'_>) -> Option<Option<u32>> {
    if doc.raw("per_day").is_none() {
        return Some(None);
    }
    let value = doc.integer("per_day", None, 0..=u64::from(u32::MAX))?;
    u32::try_from(value).ok().map(Some)
}

struct Method(String);

impl FromStr for Method {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" => Ok(Self(text.to_owned())),
            _ => Err(()),
        }
    }
}

/// How windows are counted; the day is no choice.
struct Counted(Algorithm);

impl FromStr for Counted {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "sub_buckets" => Ok(Self(Algorithm::SubBuckets)),
            "ring" => Ok(Self(Algorithm::Ring)),
            "sorted_set" => Ok(Self(Algorithm::SortedSet)),
            "gcra" => Ok(Self(Algorithm::Gcra)),
            _ => Err(()),
        }
    }
}

impl FromStr for Away {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "local" => Ok(Self::Local),
            "open" => Ok(Self::Open),
            "closed" => Ok(Self::Closed),
            _ => Err(()),
        }
    }
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            "lease" => Ok(Self::Lease),
            "strict" => Ok(Self::Strict),
            _ => Err(()),
        }
    }
}
