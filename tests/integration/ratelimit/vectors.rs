//! The numbers of the product's tiers, as a client sees them.

use std::time::{Duration, Instant};

use gatehouse_contract::Tier;
use gatehouse_tests::{
    fleet::{Settings, ask, tenant},
    wait,
};

use super::{Stage, shown};

#[test]
fn r5_every_tier_has_its_limit_and_its_burst() {
    // The burst guard: five times the limit's rate in any second (design §3.4).
    let settings = Settings { burst: 5, mode: "strict", ..Settings::default() };
    let stage = Stage::single(1, &settings);
    let sidecar = &stage.fleet.sidecars[0];
    for (tier, limit, burst) in
        [(Tier::Free, 60, 5), (Tier::Pro, 600, 50), (Tier::Enterprise, 6000, 500)]
    {
        let tenant = tenant();
        let check = |cost| sidecar.check(&ask(tenant, tier, "GET", cost)).unwrap();
        let endpoint = 10_000_000;
        let rest = |used: u32| {
            format!("tenant {}/{limit} endpoint {}/{endpoint}", limit - used, endpoint - used)
        };
        assert_eq!(
            shown(&check(0)),
            format!(
                "+ tenant {limit}/{limit} endpoint {endpoint}/{endpoint} burst {burst}/{burst}"
            ),
            "{tier}"
        );
        // One more than the burst is not let through, and not charged.
        assert!(!check(burst + 1).allowed, "{tier}");
        assert_eq!(shown(&check(burst)), format!("+ {} burst 0/{burst}", rest(burst)), "{tier}");
        let denied = check(1);
        assert_eq!(shown(&denied), format!("- burst 0/{burst} {}", rest(burst)), "{tier}");
        // A second, and the slot in which the charge was made.
        assert!(denied.retry_after_s.is_some_and(|s| (1..=2).contains(&s)), "{tier}: {denied:?}");
        assert_eq!(denied.limits[0].window_s, 1);
        // Obeyed, the answer's own advice succeeds.
        let told = denied.retry_after_s.unwrap();
        wait::until_instant(Instant::now() + Duration::from_secs(told.into()));
        assert!(check(1).allowed, "{tier}: after the told time");
    }
}

#[test]
fn r5_a_tenant_never_has_more_than_its_limit_however_it_spreads_it() {
    let settings = Settings { mode: "strict", ..Settings::default() };
    let stage = Stage::single(1, &settings);
    let sidecar = &stage.fleet.sidecars[0];
    for (tier, limit) in [(Tier::Free, 60), (Tier::Pro, 600), (Tier::Enterprise, 6000)] {
        let tenant = tenant();
        let check = |cost| sidecar.check(&ask(tenant, tier, "GET", cost)).unwrap();
        assert!(check(limit - 1).allowed, "{tier}");
        assert!(!check(2).allowed, "{tier}: one too many");
        assert!(check(1).allowed, "{tier}: the last");
        let denied = check(1);
        assert!(!denied.allowed, "{tier}");
        assert!(denied.retry_after_s.is_some_and(|s| (58..=62).contains(&s)), "{tier}: {denied:?}");
    }
}
