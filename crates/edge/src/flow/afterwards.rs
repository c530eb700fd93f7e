//! What is told to the sidecar after requests have passed: costs that the response named, what internal callers used,
//! what this VM let pass by its share, and passes that nobody used. All of it in batches on the tick, so that no
//! request waits for it. Knows no decisions.

use std::time::Duration;

use gatehouse_contract::sidecar::{LeaseAsk, LeaseReturn};

use super::limit::check_ask;
use crate::{
    config::{Decides, Suite},
    feed::{Purpose, RootCall},
    limits::{Counts, Event, Key},
    state::VmState,
    step::{Answer, RequestRecord},
    version::Usage,
};

/// The most that a response may say it cost.
const MAX_COST: u32 = 1_000_000;

impl Suite {
    /// The names of the counters of [`Self::take_counts`], by place: letters, digits and `_`.
    pub fn counter_names(&self) -> impl Iterator<Item = String> {
        Counts::names().chain(Usage::names(&self.versions))
    }

    /// What was counted since the last call, by place.
    pub fn take_counts(&self, vm: &mut VmState) -> Vec<(usize, u64)> {
        let mut counted = vm.limits.counts.take();
        counted.extend(vm.versions.take().map(|(place, count)| (Counts::ALL + place, count)));
        counted
    }

    /// Charges what a response says that the request cost beyond what was charged before it (acceptance R24); once,
    /// whatever the host calls twice. `headers` are the response's.
    pub fn settle<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        vm: &mut VmState,
        record: &mut RequestRecord,
        headers: &[(N, V)],
        now: Duration,
    ) {
        let (Some(name), Some(key)) = (&self.limiter.cost_header, record.charged.take()) else {
            return;
        };
        let named =
            headers.iter().filter(|(ours, _)| ours.as_ref().eq_ignore_ascii_case(name.as_bytes()));
        // Of several the greatest: nobody pays less by saying it twice.
        let cost = named.filter_map(|(_, cost)| {
            std::str::from_utf8(cost.as_ref()).ok()?.trim().parse::<u32>().ok()
        });
        let more = cost.max().unwrap_or_default().min(MAX_COST).saturating_sub(key.cost);
        if more > 0 {
            self.owe(vm, *key, more, now);
        }
    }

    /// Notes what passed and is to be charged.
    pub(super) fn owe(&self, vm: &mut VmState, key: Key, cost: u32, now: Duration) {
        if !self.parts.limits() {
            return;
        }
        let noted = match &self.limiter.decides {
            Decides::Sidecar(_) => vm.limits.owed.add(key, cost, now),
            Decides::Local { .. } => vm.limits.local.charge(key.tenant, cost, now),
            Decides::Nobody => true,
        };
        if !noted {
            vm.limits.counts.event(Event::ChargesLost, 1);
        }
    }

    /// Passes to hand back with a question: sent once, whatever becomes of it.
    pub(super) fn returns(&self, vm: &mut VmState) -> Vec<LeaseReturn> {
        let returns = vm.limits.book.take_returns();
        let passes = returns.iter().map(|back| u64::from(back.unused)).sum();
        vm.limits.counts.event(Event::PassesReturned, passes);
        returns
    }

    /// What is to be told on this tick.
    pub(crate) fn tick_limits(&self, vm: &mut VmState, now: Duration, calls: &mut Vec<RootCall>) {
        vm.limits.failures.forget_the_idle(now);
        let (Decides::Sidecar(_), Some(sidecar)) = (&self.limiter.decides, &self.sidecar) else {
            return;
        };
        if !self.parts.limits() {
            return;
        }
        let at = vm.limits.monotonic();
        if let Some(at) = at {
            let expired = vm.limits.book.sweep(at);
            vm.limits.counts.event(Event::PassesExpired, expired);
        }
        loop {
            let returns = self.returns(vm);
            if returns.is_empty() {
                break;
            }
            let holder = vm.limits.holder.to_string();
            let ask = LeaseAsk { holder, check: None, want: 0, returns };
            calls.push(RootCall { call: sidecar.lease(&ask), purpose: Purpose::returned() });
        }
        if vm.limits.owed.is_empty() || !vm.limits.breaker.admits(at) {
            return;
        }
        for charge in vm.limits.owed.tell(now) {
            let Some(route) = self.routes.get(charge.key.route) else { continue };
            let call = sidecar.charge(&check_ask(charge.key, route, charge.cost, true));
            calls.push(RootCall { call, purpose: Purpose::charged(charge.number) });
        }
    }

    /// A charge was answered.
    pub(crate) fn on_charged(&self, vm: &mut VmState, number: u64, answer: Answer<'_>) {
        // What the sidecar refuses to take it will not take later either; what it is too busy for, or cannot book
        // while its store is away, is told again.
        let charged = match answer {
            Answer::Sidecar { status, .. } => status != 503,
            Answer::Unavailable => false,
        };
        match answer {
            Answer::Sidecar { .. } => vm.limits.breaker.succeeded(),
            Answer::Unavailable => {
                if vm.limits.breaker.failed(vm.limits.monotonic()) {
                    vm.limits.counts.event(Event::BreakerOpened, 1);
                }
            }
        }
        if !self.parts.limits() {
            return;
        }
        let cost = vm.limits.owed.answered(number, charged);
        vm.limits.counts.event(Event::ChargedLater, cost.into());
    }
}
