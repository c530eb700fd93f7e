//! The audit from a mutation to a seal, through the real service; what an export shows is beside it.

use serde_json::{Value, json};

use crate::{
    database::Database,
    http::send,
    world::{Service, Setup, World, until},
};

/// A world whose service seals.
pub fn sealing() -> World {
    let database = Database::migrated();
    let mut setup = Setup::new(&database);
    setup.config["database"]["system"] = json!(database.url("gatehouse_system"));
    let operator = setup.bootstrap(&[]);
    let service = Service::start(&setup);
    let mut world = World { service, setup, database, platform: String::new() };
    world.platform = world.token_of(&operator);
    world
}

fn word(admin: &str) -> String {
    let ready: Value = send("GET", &format!("{admin}/readyz"), &[], None).json();
    ready["checks"]["audit_seals"].as_str().unwrap_or_default().to_owned()
}

/// Waits until every row of the tenant has its seal.
pub fn sealed(world: &World, tenant: &str) {
    let unsealed = format!(
        "SELECT count(*) FROM tenant_audit a WHERE tenant_id = '{tenant}' AND NOT EXISTS (
            SELECT FROM audit_seals s WHERE s.tenant_id = a.tenant_id AND a.id = ANY (s.row_ids))"
    );
    until(|| (world.database.query(&unsealed) == "0").then_some(()));
}

fn seals(world: &World, tenant: &str) -> u32 {
    let count = format!("SELECT count(*) FROM audit_seals WHERE tenant_id = '{tenant}'");
    world.database.query(&count).parse().unwrap()
}

#[test]
fn mtd5_rows_are_sealed_by_one_process_and_another_takes_over() {
    let world = sealing();
    let tenant = world.tenant("sealed");
    sealed(&world, &tenant.id);
    until(|| (word(&world.service.admin) == "leads").then_some(()));
    let second = Service::start(&world.setup);
    assert_eq!(word(&second.admin), "follows");
    let metrics = send("GET", &format!("{}/metrics", world.service.admin), &[], None).text;
    assert!(metrics.contains("gatehouse_audit_sealer_leads 1"), "{metrics}");
    // The first ends, as it would by a crash: its connection goes, and with it the lead.
    let World { service, setup, database, platform } = world;
    drop(service);
    until(|| (word(&second.admin) == "leads").then_some(()));
    let world = World { service: second, setup, database, platform };
    let before = seals(&world, &tenant.id);
    world.user(&tenant, "viewer");
    sealed(&world, &tenant.id);
    assert_eq!(seals(&world, &tenant.id), before + 1);
    // The key may change: the seal before was signed by one that is not the one that signs now.
    let rotated = world.as_platform("POST", "/api/v1/factory/signing-keys", "a test", None);
    assert_eq!(rotated.status, 201, "{}", rotated.text);
    world.user(&tenant, "viewer");
    sealed(&world, &tenant.id);
    assert_eq!(word(&world.service.admin), "leads");
}

#[test]
fn mtd5_a_chain_whose_end_was_changed_is_not_extended_and_that_is_said() {
    let mut world = sealing();
    let (tenant, other) = (world.tenant("forged"), world.tenant("whole"));
    sealed(&world, &tenant.id);
    sealed(&world, &other.id);
    let forge = format!(
        "UPDATE audit_seals SET row_hashes = decode(repeat('00', octet_length(row_hashes)), 'hex')
         WHERE tenant_id = '{}'",
        tenant.id
    );
    world.database.query(&forge);
    world.user(&tenant, "viewer");
    until(|| (word(&world.service.admin) == "broken").then_some(()));
    let log = world.service.log().join("\n");
    assert!(log.contains("was tampered with: seal 1 does not have its hash"), "{log}");
    assert!(log.contains(&tenant.id), "{log}");
    assert_eq!(seals(&world, &tenant.id), 1);
    let metrics = send("GET", &format!("{}/metrics", world.service.admin), &[], None).text;
    assert!(metrics.contains("gatehouse_audit_chain_broken 1"), "{metrics}");
}
