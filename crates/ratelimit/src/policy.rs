//! Which limits weigh on a request: its tenant's tier, its endpoint, and the burst guard.
//! Compiled once from configuration; asking allocates nothing. Knows no window's contents.

use std::{collections::BTreeMap, fmt};

use gatehouse_contract::Tier;

use crate::{keys, window::Span};

/// The greatest limit: the Redis record has three bytes per slot.
pub const MAX_LIMIT: u32 = 0xFF_FFFF;

/// What a limit is about; part of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// All requests of the tenant.
    Tenant,
    /// The tenant's requests to one endpoint.
    Endpoint,
    /// The tenant's requests within one second (design §3.4: a guard on the rate of charges).
    Burst,
}

/// One limit that weighs on a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it is about.
    pub name: Name,
    /// The most that any window may hold; 0 blocks.
    pub max: u32,
    /// The window.
    pub span: Span,
    key_tail: String,
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
}

/// What the operator configures. Each limit is at most [`MAX_LIMIT`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Requests per window of a tenant, by tier.
    pub tiers: BTreeMap<Tier, u32>,
    /// Endpoints with limits of their own.
    pub endpoints: Vec<Endpoint>,
    /// Requests per window of a tenant to any other known endpoint, each counted for itself.
    pub endpoint_default: u32,
    /// Endpoints that are known without a limit of their own, (method, template).
    pub known: Vec<(String, String)>,
    /// The window of tier and endpoint limits.
    pub window: Span,
    /// At most `burst_multiplier` × limit ÷ window seconds in any second; 0 is off.
    pub burst_multiplier: u32,
}

/// The compiled limits.
#[derive(Debug, Clone)]
pub struct Policy {
    tiers: BTreeMap<Tier, Rules>,
}

#[derive(Debug, Clone)]
struct Rules {
    methods: BTreeMap<String, BTreeMap<String, Vec<Rule>>>,
    other: Vec<Rule>,
}

// === impl Name ===

impl Name {
    /// The name in keys, headers and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Endpoint => "endpoint",
            Self::Burst => "burst",
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
    /// A limit of `max` (at most [`MAX_LIMIT`], greater ones are lowered to it) on `route`, which is
    /// [`keys::route`]'s or [`keys::ANY`].
    pub fn new(name: Name, max: u32, span: Span, route: &str) -> Self {
        // The value is no part of the key: a changed limit goes on from what was counted.
        Self { name, max: max.min(MAX_LIMIT), span, key_tail: keys::tail(name.as_str(), route) }
    }

    /// The end of its key, after the tenant.
    pub fn key_tail(&self) -> &str {
        &self.key_tail
    }
}

// === impl Policy ===

impl Policy {
    /// Compiles `settings`. A tier that is not among them is blocked.
    pub fn new(settings: &Settings) -> Self {
        let tiers = Tier::ALL.iter().map(|tier| {
            let max = settings.tiers.get(tier).copied().unwrap_or(0);
            (*tier, Rules::new(settings, max))
        });
        Self { tiers: tiers.collect() }
    }

    /// The limits that weigh on a request of a tenant in `tier`. An endpoint that is not known shares one window
    /// with all others of that kind, so that nobody can make keys without end.
    pub fn rules(&self, tier: Tier, method: &str, route: &str) -> &[Rule] {
        let Some(rules) = self.tiers.get(&tier) else { return &[] };
        let own = rules.methods.get(method).and_then(|routes| routes.get(route));
        own.unwrap_or(&rules.other)
    }
}

impl Rules {
    fn new(settings: &Settings, tenant_max: u32) -> Self {
        let with_endpoint = |max: u32, route: &str| {
            let mut rules = vec![
                Rule::new(Name::Tenant, tenant_max, settings.window, keys::ANY),
                Rule::new(Name::Endpoint, max, settings.window, route),
            ];
            rules.extend(burst(settings, tenant_max));
            rules
        };
        let mut methods: BTreeMap<String, BTreeMap<String, Vec<Rule>>> = BTreeMap::new();
        let mut add = |method: &str, route: &str, max: u32| {
            let rules = with_endpoint(max, &keys::route(method, route));
            methods.entry(method.to_owned()).or_default().insert(route.to_owned(), rules);
        };
        for (method, route) in &settings.known {
            add(method, route, settings.endpoint_default);
        }
        for Endpoint { method, route, max } in &settings.endpoints {
            add(method, route, *max);
        }
        Self { methods, other: with_endpoint(settings.endpoint_default, keys::ANY) }
    }
}

fn burst(settings: &Settings, tenant_max: u32) -> Option<Rule> {
    if settings.burst_multiplier == 0 {
        return None;
    }
    let window_s = u64::from(settings.window.seconds());
    let per_second = u64::from(settings.burst_multiplier) * u64::from(tenant_max) / window_s;
    // A small limit still lets one through; a limit of 0 blocks here, too.
    let max = per_second.max(u64::from(tenant_max.min(1))).min(u64::from(MAX_LIMIT));
    let max = u32::try_from(max).unwrap_or(MAX_LIMIT);
    Some(Rule::new(Name::Burst, max, Span::from_secs(1), keys::ANY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(burst_multiplier: u32) -> Settings {
        let endpoint = |method: &str, route: &str, max| Endpoint {
            method: method.into(),
            route: route.into(),
            max,
        };
        Settings {
            tiers: [(Tier::Free, 60), (Tier::Pro, 600), (Tier::Enterprise, 6000)].into(),
            endpoints: vec![endpoint("POST", "/agents", 10)],
            endpoint_default: 1000,
            known: vec![("GET".into(), "/agents".into()), ("POST".into(), "/agents".into())],
            window: Span::from_secs(60),
            burst_multiplier,
        }
    }

    fn check(settings: &Settings, tier: Tier, method: &str, route: &str, expected: &str) {
        let policy = Policy::new(settings);
        let shown: Vec<String> = policy
            .rules(tier, method, route)
            .iter()
            .map(|rule| format!("{}/{}s {}", rule.max, rule.span.seconds(), rule.key_tail()))
            .collect();
        assert_eq!(shown.join(" + "), expected);
    }

    #[test]
    fn the_tier_the_endpoint_and_the_burst_guard_weigh_on_a_request() {
        let on = settings(5);
        check(
            &on,
            Tier::Free,
            "POST",
            "/agents",
            "60/60s }:tenant:* + 10/60s }:endpoint:POST/agents + 5/1s }:burst:*",
        );
        check(
            &on,
            Tier::Pro,
            "GET",
            "/agents",
            "600/60s }:tenant:* + 1000/60s }:endpoint:GET/agents + 50/1s }:burst:*",
        );
        check(
            &settings(0),
            Tier::Enterprise,
            "PUT",
            "/what/ever",
            "6000/60s }:tenant:* + 1000/60s }:endpoint:*",
        );
    }

    #[test]
    fn a_small_limit_has_a_burst_of_one_and_a_limit_of_none_has_none() {
        let mut small = settings(5);
        small.tiers = [(Tier::Free, 3)].into();
        let rest = "}:tenant:* + 1000/60s }:endpoint:*";
        check(&small, Tier::Free, "GET", "/", &format!("3/60s {rest} + 1/1s }}:burst:*"));
        check(&small, Tier::Pro, "GET", "/", &format!("0/60s {rest} + 0/1s }}:burst:*"));
    }
}
