-- What the routes of webhooks and members need beside their tables: the platform's way to webhooks, a rotation that never
-- reads a secret, people's names. And the chains of the audit that are not as they were signed, one by one.
--
-- Expand: the build before this one shows neither names nor an execution's error that is sealed, and goes on writing its own
-- in the clear, which goes before what was sealed; its sealer stops for everybody where one chain is broken, as it did.

-- === Webhooks ===

-- The secret before moves aside without being read: nobody behind a door may select either.
CREATE OR REPLACE FUNCTION keep_previous_webhook_secret() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    NEW.sealed_previous_secret := CASE WHEN NEW.previous_until IS NULL THEN NULL ELSE OLD.sealed_secret END;
    RETURN NEW;
END
$$;
DROP TRIGGER IF EXISTS keep_previous_secret ON webhook_endpoints;
-- Where a rotation says until when; sealing anew under another key of the file does not.
CREATE TRIGGER keep_previous_secret BEFORE UPDATE OF previous_until ON webhook_endpoints
    FOR EACH ROW EXECUTE FUNCTION keep_previous_webhook_secret();

-- The newest first, read backwards.
CREATE INDEX IF NOT EXISTS webhook_endpoints_page ON webhook_endpoints (tenant_id, created_at, id);
CREATE INDEX IF NOT EXISTS webhook_deliveries_page ON webhook_deliveries (tenant_id, endpoint_id, created_at, id);

-- The platform does the same to a tenant's endpoints as the tenant, and never sees what they are told.
DROP POLICY IF EXISTS admin_all ON webhook_endpoints;
CREATE POLICY admin_all ON webhook_endpoints TO gatehouse_admin USING (true) WITH CHECK (true);
DROP POLICY IF EXISTS admin_reads ON webhook_deliveries;
CREATE POLICY admin_reads ON webhook_deliveries FOR SELECT TO gatehouse_admin USING (true);
GRANT SELECT (tenant_id, id, url, description, events, previous_until, enabled, revision, created_at, updated_at),
    INSERT (tenant_id, id, url, description, events, sealed_secret, enabled),
    UPDATE (url, description, events, sealed_secret, previous_until, enabled, revision, updated_at),
    DELETE ON webhook_endpoints TO gatehouse_admin;
REVOKE UPDATE (sealed_previous_secret) ON webhook_endpoints FROM gatehouse_app;
GRANT SELECT (tenant_id, id, endpoint_id, event_id, event_kind, state, attempt, due_at, last_status, created_at,
    delivered_at) ON webhook_deliveries TO gatehouse_admin;

-- === Names of people, and what an agent said when it failed: sealed under the tenant's data key ===

ALTER TABLE users ADD COLUMN IF NOT EXISTS sealed_name bytea CHECK (octet_length(sealed_name) <= 4096);
GRANT INSERT (sealed_name), UPDATE (sealed_name) ON users TO gatehouse_app, gatehouse_admin;
GRANT UPDATE (name) ON oauth_clients TO gatehouse_app, gatehouse_admin;

ALTER TABLE executions ADD COLUMN IF NOT EXISTS sealed_error bytea;
GRANT UPDATE (sealed_error) ON executions TO gatehouse_app;
DROP INDEX IF EXISTS executions_to_seal;
CREATE INDEX executions_to_seal ON executions (tenant_id, id)
    WHERE input IS NOT NULL OR ((output IS NOT NULL OR error IS NOT NULL)
        AND state IN ('completed', 'failed', 'timeout', 'cancelled', 'dead_letter'));

-- === Chains of the audit that are not as they were signed ===
-- Their tenants' rows wait; those of all others are sealed. A row goes once the chain is as it was and what waited is sealed.

CREATE TABLE IF NOT EXISTS audit_breaks (
    tenant_id uuid NOT NULL PRIMARY KEY REFERENCES tenants (id),
    why text NOT NULL CHECK (length(why) BETWEEN 1 AND 1000),
    found_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE audit_breaks ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_breaks FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS own_tenant ON audit_breaks;
CREATE POLICY own_tenant ON audit_breaks FOR SELECT TO gatehouse_app
    USING (tenant_id = (SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid));
DROP POLICY IF EXISTS admin_all ON audit_breaks;
CREATE POLICY admin_all ON audit_breaks FOR SELECT TO gatehouse_admin USING (true);
DROP POLICY IF EXISTS job_sealer ON audit_breaks;
CREATE POLICY job_sealer ON audit_breaks TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'sealer')
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'sealer');
GRANT SELECT ON audit_breaks TO gatehouse_app, gatehouse_admin;
GRANT SELECT, INSERT (tenant_id, why), DELETE ON audit_breaks TO gatehouse_system;
