//! What a known caller may do: the standing of its tenant, the tenant that the request names, the role matrix.
//! Knows no credentials: all kinds come here in one shape (acceptance T9).

use std::{rc::Rc, time::Duration};

use gatehouse_contract::{Reason, TenantStatus};

use super::{NamedTenant, Request, other_method};
use crate::{
    config::{Rbac, Suite},
    decision::{Decision, Ruling},
    matrix::Place,
    prepared::Prepared,
    reply::Refusal,
    state::{Principal, VmState},
    step::Step,
};

/// Who calls.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) principal: Rc<Principal>,
    pub(super) prepared: Rc<Prepared>,
}

impl Suite {
    pub(super) fn with_caller(
        &self,
        vm: &mut VmState,
        mut request: Request,
        caller: Caller,
        now: Duration,
    ) -> Step {
        let facts = &caller.principal.facts;
        request.record.logged.clone_from(&caller.prepared.logged);
        match facts.status {
            TenantStatus::Active => {}
            TenantStatus::Provisioning | TenantStatus::Suspended | TenantStatus::Deleting => {
                return self.refuse(request, Refusal::new(Reason::TenantInactive));
            }
        }
        if facts.suspended {
            return self.refuse(request, Refusal::new(Reason::PrincipalInactive));
        }
        if let Err(refusal) = self.settle_version(vm, &mut request, facts, now) {
            return self.refuse(request, *refusal);
        }
        if request.public {
            return self.forward(request, Some(&caller), now);
        }
        if !request.may_name_its_tenant(&caller.prepared) {
            return self.refuse(request, Refusal::new(Reason::NotFound));
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
        let Prepared { facts: held, scopes, .. } = caller.prepared.as_ref();
        let ruling = Ruling::of(&route.access, held.roles, held.platform, scopes.as_deref());
        request.record.decision = Some(Decision { route: index, ruling });
        if !ruling.allows() {
            match self.rbac {
                Rbac::Enforce => {
                    return self.refuse(request, Refusal::new(Reason::PermissionDenied));
                }
                Rbac::Shadow => request.record.shadowed = Some(Reason::PermissionDenied),
            }
        }
        self.limit(vm, request, (index, route), caller, now)
    }
}

impl Request {
    /// Another tenant's is as missing as what never was. Platform members may, when they say why; what they then do
    /// is audited by whoever serves it (acceptance T8).
    fn may_name_its_tenant(&self, prepared: &Prepared) -> bool {
        match self.named {
            NamedTenant::Nobody => true,
            NamedTenant::One(tenant) if tenant == prepared.facts.tenant => true,
            NamedTenant::One(_) => prepared.facts.platform && self.impersonation_reason,
            NamedTenant::Nonsense => false,
        }
    }
}
