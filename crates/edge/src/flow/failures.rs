//! Who fails to authenticate too often, and who need not be limited: both are told by the connection, not by the
//! credential. A failure is charged to the client's address and never to a tenant (acceptance R15, R17).
//! Knows neither tokens nor tenants.

use std::time::Duration;

use gatehouse_contract::Reason;

use super::{Pending, Request, WaitsFor};
use crate::{
    client::Network,
    config::{Host, Suite},
    credential::{Credential, Kind},
    limits::Event,
    reply::Refusal,
    state::VmState,
    step::Step,
    view::RequestView,
};

impl Suite {
    /// Whose failure it would be.
    pub(super) fn network(&self, view: &RequestView<'_>) -> Option<Network> {
        view.client(self.limiter.trusted_hops).map(Network::from)
    }

    /// Whether the peer of this connection proved to be one that the document names. No header has a say in it.
    pub(super) fn is_internal(&self, view: &RequestView<'_>) -> bool {
        let internal = &self.limiter.internal;
        // Where nobody is named, the host is not asked.
        !internal.is_empty()
            && view.peer().is_some_and(|peer| internal.binary_search(&peer).is_ok())
    }

    /// Seconds until a client that failed too often may try another credential. Whoever shows one that is remembered
    /// goes on: many may share an address. While nobody fails, this costs no look-up in the host.
    pub(super) fn failed_too_often(
        &self,
        vm: &mut VmState,
        view: &RequestView<'_>,
        credential: &Credential<'_>,
        now: Duration,
    ) -> Option<u32> {
        let most = self.limiter.failed_authn_per_minute?;
        if vm.limits.failures.is_empty() {
            return None;
        }
        let retry_after_s = vm.limits.failures.used_up(self.network(view)?, most.get(), now)?;
        let remembered = match credential.kind {
            Kind::Token => vm.token(&credential.text, now).is_some(),
            Kind::Recorded(kind) => std::str::from_utf8(&credential.text)
                .is_ok_and(|text| vm.credential(kind, text, now).is_some()),
        };
        (!remembered).then_some(retry_after_s.max(1))
    }

    /// Refused before any signature is looked at.
    pub(super) fn refuse_failing(
        &self,
        vm: &mut VmState,
        request: Request,
        retry_after_s: u32,
    ) -> Step {
        vm.limits.counts.event(Event::FailedAuthnRefused, 1);
        let mut refusal = Refusal::new(Reason::QuotaExceeded)
            .detail("too many credentials from this address were worth nothing")
            .header("retry-after", retry_after_s);
        if self.host == Host::Envoy {
            refusal = refusal.header("x-envoy-ratelimited", "true");
        }
        self.refuse(request, refusal)
    }

    /// Charges a refused credential to its client, or keeps who that is for when the answer comes.
    pub(super) fn note_failure(
        &self,
        vm: &mut VmState,
        mut step: Step,
        client: impl FnOnce() -> Option<Network>,
        now: Duration,
    ) -> Step {
        let Some(most) = self.limiter.failed_authn_per_minute else { return step };
        match &mut step {
            // No credential is no guess.
            Step::Reply(reply) if reply.reason.is_some_and(is_a_guess) => {
                if let Some(client) = client() {
                    // Where no place is left, nobody else's failures are forgotten for it.
                    let _counted = vm.limits.failures.check(client, most.get(), 1, now);
                }
            }
            Step::Call { pending, .. } => {
                let Pending { request, waits_for } = pending.as_mut();
                match waits_for {
                    WaitsFor::Limit(_) => {}
                    WaitsFor::Keys { .. }
                    | WaitsFor::Principal { .. }
                    | WaitsFor::Recorded { .. } => request.client = client(),
                }
            }
            Step::Reply(_) | Step::Continue { .. } => {}
        }
        step
    }
}

/// Whether a credential was shown and is worth nothing.
fn is_a_guess(reason: Reason) -> bool {
    reason.status() == 401 && reason != Reason::CredentialMissing
}
