//! What the catalog must not have: each rule is a query whose every row is a fault. Nobody writes a rule for a table.

use sqlx::PgConnection;

use crate::harness::{run, with_db};

/// A rule's name, and its faults.
type Rule = (&'static str, &'static str);

/// Of tables, policies, views, functions and roles.
pub(super) const OF_POLICIES: &[Rule] = &[
    (
        "row security is on, forced, and has a policy",
        "SELECT c.relname::text FROM pg_class c
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> '_sqlx_migrations'
         AND NOT (c.relrowsecurity AND c.relforcerowsecurity
            AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid))",
    ),
    (
        "nothing but tables, indexes, sequences and views",
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
         AND relkind NOT IN ('r', 'p', 'i', 'I', 'S', 'v')",
    ),
    (
        "no policy is for everyone, and each says what it lets be written",
        "SELECT polrelid::regclass || '.' || polname FROM pg_policy
         WHERE polroles && '{0}' OR (polcmd NOT IN ('r', 'd') AND polwithcheck IS NULL) OR polqual IS NULL",
    ),
    (
        "a policy is for one of our roles",
        "SELECT polrelid::regclass || '.' || polname FROM pg_policy p
         WHERE EXISTS (SELECT FROM unnest(p.polroles) r WHERE pg_get_userbyid(r) NOT IN
            ('gatehouse_app', 'gatehouse_admin', 'gatehouse_system', 'gatehouse_lookup')
            AND NOT (pg_get_userbyid(r) = 'gatehouse_owner' AND p.polrelid = 'partition_rules'::regclass))",
    ),
    (
        "the application's rule is the tenant of the transaction, and nothing besides",
        "SELECT tablename || '.' || policyname FROM pg_policies
         WHERE schemaname = 'public' AND 'gatehouse_app' = ANY (roles)
         AND NOT (permissive = 'PERMISSIVE' AND policyname = 'own_tenant'
            AND qual = format($q$(%s = ( SELECT (NULLIF(current_setting('app.current_tenant_id'::text, true), ''::text))::uuid AS \"nullif\"))$q$,
                CASE tablename WHEN 'tenants' THEN 'id' ELSE 'tenant_id' END)
            AND (with_check = qual OR cmd = 'SELECT'))",
    ),
    (
        "a job's rule begins with its job",
        "SELECT tablename || '.' || policyname FROM pg_policies
         WHERE schemaname = 'public' AND 'gatehouse_system' = ANY (roles)
         AND NOT (qual LIKE '%current_setting(''app.current_job''::text, true)%'
            AND coalesce(with_check, qual) LIKE '%current_setting(''app.current_job''::text, true)%')",
    ),
    (
        "a month has its table's rule for the application and no other",
        "SELECT c.relname::text FROM pg_class c
         WHERE c.relnamespace = 'public'::regnamespace AND c.relispartition AND c.relkind IN ('r', 'p')
         AND (SELECT array_agg(polname::text) FROM pg_policy WHERE polrelid = c.oid) IS DISTINCT FROM '{own_tenant}'",
    ),
    (
        "a view looks as whoever asks",
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'
         AND NOT coalesce(reloptions && '{security_invoker=true,security_invoker=on}', false)",
    ),
    (
        "a definer function pins its search path, is a look-up's or makes months, and is not everyone's",
        "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef
         AND (NOT coalesce('search_path=\"\"' = ANY (p.proconfig), false)
            OR pg_get_userbyid(p.proowner) <> CASE p.proname
                WHEN 'maintain_partitions' THEN 'gatehouse_owner' ELSE 'gatehouse_lookup' END
            OR p.proacl IS NULL
            OR EXISTS (SELECT FROM aclexplode(p.proacl) WHERE grantee = 0))",
    ),
    (
        "a function of ours pins its search path",
        "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
         AND NOT coalesce('search_path=\"\"' = ANY (p.proconfig), false)
         -- What an extension brings is its own.
         AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')",
    ),
    (
        "no role of ours is past row security or makes roles",
        "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'gatehouse\\_%'
         AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)",
    ),
    (
        "no role is a member of another but the owner, of the one that looks up",
        "SELECT pg_get_userbyid(member) || ' of ' || pg_get_userbyid(roleid) FROM pg_auth_members
         WHERE (pg_get_userbyid(roleid) LIKE 'gatehouse\\_%' OR pg_get_userbyid(member) LIKE 'gatehouse\\_%')
         AND (pg_get_userbyid(member), pg_get_userbyid(roleid)) <> ('gatehouse_owner', 'gatehouse_lookup')",
    ),
    (
        "every table is the owner's",
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
         AND relkind IN ('r', 'p', 'v', 'm', 'S') AND pg_get_userbyid(relowner) <> 'gatehouse_owner'",
    ),
    (
        "who a row belongs to is known and begins its key",
        "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
         AND (NOT a.attnotnull OR (
            -- Written under many tenants and read in the order of arrival.
            c.relname NOT IN ('outbox', 'admin_access')
            AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indkey[0] = a.attnum)))",
    ),
    (
        "a reference to a row of a tenant carries the tenant",
        "SELECT k.conrelid::regclass || '.' || k.conname FROM pg_constraint k
         JOIN pg_attribute t ON t.attrelid = k.confrelid AND t.attname = 'tenant_id'
         WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace AND NOT (t.attnum = ANY (k.confkey))",
    ),
];

/// Of grants, as they are before the proof grants everything.
pub(super) const OF_GRANTS: &[Rule] = &[
    (
        "a month is granted to nobody",
        "SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relispartition
         AND c.relkind IN ('r', 'p') AND (EXISTS (SELECT FROM aclexplode(c.relacl) WHERE grantee <> c.relowner)
            OR EXISTS (SELECT FROM pg_attribute a, aclexplode(a.attacl) WHERE a.attrelid = c.oid))",
    ),
    (
        "nothing is everyone's, a stranger's, or can be passed on, and nobody may do more than rows",
        "WITH held AS (
            SELECT c.relname::text AS name, c.relowner, a.* FROM pg_class c, aclexplode(c.relacl) a
            WHERE c.relnamespace = 'public'::regnamespace
            UNION ALL
            SELECT c.relname || '.' || t.attname, c.relowner, a.* FROM pg_class c
            JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a
            WHERE c.relnamespace = 'public'::regnamespace)
         SELECT name || ': ' || privilege_type || ' to ' || CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END
         FROM held WHERE grantee <> relowner AND (grantee = 0 OR is_grantable
            OR pg_get_userbyid(grantee) NOT IN ('gatehouse_app', 'gatehouse_admin', 'gatehouse_system', 'gatehouse_lookup')
            OR privilege_type NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'USAGE'))",
    ),
    (
        "nobody but the owner makes anything here",
        "SELECT a.privilege_type || ' on the schema to '
            || CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END
         FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'public'
         AND (a.grantee = 0 OR (a.privilege_type = 'CREATE'
            AND pg_get_userbyid(a.grantee) NOT IN ('pg_database_owner', 'gatehouse_owner', 'postgres')))",
    ),
    (
        "a database lets nobody in that has no business there",
        "SELECT a.privilege_type || ' on the database to '
            || CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END
         FROM pg_database d, aclexplode(d.datacl) a WHERE d.datname = current_database() AND a.grantee <> d.datdba
         AND (a.privilege_type <> 'CONNECT'
            OR pg_get_userbyid(a.grantee) NOT IN ('gatehouse_app', 'gatehouse_admin', 'gatehouse_system'))",
    ),
];

/// What `rules` find.
pub(super) async fn faults(session: &mut PgConnection, rules: &[Rule]) -> Vec<String> {
    let mut faults = Vec::new();
    for (rule, query) in rules {
        let found: Vec<String> = sqlx::query_scalar(*query).fetch_all(&mut *session).await.unwrap();
        faults.extend(found.into_iter().map(|fault| format!("{rule}: {fault}")));
    }
    faults
}

#[tokio::test]
async fn the_catalog_has_no_hole() {
    with_db(async |db| {
        let mut root = db.root().await;
        let mut found = faults(&mut root, OF_POLICIES).await;
        found.extend(faults(&mut root, OF_GRANTS).await);
        assert_eq!(found, Vec::<String>::new(), "{}", found.join("\n"));
    })
    .await;
}

/// What somebody may do to the schema without thinking, each in a transaction of its own.
const HOLES: &[(&str, &str)] = &[
    (
        "a table without policies",
        "CREATE TABLE x (tenant_id uuid NOT NULL, id uuid, PRIMARY KEY (tenant_id, id)); ALTER TABLE x OWNER TO gatehouse_owner",
    ),
    (
        "row security that is not forced",
        "CREATE TABLE x (tenant_id uuid NOT NULL, id uuid, PRIMARY KEY (tenant_id, id)); ALTER TABLE x OWNER TO gatehouse_owner; ALTER TABLE x ENABLE ROW LEVEL SECURITY; CREATE POLICY own_tenant ON x TO gatehouse_app USING (tenant_id = (SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid)) WITH CHECK (tenant_id = (SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid))",
    ),
    (
        "a month made by hand",
        "CREATE TABLE executions_x PARTITION OF executions FOR VALUES FROM ('2039-01-01') TO ('2039-02-01'); ALTER TABLE executions_x OWNER TO gatehouse_owner",
    ),
    ("a grant on a month", "GRANT SELECT ON executions_p0 TO gatehouse_app"),
    ("a grant on a column of a month", "GRANT SELECT (id) ON executions_p0 TO gatehouse_app"),
    (
        "a view that looks as its owner",
        "CREATE VIEW x AS SELECT * FROM agents; ALTER VIEW x OWNER TO gatehouse_owner",
    ),
    (
        "a view that keeps rows",
        "CREATE MATERIALIZED VIEW x AS SELECT 1 AS one; ALTER MATERIALIZED VIEW x OWNER TO gatehouse_owner",
    ),
    (
        "a definer function without a search path",
        "CREATE FUNCTION x() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; ALTER FUNCTION x() OWNER TO gatehouse_lookup; REVOKE EXECUTE ON FUNCTION x() FROM PUBLIC",
    ),
    (
        "a definer function with a path of schemas",
        "CREATE FUNCTION x() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = public AS 'SELECT 1'; ALTER FUNCTION x() OWNER TO gatehouse_lookup; REVOKE EXECUTE ON FUNCTION x() FROM PUBLIC",
    ),
    (
        "a definer function of a superuser",
        "CREATE FUNCTION x() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = '' AS 'SELECT 1'; REVOKE EXECUTE ON FUNCTION x() FROM PUBLIC",
    ),
    (
        "a definer function for everyone",
        "CREATE FUNCTION x() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = '' AS 'SELECT 1'; ALTER FUNCTION x() OWNER TO gatehouse_lookup; GRANT EXECUTE ON FUNCTION x() TO PUBLIC",
    ),
    ("a policy for everyone", "CREATE POLICY x ON agents USING (true) WITH CHECK (true)"),
    (
        "a policy for the application beside its own",
        "CREATE POLICY x ON agents TO gatehouse_app USING (true) WITH CHECK (true)",
    ),
    (
        "a policy that asks a setting for more",
        "ALTER POLICY own_tenant ON agents USING (tenant_id = (SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid) OR current_setting('app.is_admin', true) = 'true')",
    ),
    (
        "a job's policy without its job",
        "CREATE POLICY x ON agents FOR SELECT TO gatehouse_system USING (true)",
    ),
    ("a role with BYPASSRLS", "ALTER ROLE gatehouse_app BYPASSRLS"),
    ("a role that is a superuser", "ALTER ROLE gatehouse_system SUPERUSER"),
    ("a role that is a member of another", "GRANT gatehouse_admin TO gatehouse_app"),
    ("a role that owns a table", "ALTER TABLE agents OWNER TO gatehouse_app"),
    ("a grant to everyone", "GRANT SELECT ON agents TO PUBLIC"),
    ("a grant that can be passed on", "GRANT SELECT ON agents TO gatehouse_app WITH GRANT OPTION"),
    ("a grant to empty a table", "GRANT TRUNCATE ON agents TO gatehouse_app"),
    ("a grant to make tables", "GRANT CREATE ON SCHEMA public TO gatehouse_app"),
    ("a grant to use the database", "GRANT TEMPORARY ON DATABASE CURRENT TO gatehouse_app"),
    (
        "a table whose rows may be nobody's",
        "ALTER TABLE outbox ALTER COLUMN tenant_id DROP NOT NULL",
    ),
    (
        "a key that does not begin with the tenant",
        "ALTER TABLE webhook_deliveries DROP CONSTRAINT webhook_deliveries_pkey; ALTER TABLE webhook_deliveries ADD PRIMARY KEY (id)",
    ),
    (
        "a reference without the tenant",
        "ALTER TABLE agents ADD UNIQUE (id); ALTER TABLE agent_versions ADD FOREIGN KEY (agent_id) REFERENCES agents (id)",
    ),
];

#[tokio::test]
async fn every_hole_is_found() {
    with_db(async |db| {
        let mut root = db.root().await;
        for (hole, statement) in HOLES {
            let statement =
                statement.replace("DATABASE CURRENT", &format!("DATABASE {}", db.database()));
            run(&mut root, &format!("BEGIN; {statement}")).await;
            let mut found = faults(&mut root, OF_POLICIES).await;
            found.extend(faults(&mut root, OF_GRANTS).await);
            run(&mut root, "ROLLBACK").await;
            assert!(!found.is_empty(), "{hole} is not found");
        }
    })
    .await;
}
