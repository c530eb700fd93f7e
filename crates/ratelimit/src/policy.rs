//! Which limits weigh on a request: its tenant's tier, its endpoint, its caller, the burst guard and the day's quota,
//! where the tenant has none of its own. A limit that is absent is unlimited; 0 blocks.
//! Compiled once from configuration; asking for a tenant without limits of its own allocates nothing. Knows no
//! window's contents.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use gatehouse_contract::{Tier, sidecar::Overrides};

use crate::{
    keys,
    window::{MAX_COUNT, Span},
};

/// The greatest limit of a window: the Redis record has three bytes per slot.
pub const MAX_LIMIT: u32 = MAX_COUNT;
/// The longest time for which a pass may go ahead.
pub const MAX_HOLD: Duration = Duration::from_millis(200);
/// The most passes that go ahead at once.
pub const MAX_AHEAD: u32 = 512;
/// The most where a limit is below 64 000; above, one in 1000.
const FEW_AHEAD: u32 = 64;

/// What a limit is about; part of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// All requests of the tenant.
    Tenant,
    /// The tenant's requests to one endpoint.
    Endpoint,
    /// The requests of one caller within the tenant.
    Subject,
    /// The tenant's requests within one second (design §3.4: a guard on the rate of charges).
    Burst,
    /// The tenant's requests on one UTC day.
    Day,
}

/// How a limit is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// A sliding window in sub-buckets: never above the limit, freed at most one slot late, small at any limit.
    #[default]
    SubBuckets,
    /// Every charge with its time, in one string: exact, and as large as the limit.
    Ring,
    /// Every charge with its time, in a sorted set (the specification's): as [`Self::Ring`], and larger.
    SortedSet,
    /// A level that drains evenly: smooth, and up to twice the limit in a window after a pause.
    Gcra,
    /// A UTC calendar day.
    Day,
}

/// One limit that weighs on a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What it is about.
    pub name: Name,
    /// The most that any window may hold; 0 blocks.
    pub max: u32,
    /// The window.
    pub span: Span,
    algorithm: Algorithm,
    key_tail: Arc<str>,
}

/// An endpoint with a limit of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Upper case.
    pub method: String,
    /// The route's template.
    pub route: String,
    /// Requests per window.
    pub max: u32,
    /// How it is counted, where that is not [`Settings::algorithm`]. [`Algorithm::Day`] is none.
    pub algorithm: Option<Algorithm>,
}

/// The limits of a tier's tenants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TierLimits {
    /// Requests per window of the whole tenant.
    pub per_window: Option<u32>,
    /// Requests per window of each caller.
    pub per_subject: Option<u32>,
    /// Requests of the whole tenant per UTC day.
    pub per_day: Option<u32>,
}

/// What the operator configures. Each limit of a window is at most [`MAX_LIMIT`]; greater ones are lowered to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// By tier; a tier that is absent has no limits of its own.
    pub tiers: BTreeMap<Tier, TierLimits>,
    /// Endpoints with limits of their own.
    pub endpoints: Vec<Endpoint>,
    /// Requests per window of a tenant to any other known endpoint, each counted for itself.
    pub endpoint_default: Option<u32>,
    /// Endpoints that are known without a limit of their own, (method, template).
    pub known: Vec<(String, String)>,
    /// The window of all limits but the burst guard and the day.
    pub window: Span,
    /// At most `burst_multiplier` × the tenant's limit ÷ window seconds in any second; 0 is off.
    pub burst_multiplier: u32,
    /// How windows are counted, but the burst guard (always in sub-buckets) and the day. [`Algorithm::Day`] is none.
    pub algorithm: Algorithm,
}

/// The compiled limits.
#[derive(Debug, Clone)]
pub struct Policy {
    settings: Settings,
    tiers: BTreeMap<Tier, Rules>,
    none: Arc<[Rule]>,
}

/// Which limits are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The tenant's tier.
    pub tier: Tier,
    /// Where the tenant's limits differ from its tier's.
    pub limits: Option<&'a Overrides>,
    /// The caller within the tenant.
    pub subject: Option<&'a str>,
    /// Upper case.
    pub method: &'a str,
    /// The route's template.
    pub route: &'a str,
}

#[derive(Debug, Clone)]
struct Rules {
    methods: BTreeMap<String, BTreeMap<String, Arc<[Rule]>>>,
    other: Arc<[Rule]>,
}

// === impl Name ===

impl Name {
    /// The name in keys, headers and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Endpoint => "endpoint",
            Self::Subject => "subject",
            Self::Burst => "burst",
            Self::Day => "day",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Rule ===

impl Rule {
    /// A limit of `max` on `route`, which is [`keys::route`]'s, [`keys::subject`]'s or [`keys::ANY`], in
    /// sub-buckets; [`Name::Day`] counts days, whatever `span` says. The limit of a window is at most [`MAX_LIMIT`].
    pub fn new(name: Name, max: u32, span: Span, route: &str) -> Self {
        match name {
            Name::Day => Self::counted(name, max, Span::from_secs(86_400), Algorithm::Day, route),
            _ => Self::counted(name, max, span, Algorithm::SubBuckets, route),
        }
    }

    /// As [`Self::new`], counted by `algorithm`.
    pub fn counted(name: Name, max: u32, span: Span, algorithm: Algorithm, route: &str) -> Self {
        let max = if algorithm == Algorithm::Day { max } else { max.min(MAX_LIMIT) };
        // The value is no part of the key: a changed limit goes on from what was counted. What is stored differs
        // by algorithm, and so do the keys.
        let kind = match algorithm {
            Algorithm::SubBuckets => "",
            Algorithm::Ring => ".ring",
            Algorithm::SortedSet => ".set",
            Algorithm::Gcra => ".gcra",
            Algorithm::Day if name == Name::Day => "",
            Algorithm::Day => ".day",
        };
        let key_tail = keys::tail(&format!("{name}{kind}"), route).into();
        Self { name, max, span, algorithm, key_tail }
    }

    /// The end of its key, after the tenant.
    pub fn key_tail(&self) -> &str {
        &self.key_tail
    }

    /// How it is counted.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// How far ahead this limit books what may be used up to `hold` later. The burst guard counts charges, not uses:
    /// it books at once (design §3.4).
    pub fn hold(&self, hold: Duration) -> Duration {
        if self.name == Name::Burst { Duration::ZERO } else { hold }
    }

    /// How many passes of `cost` may go ahead at once: one in 50 of a limit but no more than 64, of a large one one in
    /// 1000; one in 5 of the burst guard (design §3.4); none where nothing can be booked ahead.
    pub fn most_ahead(&self, cost: u32) -> u32 {
        let part = match self.algorithm {
            Algorithm::Ring | Algorithm::SortedSet | Algorithm::Gcra => 0,
            Algorithm::SubBuckets | Algorithm::Day if self.name == Name::Burst => self.max / 5,
            Algorithm::SubBuckets | Algorithm::Day => {
                (self.max / 50).min((self.max / 1000).max(FEW_AHEAD))
            }
        };
        part.checked_div(cost).unwrap_or(0)
    }
}

/// How many passes of `cost` may go ahead at once under all of `rules`: at most [`MAX_AHEAD`]; one alone is none,
/// since it saves nothing.
pub fn most_ahead(rules: &[Rule], cost: u32) -> u32 {
    let most = rules.iter().map(|rule| rule.most_ahead(cost)).min().unwrap_or(0).min(MAX_AHEAD);
    if most > 1 { most } else { 0 }
}

/// For how long a pass may go ahead under `rules`: [`MAX_HOLD`], and at most one in 50 of any window that books it
/// where it ends, so that it is booked at most [`crate::window::AHEAD`] slots ahead.
pub fn longest_hold(rules: &[Rule]) -> Duration {
    let books = rules.iter().filter(|rule| rule.name != Name::Burst);
    let spans = books.map(|rule| Duration::from_millis(rule.span.ms() / 50));
    spans.min().unwrap_or(MAX_HOLD).min(MAX_HOLD)
}

// === impl Policy ===

impl Policy {
    /// Compiles `settings`.
    pub fn new(settings: &Settings) -> Self {
        let tiers = settings.tiers.iter().map(|(tier, own)| (*tier, Rules::new(settings, *own)));
        let mut tiers: BTreeMap<_, _> = tiers.collect();
        for tier in Tier::ALL {
            tiers.entry(*tier).or_insert_with(|| Rules::new(settings, TierLimits::default()));
        }
        Self { tiers, settings: settings.clone(), none: Arc::from([]) }
    }

    /// The limits that weigh on a request of a tenant in `tier` without limits of its own, but those of its caller.
    /// An endpoint that is not known shares one window with all others of that kind, so that nobody can make keys
    /// without end.
    pub fn rules(&self, tier: Tier, method: &str, route: &str) -> &Arc<[Rule]> {
        let Some(rules) = self.tiers.get(&tier) else { return &self.none };
        let own = rules.methods.get(method).and_then(|routes| routes.get(route));
        own.unwrap_or(&rules.other)
    }

    /// Whether [`Self::rules`] is all that weighs.
    pub fn is_plain(&self, asked: &Asked<'_>) -> bool {
        let of_tier = self.settings.tiers.get(&asked.tier).copied().unwrap_or_default();
        asked.limits.is_none_or(|own| *own == Overrides::default())
            && (of_tier.per_subject.is_none() || asked.subject.is_none())
    }

    /// All limits that weigh on a request. Allocates only where they are not [`Self::is_plain`]; callers may keep
    /// those for a while.
    pub fn with(&self, asked: &Asked<'_>) -> Arc<[Rule]> {
        if self.is_plain(asked) {
            return Arc::clone(self.rules(asked.tier, asked.method, asked.route));
        }
        let of_tier = self.settings.tiers.get(&asked.tier).copied().unwrap_or_default();
        let none = Overrides::default();
        let own = asked.limits.unwrap_or(&none);
        let limits = TierLimits {
            per_window: own.per_window.or(of_tier.per_window),
            per_subject: of_tier.per_subject,
            per_day: own.per_day.or(of_tier.per_day),
        };
        let multiplier = own.burst_multiplier.unwrap_or(self.settings.burst_multiplier);
        let (endpoint, route) = self.endpoint(own, asked.method, asked.route);
        let mut rules = rules(&self.settings, limits, multiplier, endpoint, &route);
        if let (Some(max), Some(subject)) = (limits.per_subject, asked.subject) {
            rules.push(windowed(&self.settings, Name::Subject, max, &keys::subject(subject)));
        }
        rules.into()
    }

    /// The endpoint's limit and how it is counted, and its part of the key.
    fn endpoint(
        &self,
        own: &Overrides,
        method: &str,
        route: &str,
    ) -> (Option<(u32, Algorithm)>, String) {
        let settings = &self.settings;
        let mut listed = settings.endpoints.iter();
        let listed = listed.find(|e| e.method == method && e.route == route);
        let algorithm = listed.and_then(|e| e.algorithm).unwrap_or(settings.algorithm);
        let mut owns = own.endpoints.iter();
        let of_tenant = owns.find(|e| e.method == method && e.route == route);
        if let Some(max) = of_tenant.map(|e| e.per_window).or(listed.map(|e| e.max)) {
            return (Some((max, algorithm)), keys::route(method, route));
        }
        let known = settings.known.iter().any(|(m, r)| m == method && r == route);
        let part = if known { keys::route(method, route) } else { keys::ANY.to_owned() };
        (settings.endpoint_default.map(|max| (max, algorithm)), part)
    }
}

impl Rules {
    fn new(settings: &Settings, own: TierLimits) -> Self {
        let with_endpoint = |endpoint: Option<(u32, Algorithm)>, route: &str| -> Arc<[Rule]> {
            rules(settings, own, settings.burst_multiplier, endpoint, route).into()
        };
        let by_default = settings.endpoint_default.map(|max| (max, settings.algorithm));
        let mut methods: BTreeMap<String, BTreeMap<String, Arc<[Rule]>>> = BTreeMap::new();
        let mut add = |method: &str, route: &str, endpoint| {
            let rules = with_endpoint(endpoint, &keys::route(method, route));
            methods.entry(method.to_owned()).or_default().insert(route.to_owned(), rules);
        };
        for (method, route) in &settings.known {
            add(method, route, by_default);
        }
        for Endpoint { method, route, max, algorithm } in &settings.endpoints {
            add(method, route, Some((*max, algorithm.unwrap_or(settings.algorithm))));
        }
        Self { methods, other: with_endpoint(by_default, keys::ANY) }
    }
}

/// All limits but a caller's.
fn rules(
    settings: &Settings,
    own: TierLimits,
    multiplier: u32,
    endpoint: Option<(u32, Algorithm)>,
    route: &str,
) -> Vec<Rule> {
    let tenant = own.per_window.map(|max| windowed(settings, Name::Tenant, max, keys::ANY));
    let endpoint = endpoint.map(|(max, algorithm)| {
        Rule::counted(Name::Endpoint, max, settings.window, algorithm, route)
    });
    let burst = own.per_window.and_then(|max| burst(settings, multiplier, max));
    let day = own.per_day.map(|max| Rule::new(Name::Day, max, settings.window, keys::ANY));
    [tenant, endpoint, burst, day].into_iter().flatten().collect()
}

fn windowed(settings: &Settings, name: Name, max: u32, route: &str) -> Rule {
    Rule::counted(name, max, settings.window, settings.algorithm, route)
}

fn burst(settings: &Settings, multiplier: u32, tenant_max: u32) -> Option<Rule> {
    if multiplier == 0 {
        return None;
    }
    let window_s = u64::from(settings.window.seconds());
    let per_second = u64::from(multiplier) * u64::from(tenant_max) / window_s;
    // A small limit still lets one through; a limit of 0 blocks here, too.
    let max = per_second.max(u64::from(tenant_max.min(1))).min(u64::from(MAX_LIMIT));
    let max = u32::try_from(max).unwrap_or(MAX_LIMIT);
    Some(Rule::new(Name::Burst, max, Span::from_secs(1), keys::ANY))
}

#[cfg(test)]
mod tests;
