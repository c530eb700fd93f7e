//! What every store promises, step by step.

use std::time::Duration;

use gatehouse_ratelimit::{Algorithm, Declaration, Name, Refused, Return, Rule, Run, Take, keys};

use crate::kit::{Store, burst, counted, day, endpoint, stores, take, tenant, used, window};

/// All windows but the calendar's.
const WINDOWS: [Algorithm; 4] =
    [Algorithm::SubBuckets, Algorithm::Ring, Algorithm::SortedSet, Algorithm::Gcra];

fn both(algorithm: Algorithm, tenant_max: u32, endpoint_max: u32) -> Vec<Rule> {
    // An hour: what is charged stays while the test runs, whatever the time of day, and a level hardly drains.
    let endpoint = Rule::counted(
        Name::Endpoint,
        endpoint_max,
        gatehouse_ratelimit::Span::from_secs(3600),
        algorithm,
        keys::ANY,
    );
    vec![counted(tenant_max, 3600, algorithm), endpoint]
}

/// R1, R4.
#[tokio::test]
async fn all_limits_are_charged_or_none_and_a_denial_charges_nothing() {
    for store in stores().await {
        for algorithm in WINDOWS {
            for (tenant_max, endpoint_max) in [(9, 2), (2, 9)] {
                let (tenant, rules) = (tenant(), both(algorithm, tenant_max, endpoint_max));
                for (expected, holds) in [(true, 1), (true, 2), (false, 2), (false, 2)] {
                    let taken = store.take(&take(tenant, &rules, 1)).await;
                    let told = format!("{} {algorithm:?}", store.name());
                    assert_eq!(taken.decision.allowed, expected, "{told}");
                    assert_eq!(used(&taken), [holds, holds], "{told}");
                }
            }
        }
    }
}

/// R24: cost counts; a cost of 0 only asks. R22: 0 blocks. R23: a changed limit acts at once and keeps the count.
#[tokio::test]
async fn cost_counts_peeks_do_not_and_a_changed_limit_acts_at_once() {
    let steps = [
        (5, 0, true, 0),
        (5, 3, true, 3),
        (5, 3, false, 3),
        (5, 2, true, 5),
        (5, 0, false, 5),
        (7, 2, true, 7),
        (3, 1, false, 7),
        (0, 0, false, 7),
        (0, 1, false, 7),
        (8, 1, true, 8),
        (8, u32::MAX, false, 8),
    ];
    for store in stores().await {
        for algorithm in WINDOWS.into_iter().chain([Algorithm::Day]) {
            let tenant = tenant();
            for (step, (max, cost, expected, holds)) in steps.into_iter().enumerate() {
                let rules = [counted(max, 3600, algorithm)];
                let taken = store.take(&take(tenant, &rules, cost)).await;
                let told = format!("{} {algorithm:?}, step {step}", store.name());
                assert_eq!(
                    (taken.decision.allowed, used(&taken)),
                    (expected, vec![holds]),
                    "{told}"
                );
            }
        }
    }
}

#[tokio::test]
async fn those_who_wait_together_get_whole_passes() {
    for store in stores().await {
        for algorithm in WINDOWS {
            let (tenant, rules) = (tenant(), both(algorithm, 100, 10));
            let ask = |waiting| Take { waiting, ..take(tenant, &rules, 3) };
            for (waiting, granted, holds) in [(2, 2, 6), (5, 1, 9), (1, 0, 9)] {
                let taken = store.take(&ask(waiting)).await;
                let told = format!("{} {algorithm:?}, {waiting} wait", store.name());
                assert_eq!((taken.waiting, used(&taken)), (granted, vec![holds, holds]), "{told}");
                assert_eq!(taken.decision.allowed, granted == waiting, "{told}");
                assert_eq!(taken.decision.retry_after().is_some(), granted < waiting, "{told}");
            }
        }
    }
}

/// R24, R15: what is known only afterwards is charged whatever fits, and delays who comes next.
#[tokio::test]
async fn what_is_forced_is_charged_above_the_limit() {
    for store in stores().await {
        for algorithm in WINDOWS.into_iter().chain([Algorithm::Day]) {
            let (tenant, rules) = (tenant(), [counted(4, 3600, algorithm)]);
            let forced = Take { forced: true, ahead: 9, ..take(tenant, &rules, 7) };
            let taken = store.take(&forced).await;
            let told = format!("{} {algorithm:?}", store.name());
            assert_eq!((taken.waiting, taken.ahead, used(&taken)), (1, 0, vec![7]), "{told}");
            assert!(taken.decision.allowed, "{told}");
            assert!(!store.take(&take(tenant, &rules, 1)).await.decision.allowed, "{told}");
        }
    }
}

fn leased(tenant: gatehouse_contract::TenantId, rules: &[Rule], ahead: u32) -> Take {
    Take { ahead, divisor: 4, hold: Duration::from_millis(200), ..take(tenant, rules, 1) }
}

#[tokio::test]
async fn passes_go_ahead_while_there_is_room_for_the_others() {
    for store in stores().await {
        let (tenant, rules) = (tenant(), [window(100, 60), burst(1000), day(5000)]);
        // One part in four of what is left after the one who waits.
        for (ahead, granted, holds) in [(10, 10, 11), (64, 22, 34), (64, 16, 51)] {
            let taken = store.take(&leased(tenant, &rules, ahead)).await;
            assert_eq!((taken.ahead, used(&taken)[0]), (granted, holds), "{}", store.name());
        }
        // The tightest limit caps, whichever it is.
        let tight = [window(1000, 60), burst(52), day(5000)];
        let taken = store.take(&leased(self::tenant(), &tight, 64)).await;
        assert_eq!((taken.ahead, used(&taken)), (12, vec![13; 3]), "{}", store.name());
        let full = [window(51, 60), burst(1000), day(5000)];
        let taken = store.take(&leased(tenant, &full, 64)).await;
        assert_eq!((taken.waiting, taken.ahead), (0, 0), "{}", store.name());
    }
}

#[tokio::test]
async fn nothing_goes_ahead_where_it_cannot_be_booked() {
    for store in stores().await {
        for algorithm in [Algorithm::Ring, Algorithm::SortedSet, Algorithm::Gcra] {
            let rules = [counted(6000, 60, algorithm), day(100_000)];
            assert_eq!(store.take(&leased(tenant(), &rules, 9)).await.ahead, 0, "{algorithm:?}");
        }
        // More than two slots of a second ahead.
        let far = Take { hold: Duration::from_secs(3), ..leased(tenant(), &[window(6000, 60)], 9) };
        assert_eq!(store.take(&far).await.ahead, 0, "{}", store.name());
        let near = Take { hold: Duration::from_secs(2), ..far };
        assert_eq!(store.take(&near).await.ahead, 9, "{}", store.name());
    }
}

/// A window of 60 s books a pass that goes ahead where the lease ends, so that it leaves a window after that; the
/// burst guard books it at once.
#[tokio::test]
async fn a_pass_that_goes_ahead_leaves_a_window_after_its_lease_has_ended() {
    for store in stores().await {
        let (tenant, rules) = (tenant(), [window(1000, 60), burst(1000)]);
        let ask = Take { hold: Duration::from_secs(2), ..leased(tenant, &rules, 9) };
        let taken = store.take(&ask).await;
        assert_eq!(taken.ahead, 9, "{}", store.name());
        let full = [window(10, 60), burst(10)];
        let waits = store.take(&take(tenant, &full, 10)).await.decision.standings;
        let [slow, quick] = waits.as_slice() else { panic!("{waits:?}") };
        let slow = slow.pass_in.unwrap();
        assert!((62_000..=63_000).contains(&slow.as_millis()), "{}: {slow:?}", store.name());
        assert!(quick.pass_in.unwrap().as_millis() <= 1054, "{}: {quick:?}", store.name());
    }
}

#[tokio::test]
async fn a_return_credits_its_own_slot_and_no_more_than_it_holds() {
    for store in stores().await {
        let (tenant, rules) = (tenant(), [window(1000, 3600), day(5000)]);
        let taken = store.take(&leased(tenant, &rules, 9)).await;
        let give = Return {
            tenant,
            rules: rules.as_slice().into(),
            cost: 1,
            passes: 4,
            at: taken.at,
            hold: Duration::from_millis(200),
            run: taken.run,
        };
        let other = Return { run: Run(taken.run.0 + 1), ..give.clone() };
        let old_ms = taken.at.as_ms() - 100_000_000;
        let old = Return { at: gatehouse_ratelimit::Timestamp::from_ms(old_ms), ..give.clone() };
        let peek = take(tenant, &rules, 0);
        let nobody = Return { tenant: self::tenant(), ..give.clone() };
        let whole = Return { passes: 5000, ..give.clone() };
        for (give, holds) in [(&other, 10), (&old, 10), (&nobody, 10), (&give, 6), (&whole, 0)] {
            store.give_back(give).await;
            assert_eq!(used(&store.take(&peek).await), [holds; 2], "{}: {give:?}", store.name());
        }
    }
}

/// R22: what is absent is unlimited.
#[tokio::test]
async fn a_request_that_no_limit_weighs_on_passes() {
    for store in stores().await {
        let taken = store.take(&Take { waiting: 3, ..take(tenant(), &[], 5) }).await;
        assert_eq!((taken.waiting, taken.decision.allowed), (3, true), "{}", store.name());
    }
}

/// R2: takes of many tenants, each of whose limits are together, go out at once and come back in their order.
#[tokio::test]
async fn takes_of_many_tenants_are_answered_in_their_order() {
    for store in stores().await {
        let tenants: Vec<_> = (0..150).map(|_| tenant()).collect();
        let each = |(n, tenant): (usize, &_)| {
            take(*tenant, &[window(1000, 3600), endpoint(1000, 3600), burst(1000)], n as u32)
        };
        let takes: Vec<Take> = tenants.iter().enumerate().map(each).collect();
        for (n, taken) in store.take_all(&takes).await.into_iter().enumerate() {
            assert_eq!(used(&taken.unwrap()), [n as u32; 3], "{}", store.name());
        }
        // One tenant many times in one call: each sees what those before it took.
        let many: Vec<Take> = (0..100).map(|_| take(tenants[0], &[window(60, 3600)], 1)).collect();
        let passed = store.take_all(&many).await;
        let passed = passed.into_iter().filter(|t| t.as_ref().unwrap().decision.allowed).count();
        assert_eq!(passed, 60, "{}", store.name());
    }
}

async fn one_of_many_at_once(store: Store, limit: u32) {
    let (tenant, rules) = (tenant(), [window(limit, 3600), endpoint(1000, 3600)]);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (store, take) = (store.clone(), take(tenant, &rules, 1));
        asking.spawn(async move {
            let mut passed = 0;
            for _ in 0..3 {
                passed += u32::from(store.take(&take).await.decision.allowed);
            }
            passed
        });
    }
    let mut passed = 0;
    while let Some(one) = asking.join_next().await {
        passed += one.unwrap();
    }
    assert_eq!(passed, limit.min(192), "{}", store.name());
    let peek = store.take(&take(tenant, &rules, 0)).await;
    assert_eq!(used(&peek), [passed; 2], "{}: both are charged or neither", store.name());
}

/// R1.
#[tokio::test]
async fn of_many_at_once_exactly_the_limit_pass() {
    for store in stores().await {
        for limit in [1, 5, 64, 100, 500] {
            one_of_many_at_once(store.clone(), limit).await;
        }
    }
}

#[tokio::test]
async fn whoever_knows_another_run_is_told_and_charges_nothing() {
    for store in stores().await {
        let (tenant, rules) = (tenant(), [window(10, 3600)]);
        let run = store.take(&take(tenant, &rules, 1)).await.run;
        assert!(store.runs().await.contains(&run), "{}", store.name());
        let other = Take { run: Some(Run(run.0 + 1)), ..take(tenant, &rules, 1) };
        // Beside it, in the same call, one that knows the run.
        let known = Take { run: Some(run), ..take(tenant, &rules, 1) };
        let told = store.take_all(&[other, known]).await;
        assert_eq!(told[0], Err(Refused::Anew(run)), "{}", store.name());
        assert_eq!(used(told[1].as_ref().unwrap()), [2], "{}", store.name());
    }
}

/// A store that lost nothing is told again what it has: the greater counts. What sidecars declare adds up.
#[tokio::test]
async fn declarations_add_up_to_the_greater_of_them_and_of_what_is_there() {
    for store in stores().await {
        for algorithm in
            [Algorithm::SubBuckets, Algorithm::Ring, Algorithm::SortedSet, Algorithm::Day]
        {
            let (tenant, rule) = (tenant(), counted(1000, 3600, algorithm));
            let rules = std::slice::from_ref(&rule);
            let taken = store.take(&take(tenant, rules, 10)).await;
            let declare = |amount, run| Declaration {
                tenant,
                rule: rule.clone(),
                charges: vec![(taken.at, amount), (taken.at, 1)],
                run,
            };
            let holds = async |expected: u32, told: &str| {
                let now = used(&store.take(&take(tenant, rules, 0)).await);
                assert_eq!(now, [expected], "{} {algorithm:?} {told}", store.name());
            };
            assert!(!store.declare(&declare(100, Run(taken.run.0 + 1))).await);
            holds(10, "another run").await;
            assert!(store.declare(&declare(3, taken.run)).await);
            holds(10, "less than is there").await;
            assert!(store.declare(&declare(11, taken.run)).await);
            holds(16, "4 and 12").await;
            store.take(&take(tenant, rules, 5)).await;
            assert!(store.declare(&declare(1, taken.run)).await);
            holds(23, "what was charged since, and 2 more").await;
            let empty = self::tenant();
            let run = store.take(&take(empty, rules, 0)).await.run;
            assert!(store.declare(&Declaration { tenant: empty, ..declare(6, run) }).await);
            assert_eq!(used(&store.take(&take(empty, rules, 0)).await), [7], "{}", store.name());
        }
    }
}

/// A level is poured again from what was declared; what of it has drained by now does not count.
#[tokio::test]
async fn a_declared_level_is_poured_again() {
    for store in stores().await {
        let (tenant, rule) = (tenant(), counted(100, 3600, Algorithm::Gcra));
        let rules = std::slice::from_ref(&rule);
        let taken = store.take(&take(tenant, rules, 1)).await;
        let declaration = Declaration {
            tenant,
            rule: rule.clone(),
            charges: vec![(taken.at, 40)],
            run: taken.run,
        };
        assert!(store.declare(&declaration).await);
        assert_eq!(used(&store.take(&take(tenant, rules, 0)).await), [40], "{}", store.name());
        assert!(store.declare(&declaration).await);
        assert_eq!(used(&store.take(&take(tenant, rules, 0)).await), [80], "{}", store.name());
    }
}
