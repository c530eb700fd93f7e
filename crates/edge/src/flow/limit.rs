//! The rate decision: asked of the sidecar per request, with a declared policy for its absence, or taken in the VM.
//! Knows no stores and no algorithms.

use std::time::Duration;

use gatehouse_contract::{
    Reason,
    rbac::Route,
    sidecar::{CheckAnswer, CheckAsk},
};

use super::{Request, WaitsFor, caller::Caller};
use crate::{
    config::{Host, Limiter, Suite},
    reply::Refusal,
    state::VmState,
    step::{Answer, Standing, Step},
};

impl Suite {
    pub(super) fn limit(
        &self,
        vm: &mut VmState,
        mut request: Request,
        route: &Route,
        caller: Caller,
        now: Duration,
    ) -> Step {
        let tenant = caller.prepared.facts.tenant;
        match self.limiter {
            Limiter::Closed | Limiter::Open => {
                let Some(sidecar) = &self.sidecar else {
                    return self.with_limit_answer(request, &caller, Answer::Unavailable, now);
                };
                let call = sidecar.check(&CheckAsk {
                    tenant,
                    tier: caller.prepared.facts.tier,
                    limits: None,
                    subject: None,
                    method: route.method.clone(),
                    route: route.template.clone(),
                    cost: 1,
                    forced: false,
                });
                request.wait(call, WaitsFor::Limit(caller))
            }
            Limiter::Local { per_minute } => {
                let Ok(local) = vm.local.check(tenant, per_minute.get(), now) else {
                    // More tenants at once than there are places: nothing is decided, and nobody passes.
                    return self.refuse(request, Refusal::new(Reason::LimiterUnavailable));
                };
                let (remaining, reset_s) = (local.remaining, local.reset_s);
                let standing = Standing { limit: local.limit, remaining, reset_s };
                if local.allowed {
                    request.record.limit = Some(standing);
                    self.forward(request, Some(&caller), now)
                } else {
                    self.deny(request, Some(standing), reset_s)
                }
            }
            Limiter::Elsewhere => self.forward(request, Some(&caller), now),
        }
    }

    pub(super) fn with_limit_answer(
        &self,
        mut request: Request,
        caller: &Caller,
        answer: Answer<'_>,
        now: Duration,
    ) -> Step {
        let decided = match answer {
            Answer::Sidecar { status: 200, body } => {
                serde_json::from_slice::<CheckAnswer>(body).ok()
            }
            Answer::Sidecar { .. } | Answer::Unavailable => None,
        };
        let Some(CheckAnswer { allowed, retry_after_s, limits, .. }) = decided else {
            if self.limiter == Limiter::Open {
                request.record.degraded = true;
                return self.forward(request, Some(caller), now);
            }
            return self.refuse(request, Refusal::new(Reason::LimiterUnavailable));
        };
        let tightest = limits.first().map(Standing::from);
        if allowed {
            request.record.limit = tightest;
            self.forward(request, Some(caller), now)
        } else {
            self.deny(request, tightest, retry_after_s.unwrap_or(1))
        }
    }

    fn deny(&self, mut request: Request, tightest: Option<Standing>, retry_after_s: u32) -> Step {
        // Whoever waits as told must pass (acceptance R10): never less than the reset, never 0.
        let reset_s = tightest.map_or(0, |limit| limit.reset_s);
        request.record.limit = tightest;
        let mut refusal = Refusal::new(Reason::QuotaExceeded)
            .header("retry-after", retry_after_s.max(reset_s).max(1));
        if self.host == Host::Envoy {
            // An Envoy in front of this one would otherwise try again at once (acceptance R12).
            refusal = refusal.header("x-envoy-ratelimited", "true");
        }
        self.refuse(request, refusal)
    }
}
