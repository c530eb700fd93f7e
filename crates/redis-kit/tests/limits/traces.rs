//! Random traces: the model is given the times that a store reports, and must say the same of every step.

use std::time::Duration;

use gatehouse_ratelimit::{
    Algorithm, Name, Return, Rule, Span, Take, keys,
    model::{self, Granted},
    state::State,
};

use crate::kit::{Random, Store, stores, tenant};

/// How long a trace goes on, by the store's clock: more than two of the longest windows.
const FOR_MS: u64 = 4_500;

/// (name, limit, window, algorithm)
type Limit = (Name, u32, u32, Algorithm);

/// What was handed out ahead and not yet given back.
struct Lease {
    give: Return,
    after_ms: u64,
}

async fn check(store: Store, seed: u64, limits: Vec<Limit>) {
    let (tenant, mut random) = (tenant(), Random::seeded(seed));
    let mut states: Vec<State> = limits.iter().map(|limit| State::new(limit.3)).collect();
    let mut leases: Vec<Lease> = vec![];
    let (mut first_ms, mut steps, mut short, mut ahead, mut back) = (None, 0_u32, 0, 0, 0);
    loop {
        let halved = random.below(20) == 0;
        let rules: Vec<Rule> = limits
            .iter()
            .map(|(name, max, window_s, algorithm)| {
                let max = if halved { max / 2 } else { *max };
                Rule::counted(*name, max, Span::from_secs(*window_s), *algorithm, keys::ANY)
            })
            .collect();
        let take = Take {
            tenant,
            rules: rules.into(),
            // A large limit is only reached by large costs.
            cost: random.below(4.max(u64::from(limits[0].1) / 100)) as u32,
            waiting: 1 + random.below(3) as u32,
            ahead: random.of(&[0, 0, 5, 40]),
            divisor: random.of(&[1, 2, 8]),
            hold: Duration::from_millis(random.of(&[0, 10, 30, 100])),
            forced: random.below(50) == 0,
            run: None,
        };
        let taken = store.take(&take).await;
        let mut borrowed: Vec<&mut State> = states.iter_mut().collect();
        let expected = model::take(&take, &mut borrowed, taken.at);
        let told = format!("{}, seed {seed}, step {steps}, {take:?}", store.name());
        let got = Granted { waiting: taken.waiting, ahead: taken.ahead, decision: taken.decision };
        assert_eq!(got, expected, "{told}");
        short += u32::from(got.waiting < take.waiting);
        ahead += got.ahead;
        steps += 1;
        if got.ahead > 0 {
            leases.push(Lease {
                after_ms: taken.at.as_ms() + random.below(200),
                give: Return {
                    tenant,
                    rules: take.rules.clone(),
                    cost: take.cost,
                    passes: random.below(u64::from(got.ahead) + 2) as u32,
                    at: taken.at,
                    hold: take.hold,
                    run: taken.run,
                },
            });
        }
        let due = leases.iter().position(|lease| lease.after_ms <= taken.at.as_ms());
        if let Some(lease) = due.map(|place| leases.swap_remove(place)) {
            store.give_back(&lease.give).await;
            let mut borrowed: Vec<&mut State> = states.iter_mut().collect();
            // The store's time of it is not told, and does not show: what has left by then counts no more.
            model::give_back(&lease.give, &mut borrowed, taken.at);
            back += lease.give.passes;
        }
        if taken.at.as_ms() > *first_ms.get_or_insert(taken.at.as_ms()) + FOR_MS {
            break;
        }
        if random.below(100) == 0 {
            // So that windows begin to empty.
            tokio::time::sleep(Duration::from_millis(random.below(400))).await;
        }
    }
    let told = format!("{}, seed {seed}: {steps} steps, {short} short", store.name());
    assert!(short > 0 && short < steps, "{told}: the trace shows nothing");
    if limits.iter().all(|limit| matches!(limit.3, Algorithm::SubBuckets | Algorithm::Day)) {
        let small = limits.iter().any(|limit| limit.1 < 100);
        assert!(
            small || ahead > 0 && back > 0,
            "{told}, {ahead} ahead, {back} back: shows no lease"
        );
    } else {
        assert_eq!(ahead, 0, "{told}: a log has no place ahead");
    }
}

#[tokio::test]
async fn every_store_agrees_with_the_model_on_random_traces() {
    use Algorithm::{Day, Gcra, Ring, SortedSet, SubBuckets};
    let three = |tenant, endpoint, burst| {
        vec![
            (Name::Tenant, tenant, 2, SubBuckets),
            (Name::Endpoint, endpoint, 1, SubBuckets),
            (Name::Burst, burst, 1, SubBuckets),
        ]
    };
    let traces = vec![
        three(400, 300, 250),
        three(9, 9, 4),
        three(60, 1, 60),
        vec![(Name::Tenant, 70_000, 2, SubBuckets), (Name::Burst, 30_000, 1, SubBuckets)],
        vec![(Name::Tenant, 50_000, 1, SubBuckets), (Name::Day, 2_000_000, 1, Day)],
        vec![(Name::Tenant, 700, 1, SubBuckets), (Name::Day, 1_500, 1, Day)],
        vec![(Name::Tenant, 300, 2, Ring), (Name::Endpoint, 90, 1, Ring)],
        vec![(Name::Tenant, 5, 1, Ring)],
        vec![(Name::Tenant, 300, 2, SortedSet), (Name::Endpoint, 90, 1, SortedSet)],
        vec![(Name::Tenant, 5, 1, SortedSet)],
        vec![(Name::Tenant, 300, 2, Gcra), (Name::Endpoint, 90, 1, Gcra)],
        vec![(Name::Tenant, 7, 1, Gcra), (Name::Burst, 100, 1, SubBuckets)],
    ];
    let mut running = tokio::task::JoinSet::new();
    for store in stores().await {
        for (seed, limits) in traces.iter().enumerate() {
            running.spawn(check(store.clone(), seed as u64 + 1, limits.clone()));
        }
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}
