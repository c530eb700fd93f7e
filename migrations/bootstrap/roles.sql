-- The roles of Gatehouse: once per cluster, by a superuser, before the first migration. Runs again without harm
-- and puts attributes right that someone changed. Sets no password: whoever deploys does
-- (ALTER ROLE gatehouse_app PASSWORD '…').
--
--   gatehouse_owner   owns the schema and runs migrations; no service connects as it
--   gatehouse_app     the services' ordinary door: sees the one tenant that its transaction names
--   gatehouse_admin   operations across tenants, with a reason, recorded in admin_access
--   gatehouse_system  background jobs, each with its own policy and columns (0005_system_jobs.sql)
--   gatehouse_lookup  nobody logs in as it: owns the functions that look a row up before the tenant is known,
--                     so that such a function can read those columns and nothing else
DO $$
DECLARE
    login text;
BEGIN
    FOREACH login IN ARRAY ARRAY['gatehouse_owner', 'gatehouse_app', 'gatehouse_admin', 'gatehouse_system'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = login) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', login);
        END IF;
        EXECUTE format(
            'ALTER ROLE %I LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION', login);
    END LOOP;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'gatehouse_lookup') THEN
        CREATE ROLE gatehouse_lookup NOLOGIN;
    END IF;
    ALTER ROLE gatehouse_lookup NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION;
END
$$;

-- A role must be a member of the role to which it gives a function.
GRANT gatehouse_lookup TO gatehouse_owner;
