//! Decides checks and leases: what stands between the routes (JSON and gRPC) and the store.
//! Knows neither HTTP nor Redis.

use std::{pin::Pin, sync::Arc, time::Instant};

use gatehouse_contract::{
    TenantId,
    sidecar::{CheckAnswer, CheckAsk, LeaseAnswer, LeaseAsk},
};
use gatehouse_ratelimit::{Decision, Policy, Rule};

use crate::{
    metrics::{Metrics, Outcome},
    store::Store,
};

/// No verdict can be had, and the tier's policy for that is `closed`: 503 `limiter_unavailable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the limit cannot be decided")]
pub struct Unavailable;

type Deciding = Pin<Box<dyn Future<Output = Result<Decision, Unavailable>> + Send>>;
type Decide = dyn Fn(TenantId, Arc<[Rule]>, u32) -> Deciding + Send + Sync;

/// The handle that routes hold; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    policy: Arc<Policy>,
    metrics: Arc<Metrics>,
    decide: Arc<Decide>,
}

impl Engine {
    pub fn new<S: Store>(store: &Arc<S>, policy: &Arc<Policy>, metrics: &Arc<Metrics>) -> Self {
        let (store, noted) = (Arc::clone(store), Arc::clone(metrics));
        let decide = move |tenant, rules: Arc<[Rule]>, cost| -> Deciding {
            let (store, metrics) = (Arc::clone(&store), Arc::clone(&noted));
            Box::pin(async move {
                let start = Instant::now();
                let decided = store.decide(tenant, &rules, cost).await;
                metrics.store_took(start.elapsed());
                decided
                    .inspect(|_| {
                        if metrics.store_is_up() {
                            tracing::info!("limits are decided again");
                        }
                    })
                    .map_err(|error| {
                        // One line when it begins; the metric counts the rest.
                        if metrics.store_is_away() {
                            let error = gatehouse_service::exit::chain(&error);
                            tracing::warn!(error = %error, "limits cannot be decided");
                        }
                        Unavailable
                    })
            })
        };
        let (policy, metrics) = (Arc::clone(policy), Arc::clone(metrics));
        Self { policy, metrics, decide: Arc::new(decide) }
    }

    /// Whether a request may pass; a pass is charged.
    pub async fn check(&self, ask: &CheckAsk) -> Result<CheckAnswer, Unavailable> {
        let rules: Arc<[Rule]> = self.policy.rules(ask.tier, &ask.method, &ask.route).into();
        let decided = (self.decide)(ask.tenant, Arc::clone(&rules), ask.cost).await;
        let outcome = decided.as_ref().map_or(Outcome::Unavailable, Outcome::of);
        self.metrics.checked(ask.tier, outcome);
        Ok(decided?.answer(&rules))
    }

    /// As [`Self::check`], with passes to take along for a VM, and what it hands back.
    pub async fn lease(&self, ask: &LeaseAsk) -> Result<LeaseAnswer, Unavailable> {
        let check = match &ask.check {
            Some(check) => Some(self.check(check).await?),
            None => None,
        };
        Ok(LeaseAnswer { check, lease: None, share: None })
    }
}
