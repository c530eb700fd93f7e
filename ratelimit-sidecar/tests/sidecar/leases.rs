//! `/v1/lease`: passes to take along, returns, and the share for the time when the sidecar is away.

use gatehouse_contract::{
    TenantId, Tier,
    sidecar::{CheckAsk, LEASE_PATH, LeaseAnswer, LeaseAsk, LeaseReturn},
};
use serde_json::json;
use uuid::Uuid;

use crate::process::{Sidecar, config, env, memory, redis, redis_cluster, until};

fn ask(tenant: TenantId, tier: Tier, holder: &str, want: u32) -> LeaseAsk {
    let check = CheckAsk {
        tenant,
        tier,
        limits: None,
        subject: None,
        method: "GET".into(),
        route: "/api/v1/registry/agents".into(),
        cost: 1,
        forced: false,
    };
    LeaseAsk { holder: holder.into(), check: Some(check), want, returns: Vec::new() }
}

async fn lease(sidecar: &Sidecar, ask: &LeaseAsk) -> LeaseAnswer {
    let (status, body) = sidecar.post(LEASE_PATH, &serde_json::to_value(ask).unwrap()).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_value(body).unwrap()
}

fn settings() -> serde_json::Value {
    json!({"limits": {"burst_multiplier": 0, "endpoint_default": "unlimited"}})
}

#[tokio::test]
async fn a_vm_takes_passes_along_and_hands_them_back() {
    for store in [memory(), redis(&env("GATEHOUSE_TEST_REDIS")), redis_cluster()] {
        let sidecar = Sidecar::start(&config(&store, settings()));
        let tenant = TenantId::new(Uuid::new_v4());
        let wanted = ask(tenant, Tier::Enterprise, "vm-1", 8);
        // A sidecar that has just begun may still wait for its store.
        let mut asked = 0;
        let answer = until("a lease", async || {
            asked += 1;
            let answer = lease(&sidecar, &wanted).await;
            answer.lease.is_some().then_some(answer)
        })
        .await;
        let (granted, check) = (answer.lease.unwrap(), answer.check.unwrap());
        assert!(check.allowed && granted.passes == 8, "{granted:?}");
        assert!((20..=100).contains(&granted.ttl_ms), "{granted:?}");
        assert!(answer.share.is_some_and(|share| share <= 6000 && share > 0));
        let back = |lease, unused| LeaseAsk {
            check: None,
            want: 0,
            returns: vec![LeaseReturn { lease, unused }],
            ..wanted.clone()
        };
        let returned = "gatehouse_ratelimit_lease_passes_total{holder=\"vm\",state=\"returned\"}";
        assert_eq!(lease(&sidecar, &back(granted.id, 5)).await.check, None);
        until("the return", async || (sidecar.metric(returned).await == Some(5)).then_some(()))
            .await;
        // A second time, and by somebody else.
        lease(&sidecar, &back(granted.id, 5)).await;
        lease(&sidecar, &LeaseAsk { holder: "vm-2".into(), ..back(granted.id, 3) }).await;
        assert_eq!(sidecar.metric(returned).await, Some(5));
        // The store has everything back but what was used: one of each ask, and three of the passes.
        let peek = CheckAsk { cost: 0, ..ask(tenant, Tier::Enterprise, "", 0).check.unwrap() };
        let used = asked + 3;
        until("the store to have the rest", async || {
            let (_, body) = sidecar.check(&peek).await;
            let left = body["limits"][0]["remaining"].as_u64().unwrap();
            assert!(left <= 6000 - used, "{left} left after {used}");
            (left == 6000 - used).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_small_limit_is_never_leased_and_shares_are_divided_by_vms() {
    let sidecar = Sidecar::start(&config(&memory(), settings()));
    let tenant = TenantId::new(Uuid::new_v4());
    for (holder, share) in [("a", 60), ("b", 30), ("c", 20), ("a", 20)] {
        let answer = lease(&sidecar, &ask(tenant, Tier::Free, holder, 8)).await;
        assert_eq!((answer.lease, answer.share), (None, Some(share)), "{holder}");
    }
}

#[tokio::test]
async fn an_ask_that_is_none_is_refused() {
    let sidecar = Sidecar::start(&config(&memory(), json!({})));
    let (status, body) = sidecar.post(LEASE_PATH, &json!({"want": 1})).await;
    assert_eq!((status, &body["code"]), (422, &json!("body_invalid")));
}
