//! What the upstream sees of the caller, and what the client sees on every response.
//! Knows no decisions: whoever gets here may pass.

use gatehouse_contract::{AuthMethod, header, sidecar::PrincipalFacts};

use super::Request;
use crate::{
    baggage,
    config::{Host, Suite},
    state::PrincipalKey,
    step::{Edit, RequestRecord, Step},
};

impl Suite {
    /// Lets a request go on, with its caller's context or, on public routes, with none.
    pub(super) fn forward(
        &self,
        request: Request,
        caller: Option<(&PrincipalKey, &PrincipalFacts)>,
    ) -> Step {
        let Request { record, mut edits, identity, baggage, .. } = request;
        let context = caller.map(|(caller, facts)| context(caller, facts)).unwrap_or_default();
        for name in identity {
            // A set replaces every value of the name; only what is not set must go by itself.
            if !context.iter().any(|(ours, _)| *ours == name) {
                edits.push(self.gone(name));
            }
        }
        match (caller, baggage) {
            (Some((caller, _)), foreign) => {
                let foreign = foreign.unwrap_or_default();
                let members = baggage::with_tenant(&foreign, &caller.tenant.to_string());
                edits.push(Edit::Set(header::BAGGAGE.into(), members));
            }
            (None, Some(foreign)) if foreign.is_empty() => {
                edits.push(self.gone(header::BAGGAGE.to_owned()));
            }
            (None, Some(foreign)) => edits.push(Edit::Set(header::BAGGAGE.into(), foreign)),
            (None, None) => {}
        }
        edits.extend(context.into_iter().map(|(name, value)| Edit::Set(name.into(), value)));
        Step::Continue { edits, record }
    }

    /// Removed, or blanked where a removal does not reach the upstream.
    fn gone(&self, name: String) -> Edit {
        match self.host {
            Host::Envoy => Edit::Remove(name.into()),
            Host::Kong => Edit::Set(name.into(), String::new()),
        }
    }

    /// Changes to a response, local ones included: sets replace, so that running twice doubles nothing.
    /// `status` is the response's, where the host tells it.
    pub fn on_response(&self, record: &RequestRecord, status: Option<u16>) -> Vec<Edit> {
        let mut edits: Vec<Edit> = record
            .headers()
            .into_iter()
            .map(|(name, value)| Edit::Set(name.into(), value))
            .collect();
        if matches!(status, Some(401 | 403 | 429)) {
            edits.push(Edit::Set("cache-control".into(), "no-store".to_owned()));
        }
        // What the upstream was told of the caller is not for the client (acceptance T5).
        edits.extend(header::IDENTITY.iter().map(|name| Edit::Remove((*name).into())));
        edits
    }
}

fn context(caller: &PrincipalKey, facts: &PrincipalFacts) -> Vec<(&'static str, String)> {
    vec![
        (header::TENANT_ID, caller.tenant.to_string()),
        (header::TENANT_TIER, facts.tier.to_string()),
        (header::USER_ID, caller.subject.clone()),
        (header::USER_ROLES, facts.roles.to_string()),
        (header::AUTH_METHOD, AuthMethod::Jwt.to_string()),
    ]
}
