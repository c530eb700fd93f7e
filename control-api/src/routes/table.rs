//! Every endpoint of the public listener, once, by prefix. Knows no handler's inside.

mod access;
mod factory;
mod oauth;
mod registry;
mod runtime;

use super::{
    endpoint::Endpoint,
    members::{self, Kind},
    replays, webhooks,
};

const TENANT: &str = "/api/v1/factory/tenants/{tenant}";

/// All of them, in the order of the document.
pub fn endpoints() -> Vec<Endpoint> {
    let groups = [
        factory::tenants(),
        factory::tenancy(),
        members::endpoints(Kind::User),
        members::endpoints(Kind::Client),
        access::roles(),
        access::api_keys(),
        access::issuers(),
        access::audited(),
        webhooks::endpoints(TENANT),
        replays::endpoints(TENANT),
        registry::registry(),
        runtime::runtime(),
        factory::platform(),
        oauth::sign_in(),
        oauth::documents(),
    ];
    groups.into_iter().flatten().collect()
}
