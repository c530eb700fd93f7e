//! The commands of a runbook do what it says of them, on a database as the migrations make it and on one that was broken.

use std::collections::BTreeMap;

use crate::{conventions::Furnished, database::Database};

const ISOLATION: &str = include_str!("../../../docs/runbooks/isolation.md");

/// The queries by their names, as they stand in the page.
fn queries(page: &'static str) -> BTreeMap<&'static str, &'static str> {
    let blocks = page.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.map(|block| (block.lines().next().unwrap(), block)).collect()
}

fn last_line(said: &str) -> &str {
    said.lines().last().unwrap_or_default()
}

#[test]
fn tiv4_the_queries_of_the_runbook_of_isolation_say_what_is_wrong() {
    let queries = queries(ISOLATION);
    assert_eq!(queries.len(), 5, "{:?}", queries.keys());
    let furnished = Furnished::new();
    let database: &Database = &furnished.world.database;
    let ask = |name: &str, role: &str| {
        let name = format!("-- isolation: {name}");
        let query = queries.get(name.as_str()).unwrap_or_else(|| panic!("no {name}"));
        database.query_as(role, query)
    };
    let tables =
        || ask("tables without forced row security, or without a policy", "gatehouse_owner");
    let roles = || ask("roles of ours that could see past it", "gatehouse_owner");
    let policies = || {
        let name = "policies that are for everybody, or that ask nothing of the application";
        ask(name, "gatehouse_owner")
    };
    let seen = || ask("rows without a tenant", "gatehouse_app");
    assert_eq!((tables().as_str(), roles().as_str(), policies().as_str()), ("", "", ""));
    assert_eq!(last_line(&seen()), "0");
    // Each hole is said, and by the query that is meant for it.
    database.query("ALTER TABLE agents NO FORCE ROW LEVEL SECURITY");
    assert_eq!(tables(), "agents");
    database
        .query("ALTER TABLE agents FORCE ROW LEVEL SECURITY; CREATE TABLE late (tenant_id uuid)");
    assert_eq!(tables(), "late");
    database.query("DROP TABLE late; CREATE POLICY hole ON agents TO gatehouse_app USING (true)");
    assert_eq!(policies(), "agents|hole");
    assert_ne!(last_line(&seen()), "0");
    // Whoever came through the platform's door is told, with the reason.
    let uses = ask("the last uses of the admin door", "gatehouse_admin");
    assert!((1..=20).contains(&uses.lines().count()), "{uses}");
    assert!(uses.contains("|a test|") || uses.contains("bootstrap"), "{uses}");
}
