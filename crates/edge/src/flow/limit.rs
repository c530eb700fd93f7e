//! The rate decision: asked of the sidecar per request, with a declared policy for its absence.
//! Knows no stores and no algorithms.

use gatehouse_contract::{
    Reason,
    rbac::Route,
    sidecar::{CheckAnswer, CheckAsk, PrincipalFacts},
};

use super::{Request, WaitsFor};
use crate::{
    config::{Host, Limiter, Suite},
    reply::Refusal,
    state::PrincipalKey,
    step::{Answer, Step},
};

impl Suite {
    pub(super) fn ask_limit(
        &self,
        request: Request,
        route: &Route,
        caller: PrincipalKey,
        facts: PrincipalFacts,
    ) -> Step {
        let Some(sidecar) = &self.sidecar else {
            return self.refuse(request, Refusal::new(Reason::LimiterUnavailable));
        };
        let call = sidecar.check(&CheckAsk {
            tenant: caller.tenant,
            tier: facts.tier,
            method: route.method.clone(),
            route: route.template.clone(),
            cost: 1,
        });
        request.wait(call, WaitsFor::Limit(caller, facts))
    }

    pub(super) fn with_limit_answer(
        &self,
        mut request: Request,
        caller: &PrincipalKey,
        facts: &PrincipalFacts,
        answer: Answer<'_>,
    ) -> Step {
        let decided = match answer {
            Answer::Sidecar { status: 200, body } => serde_json::from_slice(body).ok(),
            Answer::Sidecar { .. } | Answer::Unavailable => None,
        };
        match (decided, self.limiter) {
            (Some(CheckAnswer { allowed: true, limits, .. }), _) => {
                request.record.limit = limits.into_iter().next();
                self.forward(request, Some((caller, facts)))
            }
            (Some(denied), _) => self.deny(request, denied),
            (None, Limiter::Open) => {
                request.record.degraded = true;
                self.forward(request, Some((caller, facts)))
            }
            (None, Limiter::Closed | Limiter::Local { .. } | Limiter::Elsewhere) => {
                self.refuse(request, Refusal::new(Reason::LimiterUnavailable))
            }
        }
    }

    fn deny(&self, mut request: Request, denied: CheckAnswer) -> Step {
        let tightest = denied.limits.into_iter().next();
        // Whoever waits as told must pass (acceptance R10): never less than the reset, never 0.
        let reset_s = tightest.as_ref().map_or(0, |limit| limit.reset_s);
        let retry_after_s = denied.retry_after_s.unwrap_or(1).max(reset_s).max(1);
        request.record.limit = tightest;
        let mut refusal =
            Refusal::new(Reason::QuotaExceeded).header("retry-after", retry_after_s.to_string());
        if self.host == Host::Envoy {
            // An Envoy in front of this one would otherwise try again at once (acceptance R12).
            refusal = refusal.header("x-envoy-ratelimited", "true".to_owned());
        }
        self.refuse(request, refusal)
    }
}
