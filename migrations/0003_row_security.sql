-- Row security on every table, forced: the owner is under it, too. What a role has no policy for, it cannot see.
-- The tenant comes from a setting that lives as long as the transaction. After one has ended the setting is the
-- empty string and not NULL, hence NULLIF; the sub-select makes the planner evaluate it once per query.

DO $$
DECLARE
    name text;
    ours constant text := $q$(SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid)$q$;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'tenants', 'users', 'oauth_clients', 'memberships', 'platform_memberships', 'tenant_audit', 'admin_access',
        'signing_keys', 'agents', 'agent_versions', 'executions', 'worker_heartbeats'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY[
        'users', 'oauth_clients', 'memberships', 'tenant_audit', 'agents', 'agent_versions', 'executions'] LOOP
        EXECUTE format(
            'CREATE POLICY own_tenant ON %I TO gatehouse_app USING (tenant_id = %s) WITH CHECK (tenant_id = %s)',
            name, ours, ours);
    END LOOP;
    EXECUTE format(
        'CREATE POLICY own_tenant ON tenants TO gatehouse_app USING (id = %s) WITH CHECK (id = %s)', ours, ours);
    -- The admin door writes its own trace, platform keys, and tenants with their people; it has no way to agents
    -- and executions.
    FOREACH name IN ARRAY ARRAY[
        'tenants', 'users', 'oauth_clients', 'memberships', 'platform_memberships', 'tenant_audit', 'admin_access',
        'signing_keys'] LOOP
        EXECUTE format('CREATE POLICY admin_all ON %I TO gatehouse_admin USING (true) WITH CHECK (true)', name);
    END LOOP;
END
$$;

-- === What the application may touch ===
GRANT SELECT ON tenants TO gatehouse_app;
GRANT SELECT, INSERT (tenant_id, id, email) ON users TO gatehouse_app;
-- The secret's hash can be written and never read; it is compared through a look-up (0004).
GRANT SELECT (tenant_id, id, name, created_at, secret_changed_at),
    INSERT (tenant_id, id, name, secret_sha256) ON oauth_clients TO gatehouse_app;
GRANT SELECT, INSERT (tenant_id, user_id, client_id, role) ON memberships TO gatehouse_app;
GRANT SELECT, INSERT (tenant_id, subject, request_id, action, target_kind, target_id) ON tenant_audit
    TO gatehouse_app;
GRANT SELECT, INSERT (tenant_id, id, name, description), UPDATE (deleted_at) ON agents TO gatehouse_app;
GRANT SELECT, INSERT (tenant_id, id, agent_id, version, image) ON agent_versions TO gatehouse_app;
GRANT SELECT,
    INSERT (tenant_id, id, agent_id, agent_version_id, priority, timeout_s, max_attempts, input, created_by),
    UPDATE (state, lease_epoch, attempt, worker, output, end_reason, error, queued_at, started_at, completed_at,
        due_at)
    ON executions TO gatehouse_app;
GRANT USAGE ON SEQUENCE fact_epoch TO gatehouse_app, gatehouse_admin;

-- === What the admin door may touch ===
GRANT SELECT, INSERT (id, slug, name, tier, status), UPDATE (name, tier, status) ON tenants
    TO gatehouse_admin;
GRANT SELECT, INSERT (tenant_id, id, email) ON users TO gatehouse_admin;
GRANT SELECT (tenant_id, id, name, created_at, secret_changed_at),
    INSERT (tenant_id, id, name, secret_sha256), UPDATE (secret_sha256, secret_changed_at)
    ON oauth_clients TO gatehouse_admin;
GRANT SELECT, INSERT (tenant_id, user_id, client_id, role) ON memberships TO gatehouse_admin;
GRANT SELECT, INSERT (tenant_id, user_id, client_id) ON platform_memberships TO gatehouse_admin;
GRANT SELECT, INSERT (tenant_id, subject, request_id, action, target_kind, target_id, reason) ON tenant_audit
    TO gatehouse_admin;
GRANT SELECT, INSERT (tenant_id, subject, request_id, reason) ON admin_access TO gatehouse_admin;
GRANT SELECT (kid, algorithm, public_jwk, created_at, retired_at, publish_until),
    INSERT (kid, algorithm, public_jwk, sealed_private), UPDATE (retired_at, publish_until)
    ON signing_keys TO gatehouse_admin;
