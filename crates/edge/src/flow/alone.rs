//! Single modules that judge no credentials (design §3): what is theirs of a request, between the modules before and
//! behind them. Whom they must know they know from the module `auth`; without it nobody passes.
//! Knows neither credentials nor roles.

use std::{rc::Rc, time::Duration};

use gatehouse_contract::{Reason, rbac::Access};

use super::{Request, caller::Caller, other_method, versions::Versioned};
use crate::{
    config::Suite,
    handover::Handover,
    matrix::Place,
    reply::Refusal,
    state::{Principal, VmState},
    step::Step,
    view::RequestView,
};

impl Suite {
    pub(super) fn alone(
        &self,
        vm: &mut VmState,
        mut request: Request,
        (view, versioned): (&RequestView<'_>, Option<&Versioned>),
        now: Duration,
    ) -> Step {
        if let Err(refusal) = self.settle_anyone(vm, &mut request, versioned, now) {
            return self.refuse(request, *refusal);
        }
        if !self.parts.limits() {
            let caller = self.transforms().and_then(|_| self.handed_over(vm, view));
            return self.forward(request, caller.as_ref(), now);
        }
        let place = match &request.place {
            Place::Route(index) => self.routes.get(*index).map(|route| (*index, route)),
            Place::OtherMethod { allow, .. } => {
                let refusal = other_method(allow);
                return self.refuse(request, refusal);
            }
            Place::Nothing => None,
        };
        let Some((index, route)) = place else {
            return self.refuse(request, Refusal::new(Reason::NotFound));
        };
        if route.access == Access::Public {
            return self.forward(request, None, now);
        }
        request.internal = self.is_internal(view);
        match self.handed_over(vm, view) {
            Some(caller) => self.limit(vm, request, (index, route), caller, now),
            None => self.no_identity(request),
        }
    }

    /// The caller as the module before told it; made once for each that is told.
    fn handed_over(&self, vm: &mut VmState, view: &RequestView<'_>) -> Option<Caller> {
        let told = view.caller()?;
        if let Some(principal) = vm.handed_over.get(told.as_slice()).map(Rc::clone) {
            let prepared = Rc::clone(principal.prepared.get()?);
            return Some(Caller { principal, prepared });
        }
        let handover: Handover = serde_json::from_slice(&told).ok()?;
        let (roles, platform, method) = (handover.roles, handover.platform, handover.method);
        let principal = Rc::new(Principal::from(handover.facts()));
        let prepared = self.prepare(&principal.facts, roles, platform, method).ok()?;
        let prepared = Rc::clone(principal.prepared.get_or_init(|| Rc::new(prepared)));
        vm.handed_over.insert(told.into(), Rc::clone(&principal));
        Some(Caller { principal, prepared })
    }
}
