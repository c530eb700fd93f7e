//! Sign-in, sessions and tokens of registered issuers, against a certified provider that runs beside the service
//! (npm oidc-provider, started through `GATEHOUSE_TEST_OIDC`). Here: a world with providers in it.

mod browser;
mod flow;
mod forged;
pub mod issuers;
mod people;
mod provider;
mod tokens;

use serde_json::{Value, json};

pub use self::{browser::Browser, provider::Provider};
use crate::{
    database::Database,
    http::Answer,
    world::{Service, Setup, Tenant, World},
};

/// Where browsers reach the service, as the configuration says; the test's browser knows where that is.
pub const ORIGIN: &str = "https://console.test";

/// A world whose operator lets the platform register these providers.
pub fn world(providers: &[&Provider]) -> World {
    let allow: Vec<&str> = providers.iter().map(|provider| provider.issuer.as_str()).collect();
    world_with(json!({"public_origin": ORIGIN, "allow": allow}))
}

pub fn world_with(sign_in: Value) -> World {
    let database = Database::migrated();
    let mut setup = Setup::new(&database);
    setup.config["sign_in"] = sign_in;
    let operator = setup.bootstrap(&[]);
    let service = Service::start(&setup);
    let mut world = World { service, setup, database, platform: String::new() };
    world.platform = world.token_of(&operator);
    world
}

/// What the platform registers for `provider`, with `more` members on top.
pub fn issuer_of(provider: &Provider, more: Value) -> Value {
    let mut document = json!({
        "name": "Test",
        "issuer": provider.issuer,
        "client_id": provider::CLIENT,
        "client_secret": provider::SECRET,
        "audiences": [provider::API],
        "max_role": "developer",
        "roles": {"source": "record", "claim": "/groups",
            "map": {"readers": "viewer", "makers": "developer"}},
    });
    for (name, value) in more.as_object().unwrap() {
        document[name] = value.clone();
    }
    document
}

/// Registers `provider` in the tenant as the platform: its id.
pub fn register(world: &World, tenant: &Tenant, provider: &Provider, more: Value) -> String {
    let made = enter(world, tenant, &issuer_of(provider, more));
    assert_eq!(made.status, 201, "{}", made.text);
    made.json()["id"].as_str().unwrap().to_owned()
}

pub fn enter(world: &World, tenant: &Tenant, document: &Value) -> Answer {
    let path = format!("/api/v1/factory/tenants/{}/issuers", tenant.id);
    world.as_platform("POST", &path, "a test's provider", Some(document.clone()))
}

/// The code of a refusal.
pub fn code(answer: &Answer) -> (u16, String) {
    let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
    (answer.status, code)
}

pub fn refused(answer: &Answer, status: u16, expected: &str) {
    assert_eq!(code(answer), (status, expected.to_owned()), "{}", answer.text);
}
