//! Which limits weigh, by tier, endpoint, caller and a tenant's own limits.

use gatehouse_contract::sidecar::EndpointOverride;

use super::*;

fn settings(burst_multiplier: u32) -> Settings {
    let endpoint = |method: &str, route: &str, max| Endpoint {
        method: method.into(),
        route: route.into(),
        max,
        algorithm: None,
    };
    Settings {
        tiers: [(Tier::Free, 60), (Tier::Pro, 600), (Tier::Enterprise, 6000)]
            .map(|(tier, max)| (tier, per_window(max)))
            .into(),
        endpoints: vec![endpoint("POST", "/agents", 10)],
        endpoint_default: Some(1000),
        known: vec![("GET".into(), "/agents".into()), ("POST".into(), "/agents".into())],
        window: Span::from_secs(60),
        burst_multiplier,
        algorithm: Algorithm::SubBuckets,
    }
}

fn per_window(max: u32) -> TierLimits {
    TierLimits { per_window: Some(max), ..TierLimits::default() }
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
fn an_endpoint_may_be_counted_in_a_way_of_its_own() {
    let mut settings = settings(0);
    settings.endpoints[0].algorithm = Some(Algorithm::Ring);
    let policy = Policy::new(&settings);
    let counted = |route: &str, limits: Option<&Overrides>| {
        let asked = Asked { tier: Tier::Free, limits, subject: None, method: "POST", route };
        policy.with(&asked).iter().map(Rule::algorithm).collect::<Vec<_>>()
    };
    let raised = Overrides { per_window: Some(61), ..Overrides::default() };
    for limits in [None, Some(&raised)] {
        assert_eq!(counted("/agents", limits), [Algorithm::SubBuckets, Algorithm::Ring]);
        assert_eq!(counted("/x", limits), [Algorithm::SubBuckets; 2]);
    }
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
    small.tiers = [(Tier::Free, per_window(3)), (Tier::Pro, per_window(0))].into();
    let rest = "}:tenant:* + 1000/60s }:endpoint:*";
    check(&small, Tier::Free, "GET", "/", &format!("3/60s {rest} + 1/1s }}:burst:*"));
    check(&small, Tier::Pro, "GET", "/", &format!("0/60s {rest} + 0/1s }}:burst:*"));
}

fn endpoint_of(method: &str, route: &str, per_window: u32) -> EndpointOverride {
    EndpointOverride { method: method.into(), route: route.into(), per_window }
}

fn check_own(settings: &Settings, asked: &Asked<'_>, expected: &str) {
    let shown: Vec<String> = Policy::new(settings)
        .with(asked)
        .iter()
        .map(|rule| format!("{}/{}s {}", rule.max, rule.span.seconds(), rule.key_tail()))
        .collect();
    assert_eq!(shown.join(" + "), expected);
}

#[test]
fn a_tenants_own_limits_take_the_place_of_its_tiers() {
    let on = settings(5);
    let mut own = Overrides { per_window: Some(120), per_day: Some(9), ..Overrides::default() };
    own.endpoints = vec![endpoint_of("GET", "/own", 7), endpoint_of("POST", "/agents", 0)];
    let ask =
        |own, method, route| Asked { tier: Tier::Free, limits: own, subject: None, method, route };
    check_own(
        &on,
        &ask(Some(&own), "POST", "/agents"),
        "120/60s }:tenant:* + 0/60s }:endpoint:POST/agents + 10/1s }:burst:* + 9/86400s }:day:*",
    );
    let own = Overrides { burst_multiplier: Some(0), ..own.clone() };
    check_own(
        &on,
        &ask(Some(&own), "GET", "/own"),
        "120/60s }:tenant:* + 7/60s }:endpoint:GET/own + 9/86400s }:day:*",
    );
    let blocked = Overrides { per_window: Some(0), ..Overrides::default() };
    check_own(
        &on,
        &ask(Some(&blocked), "PUT", "/x"),
        "0/60s }:tenant:* + 1000/60s }:endpoint:* + 0/1s }:burst:*",
    );
    check_own(
        &on,
        &ask(Some(&blocked), "GET", "/agents"),
        "0/60s }:tenant:* + 1000/60s }:endpoint:GET/agents + 0/1s }:burst:*",
    );
}

#[test]
fn a_tenant_without_limits_of_its_own_costs_no_allocation() {
    let policy = Policy::new(&settings(5));
    let none = Overrides::default();
    for limits in [None, Some(&none)] {
        let (method, route) = ("GET", "/agents");
        let asked = Asked { tier: Tier::Free, limits, subject: Some("x"), method, route };
        let shared = policy.rules(Tier::Free, "GET", "/agents");
        assert!(Arc::ptr_eq(&policy.with(&asked), shared));
    }
}

#[test]
fn a_callers_key_is_a_digest_of_its_name() {
    let mut on = settings(0);
    let limits = TierLimits { per_subject: Some(4), ..per_window(60) };
    on.tiers = [(Tier::Free, limits)].into();
    let ask = |subject| Asked { tier: Tier::Free, limits: None, subject, method: "X", route: "/" };
    let digest = "ba7816bf8f01cfea414140de5dae2223";
    check_own(
        &on,
        &ask(Some("abc")),
        &format!("60/60s }}:tenant:* + 1000/60s }}:endpoint:* + 4/60s }}:subject:{digest}"),
    );
    check_own(&on, &ask(None), "60/60s }:tenant:* + 1000/60s }:endpoint:*");
}

/// R22.
#[test]
fn what_is_absent_is_unlimited() {
    let mut off = settings(5);
    (off.tiers, off.endpoint_default) = (BTreeMap::new(), None);
    check(&off, Tier::Pro, "GET", "/agents", "");
    check(&off, Tier::Pro, "POST", "/agents", "10/60s }:endpoint:POST/agents");
}

#[test]
fn each_algorithm_has_keys_of_its_own_and_the_guards_are_never_changed() {
    for (algorithm, kind) in
        [(Algorithm::Ring, ".ring"), (Algorithm::SortedSet, ".set"), (Algorithm::Gcra, ".gcra")]
    {
        let mut settings = settings(5);
        settings.algorithm = algorithm;
        let limits = TierLimits { per_day: Some(5), ..per_window(60) };
        settings.tiers = [(Tier::Free, limits)].into();
        let own = format!("60/60s }}:tenant{kind}:* + 1000/60s }}:endpoint{kind}:*");
        check(
            &settings,
            Tier::Free,
            "X",
            "/",
            &format!("{own} + 5/1s }}:burst:* + 5/86400s }}:day:*"),
        );
    }
}

#[test]
fn few_passes_go_ahead_and_not_for_long() {
    let span = Span::from_secs(60);
    let rule = |name, max| Rule::new(name, max, span, keys::ANY);
    for (rules, cost, expected) in [
        (vec![rule(Name::Tenant, 60)], 1, 0),
        (vec![rule(Name::Tenant, 600)], 1, 12),
        (vec![rule(Name::Tenant, 600)], 5, 2),
        (vec![rule(Name::Tenant, 600)], 0, 0),
        (vec![rule(Name::Tenant, 6000), rule(Name::Burst, 50)], 1, 10),
        (vec![rule(Name::Tenant, 6000)], 1, 64),
        (vec![rule(Name::Tenant, 64_999)], 1, 64),
        (vec![rule(Name::Tenant, 65_000)], 1, 65),
        (vec![rule(Name::Tenant, 600_000)], 1, MAX_AHEAD),
        (vec![rule(Name::Tenant, 6000), rule(Name::Day, 99)], 1, 0),
        (vec![Rule::counted(Name::Tenant, 6000, span, Algorithm::Gcra, keys::ANY)], 1, 0),
        (vec![], 1, 0),
    ] {
        assert_eq!(most_ahead(&rules, cost), expected, "{rules:?}");
    }
    let hold = |seconds| {
        let window = Rule::new(Name::Tenant, 9, Span::from_secs(seconds), keys::ANY);
        longest_hold(&[window, rule(Name::Burst, 9)]).as_millis()
    };
    assert_eq!((hold(5), hold(60), hold(3600)), (100, 200, 200));
}
