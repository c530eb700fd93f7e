//! The schema as the catalog has it: no table without forced row security, no role with more than its grants
//! (RLS-005). What each role may touch is a golden, read in review; it is renewed with
//! `UPDATE_GOLDEN=1 cargo test -p gatehouse-store`.

use std::{fmt::Write as _, path::Path};

use crate::harness::with_db;

/// What sqlx keeps for itself: no role but the owner has any grant on it, checked below.
const NOT_OURS: &str = "_sqlx_migrations";

#[tokio::test]
async fn every_table_has_forced_row_security_and_policies() {
    with_db(async |db| {
        let tables: Vec<(String, bool, bool, bool, bool, bool)> = sqlx::query_as(
            "SELECT c.relname::text, c.relrowsecurity, c.relforcerowsecurity,
                EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid),
                EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id'
                    AND a.attnotnull),
                EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id')
             FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
             ORDER BY 1",
        )
        .fetch_all(&mut db.root().await)
        .await
        .unwrap();
        assert!(tables.len() > 10, "{tables:?}");
        for (name, enabled, forced, policies, not_null, has_tenant) in tables {
            if name == NOT_OURS {
                continue;
            }
            assert!(enabled && forced && policies, "{name} has no forced row security");
            assert_eq!(not_null, has_tenant, "{name}.tenant_id can be NULL");
            // The tables that are no tenant's: a new one needs a reason.
            let platform = [
                "tenants",
                "signing_keys",
                "worker_heartbeats",
                "feed_state",
                "event_publisher",
                "partition_rules",
            ];
            assert_eq!(has_tenant, !platform.contains(&name.as_str()), "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn no_policy_is_for_everyone_and_each_checks_what_it_writes() {
    with_db(async |db| {
        let loose: Vec<String> = sqlx::query_scalar(
            "SELECT polrelid::regclass::text || '.' || polname FROM pg_policy
             WHERE polroles = '{0}' OR (polcmd NOT IN ('r', 'd') AND polwithcheck IS NULL) OR polqual IS NULL",
        )
        .fetch_all(&mut db.root().await)
        .await
        .unwrap();
        assert_eq!(loose, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn references_within_a_tenant_carry_the_tenant() {
    with_db(async |db| {
        // Both ends have a tenant_id, so that both must have it in the key: referential checks ignore policies.
        let single: Vec<String> = sqlx::query_scalar(
            "SELECT k.conname::text FROM pg_constraint k
             JOIN pg_attribute t ON t.attrelid = k.confrelid AND t.attname = 'tenant_id'
             WHERE k.contype = 'f' AND NOT (t.attnum = ANY (k.confkey))",
        )
        .fetch_all(&mut db.root().await)
        .await
        .unwrap();
        assert_eq!(single, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn the_services_roles_own_nothing_and_bypass_nothing() {
    with_db(async |db| {
        let mut root = db.root().await;
        let strong: Vec<String> = sqlx::query_scalar(
            "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'gatehouse\\_%'
             AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)",
        )
        .fetch_all(&mut root)
        .await
        .unwrap();
        assert_eq!(strong, Vec::<String>::new());
        let owned: Vec<String> = sqlx::query_scalar(
            "SELECT relname::text FROM pg_class WHERE pg_get_userbyid(relowner) IN
                ('gatehouse_app', 'gatehouse_admin', 'gatehouse_system', 'gatehouse_lookup')",
        )
        .fetch_all(&mut root)
        .await
        .unwrap();
        assert_eq!(owned, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn definer_functions_pin_their_search_path_and_nobody_else_may_call_them() {
    with_db(async |db| {
        let functions: Vec<(String, String, bool, bool)> = sqlx::query_as(
            "SELECT p.proname::text, pg_get_userbyid(p.proowner)::text,
                coalesce('search_path=\"\"' = ANY (p.proconfig), false),
                EXISTS (SELECT FROM aclexplode(p.proacl) WHERE grantee = 0) OR p.proacl IS NULL
             FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef ORDER BY 1",
        )
        .fetch_all(&mut db.root().await)
        .await
        .unwrap();
        assert!(functions.len() > 6, "{functions:?}");
        for (name, owner, pinned, public) in functions {
            // The one function that makes and drops tables is the owner's.
            let whose = match name.as_str() {
                "maintain_partitions" => "gatehouse_owner",
                _ => "gatehouse_lookup",
            };
            assert_eq!(owner, whose, "{name}");
            assert!(pinned, "{name} does not pin its search_path");
            assert!(!public, "{name} can be called by everyone");
        }
    })
    .await;
}

#[tokio::test]
async fn what_each_role_may_touch_is_what_was_reviewed() {
    with_db(async |db| {
        let rows: Vec<(String, String, String, String)> = sqlx::query_as(
            "WITH held AS (
                SELECT c.relname::text AS relation, a.grantee, a.privilege_type AS verb, NULL::text AS col
                FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
                WHERE c.relnamespace = 'public'::regnamespace
                UNION ALL
                SELECT c.relname::text, a.grantee, a.privilege_type, t.attname::text
                FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid CROSS JOIN LATERAL aclexplode(t.attacl) a
                WHERE c.relnamespace = 'public'::regnamespace)
             SELECT CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee)::text END, relation, verb,
                coalesce(string_agg(col, ', ' ORDER BY col), '')
             FROM held WHERE grantee = 0 OR pg_get_userbyid(grantee) <> 'gatehouse_owner'
             GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        )
        .fetch_all(&mut db.root().await)
        .await
        .unwrap();
        let mut grants = String::new();
        for (role, relation, verb, columns) in rows {
            let columns = if columns.is_empty() { String::new() } else { format!(" ({columns})") };
            writeln!(grants, "{role}: {verb}{columns} ON {relation}").unwrap();
        }
        let policies: Vec<(String, String)> = sqlx::query_as(
            "SELECT array_to_string(roles, ',') || ': ' || tablename || '.' || policyname || ' ' || cmd,
                regexp_replace(coalesce(qual, '') || ' | ' || coalesce(with_check, ''), '\\s+', ' ', 'g')
             FROM pg_policies WHERE schemaname = 'public'
             -- Partitions come and go; what they have is checked below.
             AND NOT (SELECT relispartition FROM pg_class WHERE oid = format('public.%I', tablename)::regclass)
             ORDER BY 1",
        )
        .fetch_all(&mut db.root().await)
        .await
        .unwrap();
        grants.push('\n');
        for (policy, rule) in policies {
            writeln!(grants, "{policy}: {rule}").unwrap();
        }
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/roles.golden.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &grants).unwrap();
        }
        let reviewed = std::fs::read_to_string(&golden).expect("the golden is committed");
        assert_eq!(grants, reviewed, "grants or policies changed: read the difference");
    })
    .await;
}
