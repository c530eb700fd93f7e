//! Who is not ours: identity providers that publish keys, and the record behind the sidecar, which is a list here.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use gatehouse_contract::{
    Role,
    sidecar::{INTERNAL_PRINCIPAL_PATH, PrincipalAsk, PrincipalFacts},
};
use gatehouse_tests::{
    http::{
        Message,
        serve::{json_response, response},
    },
    token::jwks,
};
use serde_json::json;

use super::{ADMIN, ISSUER, OTHER_TENANT, SUBJECT, TENANT, VIEWER, key};

/// Who is outside: what identity providers publish and what the record says.
#[derive(Debug, Default)]
pub struct Outside {
    /// Status and body of each issuer's key set.
    pub keys: BTreeMap<String, (u16, String)>,
    /// The record's members, by tenant and subject.
    pub members: BTreeMap<(String, String), PrincipalFacts>,
    /// The record's API keys and sessions, by what is presented.
    pub credentials: BTreeMap<String, PrincipalFacts>,
    /// `METHOD target` of every request that came.
    pub asked: Vec<String>,
}

/// The record of a member with these roles.
pub fn member(tenant: &str, subject: &str, roles: &[Role]) -> PrincipalFacts {
    PrincipalFacts {
        roles: roles.iter().copied().collect(),
        tier: gatehouse_contract::Tier::Enterprise,
        epoch: 1,
        ..PrincipalFacts::member(tenant.parse().unwrap(), subject)
    }
}

pub(super) fn outside() -> Outside {
    let mut outside = Outside::default();
    outside.keys.insert(ISSUER.to_owned(), (200, jwks(&[key()]).unwrap().to_string()));
    for (tenant, subject, role) in [
        (TENANT, SUBJECT, Role::Developer),
        (TENANT, VIEWER, Role::Viewer),
        (TENANT, ADMIN, Role::Admin),
        (OTHER_TENANT, SUBJECT, Role::Viewer),
    ] {
        let facts = member(tenant, subject, &[role]);
        outside.members.insert((tenant.to_owned(), subject.to_owned()), facts);
    }
    outside
}

pub(super) fn answer(outside: &Mutex<Outside>, request: &Message) -> Message {
    let mut outside = outside.lock().unwrap_or_else(PoisonError::into_inner);
    let line = request.start.trim_end_matches(" HTTP/1.1").to_owned();
    outside.asked.push(line.clone());
    if let Some(issuer) = line.strip_prefix("GET /keys/") {
        let issuer = issuer.replace("%2F", "/").replace("%3A", ":");
        return match outside.keys.get(&issuer) {
            Some((status, body)) => {
                response(*status, &[("content-type", "application/json")], body.clone())
            }
            None => json_response(404, &json!({})),
        };
    }
    if line != format!("POST {INTERNAL_PRINCIPAL_PATH}") {
        return json_response(204, &json!({}));
    }
    let Ok(ask) = serde_json::from_slice::<PrincipalAsk>(&request.body) else {
        return json_response(422, &json!({}));
    };
    let vouched;
    let (found, missing) = match &ask {
        // Its issuer says who it is: the tenant's standing is all that is asked for.
        PrincipalAsk::Subject { tenant, subject, vouched: true, .. } => {
            vouched = member(&tenant.to_string(), subject, &[]);
            (Some(&vouched), 404)
        }
        PrincipalAsk::Subject { tenant, subject, .. } => {
            (outside.members.get(&(tenant.to_string(), subject.clone())), 404)
        }
        PrincipalAsk::ApiKey { key, .. } => (outside.credentials.get(key), 401),
        PrincipalAsk::Session { session, .. } => (outside.credentials.get(session), 401),
    };
    match found {
        Some(facts) => json_response(200, &serde_json::to_value(facts).unwrap()),
        None => {
            let problem = json!({"status": missing, "code": "not_found"}).to_string();
            response(missing, &[("content-type", "application/problem+json")], problem)
        }
    }
}
