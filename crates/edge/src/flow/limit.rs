//! The rate decision: on a pass that this VM took along, by the sidecar, by the declared policy for its absence, or in
//! the VM. Knows no stores and no algorithms.

use std::{rc::Rc, time::Duration};

use gatehouse_contract::{
    Reason,
    rbac::Route,
    sidecar::{CheckAnswer, CheckAsk, Lease, LeaseAnswer, LeaseAsk},
};

use super::{Request, WaitsFor, caller::Caller};
use crate::{
    config::{Asks, Away, Decides, Host, Suite},
    limits::{Asker, Event, Granted, Key, Outcome, Pass, Shown, Standing},
    reply::Refusal,
    state::VmState,
    step::{Answer, Step},
};

/// What was asked of the sidecar for a request.
#[derive(Debug)]
pub(super) struct LimitQuestion {
    caller: Caller,
    place: usize,
    cost: u32,
    /// By the monotonic clock, where there is one.
    sent_at: Option<Duration>,
    /// Whether passes were wanted: then the book waits for what comes.
    wanted: bool,
}

/// A question's request, without what only an answer needs.
struct Weighed<'q> {
    caller: &'q Caller,
    place: usize,
    cost: u32,
}

impl Suite {
    pub(super) fn limit(
        &self,
        vm: &mut VmState,
        request: Request,
        (place, route): (usize, &Route),
        caller: Caller,
        now: Duration,
    ) -> Step {
        if !self.parts.limits() {
            return self.forward(request, Some(&caller), now);
        }
        let tier = caller.principal.facts.tier;
        let cost = self.limiter.cost(place);
        let weighed = Weighed { caller: &caller, place, cost };
        match &self.limiter.decides {
            Decides::Nobody => self.forward(request, Some(&caller), now),
            // Unlimited, and metered all the same (acceptance R15).
            Decides::Sidecar(_) if request.internal => {
                self.owe(vm, self.asker(&weighed).key(), cost, now);
                vm.limits.counts.outcome(tier, Outcome::Bypassed);
                self.forward(request, Some(&caller), now)
            }
            Decides::Local { .. } if request.internal => {
                vm.limits.counts.outcome(tier, Outcome::Bypassed);
                self.forward(request, Some(&caller), now)
            }
            Decides::Sidecar(asks) => {
                let sent_at = vm.limits.monotonic();
                let asker = self.asker(&weighed);
                let refills = vm.limits.breaker.is_closed()
                    && sent_at.is_some_and(|at| vm.limits.book.runs_low(&asker, at));
                if !refills && let Some(pass) = self.taken_along(vm, &weighed, asks, sent_at) {
                    return self.pass_along(vm, request, &weighed, pass, now);
                }
                let Some(sidecar) = &self.sidecar else {
                    return self.without_limiter(vm, request, &weighed, asks, now);
                };
                if !vm.limits.breaker.admits(sent_at) {
                    return self.without_limiter(vm, request, &weighed, asks, now);
                }
                let want = match sent_at {
                    Some(at) if asks.leases => vm.limits.book.want(&asker, at, sidecar.timeout()),
                    _ => 0,
                };
                let returns = self.returns(vm);
                let call = sidecar.lease(&LeaseAsk {
                    holder: vm.limits.holder.to_string(),
                    check: Some(check_ask(asker.key(), route, cost, false)),
                    want,
                    returns,
                });
                let wanted = want > 0;
                let question = LimitQuestion { caller, place, cost, sent_at, wanted };
                request.wait(call, WaitsFor::Limit(Box::new(question)))
            }
            Decides::Local { per_minute, shown } => {
                let (limit, tenant) = (per_minute.get(), caller.principal.facts.tenant);
                let Ok(local) = vm.limits.local.check(tenant, limit, cost, now) else {
                    // More tenants at once than there are places: nothing is decided, and nobody passes.
                    return self.refuse_undecided(vm, request, &weighed, now);
                };
                let standing = self.shown(Rc::clone(shown), local.remaining, local.reset_s, now);
                if local.allowed {
                    vm.limits.counts.outcome(tier, Outcome::Allowed);
                    self.pass(request, &weighed, Some(standing), now)
                } else {
                    self.deny(vm, request, &weighed, (Some(standing), local.reset_s), now)
                }
            }
        }
    }

    pub(super) fn with_limit_answer(
        &self,
        vm: &mut VmState,
        mut request: Request,
        question: LimitQuestion,
        answer: Answer<'_>,
        now: Duration,
    ) -> Step {
        let LimitQuestion { caller, place, cost, sent_at, wanted } = question;
        let weighed = Weighed { caller: &caller, place, cost };
        let (true, Decides::Sidecar(asks)) = (self.parts.limits(), &self.limiter.decides) else {
            return self.refuse(request, Refusal::new(Reason::LimiterUnavailable));
        };
        let answered = match answer {
            Answer::Sidecar { status: 200, body } => {
                serde_json::from_slice::<LeaseAnswer>(body).ok().and_then(|answer| {
                    let LeaseAnswer { check, lease, share } = answer;
                    Some((check?, lease, share))
                })
            }
            // The sidecar is there and has decided that nobody passes: its store is away, and its policy is closed.
            Answer::Sidecar { status: 503, .. } => {
                vm.limits.breaker.succeeded();
                self.book_answer(vm, &weighed, (sent_at, wanted), None);
                if let Some(pass) = self.taken_along(vm, &weighed, asks, vm.limits.monotonic()) {
                    return self.pass_along(vm, request, &weighed, pass, now);
                }
                return self.refuse_undecided(vm, request, &weighed, now);
            }
            Answer::Sidecar { .. } | Answer::Unavailable => None,
        };
        let Some((check, lease, share)) = answered else {
            vm.limits.counts.event(Event::Unanswered, 1);
            if vm.limits.breaker.failed(sent_at) {
                vm.limits.counts.event(Event::BreakerOpened, 1);
            }
            self.book_answer(vm, &weighed, (sent_at, wanted), None);
            if let Some(pass) = self.taken_along(vm, &weighed, asks, vm.limits.monotonic()) {
                return self.pass_along(vm, request, &weighed, pass, now);
            }
            return self.without_limiter(vm, request, &weighed, asks, now);
        };
        vm.limits.breaker.succeeded();
        let tenant = caller.principal.facts.tenant;
        if let Some(share) = share {
            vm.limits.shares.insert(tenant, share);
        }
        let CheckAnswer { allowed, retry_after_s, degraded, .. } = check;
        request.record.degraded = degraded;
        let shown = Shown::of(&check).map(Rc::new);
        let tightest = check.limits.first();
        vm.limits
            .book
            .heard(&self.asker(&weighed), tightest.map_or(0, |tightest| tightest.remaining));
        let granted = lease.zip(shown.clone()).map(|(lease, shown)| {
            vm.limits.counts.event(Event::PassesGranted, lease.passes.into());
            // The sidecar counts what goes along as left: without it, what is left to others.
            let along = lease.passes.saturating_mul(cost);
            let remaining = tightest.map_or(0, |t| t.remaining.saturating_sub(along));
            let reset_s = tightest.map_or(0, |tightest| tightest.reset_s);
            (lease, Granted { shown, remaining, reset_s, degraded })
        });
        self.book_answer(vm, &weighed, (sent_at, wanted), granted);
        let standing = shown.zip(tightest).map(|(shown, tightest)| {
            let remaining = tightest.remaining;
            let reset_s = if allowed && remaining > 0 { 0 } else { tightest.reset_s };
            self.shown(shown, remaining, reset_s, now)
        });
        if allowed {
            vm.limits.counts.outcome(caller.principal.facts.tier, Outcome::Allowed);
            self.pass(request, &weighed, standing, now)
        } else if let Some(pass) = self.taken_along(vm, &weighed, asks, vm.limits.monotonic()) {
            self.pass_along(vm, request, &weighed, pass, now)
        } else {
            self.deny(vm, request, &weighed, (standing, retry_after_s.unwrap_or(1)), now)
        }
    }

    /// A pass for a request, if this VM has one: charged already, so that it is good whatever the sidecar says now.
    fn taken_along(
        &self,
        vm: &mut VmState,
        weighed: &Weighed<'_>,
        asks: &Asks,
        at: Option<Duration>,
    ) -> Option<Pass> {
        vm.limits.book.pass(&self.asker(weighed), at.filter(|_| asks.leases)?)
    }

    fn pass_along(
        &self,
        vm: &mut VmState,
        mut request: Request,
        weighed: &Weighed<'_>,
        pass: Pass,
        now: Duration,
    ) -> Step {
        vm.limits.counts.outcome(weighed.caller.principal.facts.tier, Outcome::Leased);
        request.record.degraded = pass.degraded;
        let standing = self.shown(pass.shown, pass.remaining, pass.reset_s, now);
        self.pass(request, weighed, Some(standing), now)
    }

    /// The sidecar is away: the declared policy for the tenant's tier.
    fn without_limiter(
        &self,
        vm: &mut VmState,
        mut request: Request,
        weighed: &Weighed<'_>,
        asks: &Asks,
        now: Duration,
    ) -> Step {
        let &Weighed { caller, cost, .. } = weighed;
        let (tier, tenant) = (caller.principal.facts.tier, caller.principal.facts.tenant);
        let share = match asks.away.of(tier) {
            Away::Closed => None,
            Away::Open => {
                request.record.degraded = true;
                self.owe(vm, self.asker(weighed).key(), cost, now);
                vm.limits.counts.outcome(tier, Outcome::Open);
                return self.pass(request, weighed, None, now);
            }
            Away::Local => {
                let told = vm.limits.shares.get(&tenant).copied();
                told.or(asks.share.of(tier)).filter(|share| *share > 0)
            }
        };
        let decided = share.and_then(|share| {
            let local = vm.limits.local.check(tenant, share, cost, now).ok()?;
            Some((share, local))
        });
        let Some((share, local)) = decided else {
            return self.refuse_undecided(vm, request, weighed, now);
        };
        request.record.degraded = true;
        let shown = Rc::new(Shown::local(share));
        let standing = self.shown(shown, local.remaining, local.reset_s, now);
        if local.allowed {
            self.owe(vm, self.asker(weighed).key(), cost, now);
            vm.limits.counts.outcome(tier, Outcome::Shared);
            self.pass(request, weighed, Some(standing), now)
        } else {
            self.deny(vm, request, weighed, (Some(standing), local.reset_s), now)
        }
    }

    fn pass(
        &self,
        mut request: Request,
        weighed: &Weighed<'_>,
        standing: Option<Standing>,
        now: Duration,
    ) -> Step {
        // In shadow mode nothing is enforced, and headers that say so would lie (acceptance R21).
        request.record.limit = standing.filter(|_| !self.limiter.shadow);
        if self.limiter.cost_header.is_some() {
            request.record.charged = Some(Box::new(self.asker(weighed).key()));
        }
        self.forward(request, Some(weighed.caller), now)
    }

    fn deny(
        &self,
        vm: &mut VmState,
        mut request: Request,
        weighed: &Weighed<'_>,
        (tightest, retry_after_s): (Option<Standing>, u32),
        now: Duration,
    ) -> Step {
        let tier = weighed.caller.principal.facts.tier;
        if self.limiter.shadow {
            return self.pass_in_shadow(vm, request, weighed, Reason::QuotaExceeded, now);
        }
        vm.limits.counts.outcome(tier, Outcome::Denied);
        // Whoever waits as told must pass (acceptance R10): never less than the reset, never 0.
        let reset_s = tightest.as_ref().map_or(0, |limit| limit.reset_s);
        request.record.limit = tightest;
        let mut refusal = Refusal::new(Reason::QuotaExceeded)
            .header("retry-after", retry_after_s.max(reset_s).max(1));
        if self.host == Host::Envoy {
            // An Envoy in front of this one would otherwise try again at once (acceptance R12).
            refusal = refusal.header("x-envoy-ratelimited", "true");
        }
        self.refuse(request, refusal)
    }

    /// Nothing decided, so that nobody passes.
    fn refuse_undecided(
        &self,
        vm: &mut VmState,
        request: Request,
        weighed: &Weighed<'_>,
        now: Duration,
    ) -> Step {
        if self.limiter.shadow {
            return self.pass_in_shadow(vm, request, weighed, Reason::LimiterUnavailable, now);
        }
        vm.limits.counts.outcome(weighed.caller.principal.facts.tier, Outcome::Refused);
        self.refuse(request, Refusal::new(Reason::LimiterUnavailable))
    }

    /// It would have been refused (acceptance R21).
    fn pass_in_shadow(
        &self,
        vm: &mut VmState,
        mut request: Request,
        weighed: &Weighed<'_>,
        reason: Reason,
        now: Duration,
    ) -> Step {
        vm.limits.counts.outcome(weighed.caller.principal.facts.tier, Outcome::Shadowed);
        request.record.shadowed.get_or_insert(reason);
        self.pass(request, weighed, None, now)
    }

    /// A question has ended: the book knows whether to ask for passes again.
    fn book_answer(
        &self,
        vm: &mut VmState,
        weighed: &Weighed<'_>,
        (sent_at, wanted): (Option<Duration>, bool),
        granted: Option<(Lease, Granted)>,
    ) {
        if let (Some(sent_at), true) = (sent_at, wanted) {
            vm.limits.book.answered(&self.asker(weighed), sent_at, granted);
        }
    }

    fn shown(&self, shown: Rc<Shown>, remaining: u32, reset_s: u32, now: Duration) -> Standing {
        Standing::new(shown, remaining, reset_s, self.limiter.reset, now.as_secs())
    }

    /// Whose windows a request is charged to.
    fn asker<'q>(&self, weighed: &Weighed<'q>) -> Asker<'q> {
        let facts = &weighed.caller.principal.facts;
        let subjects =
            matches!(&self.limiter.decides, Decides::Sidecar(Asks { subjects: true, .. }));
        Asker {
            tenant: facts.tenant,
            tier: facts.tier,
            limits: facts.limits.as_ref(),
            subject: subjects.then_some(facts.subject.as_str()),
            route: weighed.place,
            cost: weighed.cost,
        }
    }
}

/// What a key means to the sidecar.
pub(crate) fn check_ask(key: Key, route: &Route, cost: u32, forced: bool) -> CheckAsk {
    let Key { tenant, tier, limits, subject, .. } = key;
    let (method, route) = (route.method.clone(), route.template.clone());
    CheckAsk { tenant, tier, limits, subject, method, route, cost, forced }
}
