//! What a door was not granted it cannot do, in any table: real sessions of the three roles, every verb. What was granted
//! is `roles.golden.txt`.

use crate::harness::{refused, with_db};

/// Table, one of its columns, and the verb that the role holds in no column of it.
const WITHHELD: &str = "
    SELECT c.relname::text, (SELECT quote_ident(a.attname) FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attidentity = ''
            ORDER BY a.attnum LIMIT 1), v.verb
    FROM pg_class c, (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE'), ('TRUNCATE')) v (verb)
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
    AND NOT CASE WHEN v.verb IN ('DELETE', 'TRUNCATE') THEN has_table_privilege($1, c.oid, v.verb)
        ELSE has_any_column_privilege($1, c.oid, v.verb) END
    ORDER BY 1, 3";

#[tokio::test]
async fn no_door_can_do_what_it_was_not_granted() {
    with_db(async |db| {
        for role in ["gatehouse_app", "gatehouse_admin", "gatehouse_system"] {
            let withheld: Vec<(String, String, String)> =
                sqlx::query_as(WITHHELD).bind(role).fetch_all(&mut db.root().await).await.unwrap();
            assert!(withheld.len() > 100, "{role}: {}", withheld.len());
            // Nobody empties a table, and nobody changes what was written down.
            let withheld_from = |table: &str, verb: &str| {
                withheld.iter().any(|(name, _, of)| name == table && of == verb)
            };
            for table in ["tenant_audit", "event_store", "audit_seals"] {
                assert!(withheld_from(table, "UPDATE") && withheld_from(table, "DELETE"), "{role}");
            }
            let mut session = db.raw(role).await;
            for (table, column, verb) in &withheld {
                let statement = match verb.as_str() {
                    "SELECT" => format!("SELECT 1 FROM {table}"),
                    "INSERT" => format!("INSERT INTO {table} DEFAULT VALUES"),
                    "UPDATE" => format!("UPDATE {table} SET {column} = {column}"),
                    "DELETE" => format!("DELETE FROM {table}"),
                    _ => format!("TRUNCATE {table}"),
                };
                assert_eq!(refused(&mut session, &statement).await, "42501", "{role}: {statement}");
            }
        }
    })
    .await;
}
