//! Many sidecars and VMs around a model of the store, on a clock of the test's own: messages are late, lost and
//! doubled, sidecars and VMs die, the store loses its data. Whatever happens, no window holds more uses than its limit.
//! Every run is the same for the same seed.

mod event;
mod store;
mod world;

use std::{sync::Arc, time::Duration};

use gatehouse_ratelimit::{Name, Rule, Span, keys};

use self::world::{Faults, World};
use super::group::Mode;

const WINDOW_S: u32 = 10;
const LIMIT: u32 = 600;
/// Six windows.
const LENGTH: Duration = Duration::from_secs(60);

fn rules(max: u32, burst: Option<u32>, endpoint: &str) -> Arc<[Rule]> {
    let span = Span::from_secs(WINDOW_S);
    let mut rules = vec![
        Rule::new(Name::Tenant, max, span, keys::ANY),
        Rule::new(Name::Endpoint, 1000, span, endpoint),
    ];
    rules.extend(burst.map(|max| Rule::new(Name::Burst, max, Span::from_secs(1), keys::ANY)));
    rules.into()
}

/// The most uses of any window, and all uses.
fn run(seed: u64, mode: Mode, faults: Faults, per_s: u64) -> (usize, usize, World) {
    let both = |max| [rules(max, None, "GET/a"), rules(max, None, "GET/b")];
    let limits = vec![both(LIMIT), both(LIMIT / 2)];
    let mut world = World::new(seed, mode, faults, limits, per_s);
    world.run(LENGTH);
    let most = world.most_within(Duration::from_secs(WINDOW_S.into()));
    (most, world.uses.len(), world)
}

/// Runs many seeds: no window may hold more than the limit, and every run must have come near it.
fn check(seeds: std::ops::Range<u64>, faults: Faults, per_s: u64) {
    let (mut passed_down, mut handed_back) = (0, 0);
    for seed in seeds {
        let (most, all, world) = run(seed, Mode::Auto, faults, per_s);
        assert!(most <= LIMIT as usize, "seed {seed}: {most} uses in one window");
        assert!(all > LIMIT as usize, "seed {seed}: only {all} uses");
        passed_down += world.passed_down;
        handed_back += world.handed_back;
    }
    assert!(passed_down > 0, "no VM ever used a lease");
    assert!(handed_back > 0, "nothing was ever handed back");
}

const NONE: Faults = Faults {
    late: 0.0,
    lost: 0.0,
    doubled: 0.0,
    sidecar_dies_ms: 0,
    vm_dies_ms: 0,
    store_forgets_ms: 0,
    limit_changes_ms: 0,
};

#[test]
fn without_faults_no_window_holds_more_than_its_limit() {
    check(0..30, NONE, 150);
}

#[test]
fn late_lost_and_doubled_messages_admit_nothing() {
    check(100..130, Faults { late: 0.1, lost: 0.1, doubled: 0.3, ..NONE }, 150);
}

#[test]
fn deaths_of_sidecars_and_vms_admit_nothing() {
    let faults = Faults {
        late: 0.05,
        lost: 0.02,
        doubled: 0.2,
        sidecar_dies_ms: 1700,
        vm_dies_ms: 900,
        ..NONE
    };
    check(200..230, faults, 150);
}

#[test]
fn a_changed_limit_admits_no_more_than_the_greater_one() {
    let faults = Faults { late: 0.05, lost: 0.02, doubled: 0.2, limit_changes_ms: 700, ..NONE };
    check(300..330, faults, 150);
}

#[test]
fn a_store_that_forgets_is_told_before_it_grants() {
    let faults = Faults { late: 0.02, doubled: 0.2, store_forgets_ms: 7000, ..NONE };
    check(400..430, faults, 150);
}

/// What leases cost: passes that lay about when somebody else was denied.
#[test]
fn leases_admit_nearly_what_single_takes_admit() {
    let (mut leased, mut strict) = (0, 0);
    for seed in 500..520 {
        for (mode, sum) in [(Mode::Auto, &mut leased), (Mode::Strict, &mut strict)] {
            let (_, all, _) = run(seed, mode, NONE, 150);
            *sum += all;
        }
    }
    assert!(leased * 100 >= strict * 98, "{leased} with leases, {strict} without");
}
