//! The first steps, which every request takes: its id, its protected headers, its path.
//! Knows no callers.

use gatehouse_contract::{Reason, header};

use super::Request;
use crate::{
    baggage,
    config::{Host, Suite},
    matrix::Place,
    path::{self, Target},
    reply::{Challenge, Refusal},
    request_id,
    state::VmState,
    step::{Edit, RequestRecord, Step},
    view::{Scan, Single},
};

impl Suite {
    /// Refuses what is ambiguous, and notes the changes that are due whoever calls.
    pub(super) fn admit(
        &self,
        vm: &mut VmState,
        found: &Scan<'_>,
    ) -> Result<(Request, Target), Box<Step>> {
        let mut request = self.identified(vm, found);
        if let Some(refusal) = self.ambiguity(found) {
            return Err(Box::new(self.refuse(request, refusal)));
        }
        let (Single::One(method), Single::One(target)) = (found.method, found.path) else {
            let refusal =
                Refusal::new(Reason::PathInvalid).detail("the request has no single target");
            return Err(Box::new(self.refuse(request, refusal)));
        };
        let target = match path::normalise(target) {
            Ok(target) => target,
            Err(invalid) => {
                let refusal = Refusal::new(Reason::PathInvalid).detail(invalid.to_string());
                return Err(Box::new(self.refuse(request, refusal)));
            }
        };
        // A method that is not text matches no route either.
        request.method = String::from_utf8_lossy(method).into_owned();
        if target.rewritten {
            request.edits.push(match self.host {
                Host::Envoy => Edit::Set(":path".into(), target.forwarded()),
                Host::Kong => Edit::UpstreamUri(target.forwarded()),
            });
        }
        if let Some(options) = &found.connection {
            request.edits.push(match self.host {
                Host::Envoy if options.is_empty() => Edit::Remove("connection".into()),
                Host::Envoy | Host::Kong => Edit::Set("connection".into(), options.clone()),
            });
        }
        request.identity = found.identity.iter().map(|name| (*name).to_owned()).collect();
        if !found.baggage.is_empty() {
            request.baggage = Some(baggage::foreign_members(found.baggage.iter().copied()));
        }
        Ok((request, target))
    }

    /// The request with its id: the client's if it is a sound one, else ours.
    fn identified(&self, vm: &mut VmState, found: &Scan<'_>) -> Request {
        let mut edits = Vec::new();
        let accepted = match found.request_id {
            Single::One(value) => request_id::accept(value),
            Single::Absent | Single::Many => None,
        };
        let request_id = match accepted {
            Some(id) => id.to_owned(),
            None => {
                let id = vm.ids.next_id();
                edits.push(Edit::Set(header::REQUEST_ID.into(), id.clone()));
                id
            }
        };
        let record = RequestRecord {
            request_id,
            version: self.versions.default_version().cloned(),
            limit: None,
            degraded: false,
        };
        Request {
            record,
            dialect: found.dialect,
            method: String::new(),
            place: Place::Nothing,
            edits,
            identity: Vec::new(),
            baggage: None,
        }
    }

    /// What two readers might read in two ways is refused on every path, public ones included.
    fn ambiguity(&self, found: &Scan<'_>) -> Option<Refusal> {
        if found.authorization == Single::Many {
            let refusal = Refusal::new(Reason::CredentialMalformed);
            return Some(refusal.challenge(Challenge::InvalidRequest));
        }
        let cause = if found.identity_twice {
            "an identity header came twice"
        } else if found.request_id == Single::Many {
            "x-request-id came twice"
        } else if found.baggage.len() > 1 && self.host == Host::Kong {
            // A set leaves duplicates beside it there (lab: ngx_wasm_module).
            "baggage came twice"
        } else if found.overrides_method {
            "the method cannot be overridden by a header"
        } else {
            return None;
        };
        Some(Refusal::new(Reason::HeaderInvalid).detail(cause))
    }
}
