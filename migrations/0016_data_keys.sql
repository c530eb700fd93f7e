-- A key per tenant, under which what is personal or secret is sealed, and what it takes to erase a tenant: its key is
-- destroyed and its rows go, except for those that nobody may remove (audit, events), of which nothing can be read then.
--
-- Expand: the build before this one goes on with rows that are not sealed yet. Of those that are, it shows a placeholder
-- for an address, and cannot read an execution's input, which it therefore does not run.

CREATE TABLE data_keys (
    tenant_id uuid NOT NULL PRIMARY KEY REFERENCES tenants (id),
    -- Sealed under a key from a file; NULL once it was destroyed, after which none is made again.
    wrapped bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    destroyed_at timestamptz,
    CHECK ((wrapped IS NULL) = (destroyed_at IS NOT NULL))
);

-- An address is found by a keyed hash. Where it is sealed, the column of old holds a placeholder; it goes once no build
-- reads it.
ALTER TABLE users
    ADD COLUMN sealed_email bytea,
    ADD COLUMN email_index bytea CHECK (octet_length(email_index) = 32),
    ADD CHECK ((sealed_email IS NULL) = (email_index IS NULL)),
    ADD CHECK (sealed_email IS NULL OR email = 'sealed:' || id::text);
CREATE UNIQUE INDEX users_email_index ON users (tenant_id, email_index) WHERE NOT federated;
CREATE INDEX users_to_seal ON users (tenant_id, id) WHERE sealed_email IS NULL;

ALTER TABLE executions
    ALTER COLUMN input DROP NOT NULL,
    ADD COLUMN sealed_input bytea,
    ADD COLUMN sealed_output bytea,
    ADD CHECK (num_nonnulls(input, sealed_input) = 1),
    ADD CHECK (output IS NULL OR sealed_output IS NULL);
CREATE INDEX executions_to_seal ON executions (tenant_id, id)
    WHERE input IS NOT NULL OR (output IS NOT NULL AND state IN ('completed', 'failed', 'timeout', 'cancelled', 'dead_letter'));

-- How far a tenant's erasure is. Without a reference: it outlives everything of the tenant.
CREATE TABLE erasures (
    tenant_id uuid NOT NULL PRIMARY KEY,
    requested_at timestamptz NOT NULL DEFAULT now(),
    -- Who asked for it, under which request.
    subject text NOT NULL,
    request_id text NOT NULL,
    -- How many rows are gone.
    erased_rows bigint NOT NULL DEFAULT 0 CHECK (erased_rows >= 0),
    -- From then on nothing that is left can be read.
    key_destroyed_at timestamptz,
    -- When what Redis remembered has expired, too.
    finished_at timestamptz
);
CREATE INDEX erasures_due ON erasures (requested_at) WHERE finished_at IS NULL;

-- === Row security ===

ALTER TABLE data_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE erasures ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON data_keys TO gatehouse_app
    USING (tenant_id = (SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid))
    WITH CHECK (tenant_id = (SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid));
CREATE POLICY admin_all ON data_keys TO gatehouse_admin USING (true) WITH CHECK (true);
CREATE POLICY admin_all ON erasures TO gatehouse_admin USING (true) WITH CHECK (true);
GRANT SELECT (tenant_id, wrapped), INSERT (tenant_id, wrapped) ON data_keys TO gatehouse_app, gatehouse_admin;
GRANT SELECT, INSERT (tenant_id, subject, request_id) ON erasures TO gatehouse_admin;

GRANT INSERT (sealed_email, email_index), UPDATE (email, sealed_email, email_index) ON users TO gatehouse_app;
GRANT INSERT (sealed_email, email_index, federated) ON users TO gatehouse_admin;
GRANT INSERT (sealed_input), UPDATE (input, sealed_input, sealed_output) ON executions TO gatehouse_app;

-- rekey: what the key from the file sealed is sealed anew when another key takes over.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['data_keys', 'signing_keys', 'issuers', 'webhook_endpoints'] LOOP
        -- By verb: what another job may remove is not this one's to.
        EXECUTE format('CREATE POLICY job_rekey_reads ON %I FOR SELECT TO gatehouse_system
            USING ((SELECT current_setting(''app.current_job'', true)) = ''rekey'')', name);
        EXECUTE format('CREATE POLICY job_rekey ON %I FOR UPDATE TO gatehouse_system
            USING ((SELECT current_setting(''app.current_job'', true)) = ''rekey'')
            WITH CHECK ((SELECT current_setting(''app.current_job'', true)) = ''rekey'')', name);
    END LOOP;
END
$$;
GRANT SELECT (tenant_id, wrapped), UPDATE (wrapped, destroyed_at) ON data_keys TO gatehouse_system;
GRANT SELECT (kid, sealed_private), UPDATE (sealed_private) ON signing_keys TO gatehouse_system;
GRANT SELECT (tenant_id, id, sealed_client_secret), UPDATE (sealed_client_secret) ON issuers TO gatehouse_system;
GRANT SELECT (tenant_id, id, sealed_secret, sealed_previous_secret), UPDATE (sealed_secret, sealed_previous_secret)
    ON webhook_endpoints TO gatehouse_system;

-- sealing: whose rows may be older than this; the rows themselves are sealed through each tenant's own door.
CREATE POLICY job_sealing ON tenants FOR SELECT TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'sealing');
GRANT SELECT (id) ON tenants TO gatehouse_system;

-- erasure: removes what there is of a tenant whose erasure was asked for, and of no other. Nothing of the audit, the
-- seals and the events: of them nothing can be read once the key is gone.
DO $$
DECLARE
    name text;
    of_erased constant text := $q$(SELECT current_setting('app.current_job', true)) = 'erasure'
        AND %I.tenant_id IN (SELECT e.tenant_id FROM public.erasures e)$q$;
BEGIN
    FOREACH name IN ARRAY ARRAY['webhook_deliveries', 'webhook_endpoints', 'metering', 'executions', 'agent_versions',
        'agents', 'memberships', 'platform_memberships', 'api_keys', 'user_identities', 'sessions', 'login_attempts',
        'issuers', 'users', 'oauth_clients', 'revoked_tokens', 'token_cutoffs', 'organizations', 'tenant_config',
        'usage_counters', 'quota_alerts', 'tenant_quotas', 'idempotency_keys'] LOOP
        EXECUTE format('CREATE POLICY job_erasure ON %I TO gatehouse_system USING (' || of_erased || ') WITH CHECK ('
            || of_erased || ')', name, name, name);
        EXECUTE format('GRANT SELECT (tenant_id), DELETE ON %I TO gatehouse_system', name);
    END LOOP;
    EXECUTE format('CREATE POLICY job_erasure ON data_keys TO gatehouse_system USING (' || of_erased || ') WITH CHECK ('
        || of_erased || ' AND wrapped IS NULL)', 'data_keys', 'data_keys');
END
$$;
-- The rules of feeder and sweep are for all verbs: without this the grant above would be theirs, too.
CREATE POLICY job_erasure_alone ON executions AS RESTRICTIVE FOR DELETE TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'erasure');
CREATE POLICY job_erasure ON tenants TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'erasure'
        AND id IN (SELECT e.tenant_id FROM public.erasures e))
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'erasure'
        AND id IN (SELECT e.tenant_id FROM public.erasures e));
CREATE POLICY job_erasure ON erasures TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'erasure')
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'erasure');
GRANT SELECT (id) ON executions TO gatehouse_system;
GRANT SELECT (id) ON webhook_deliveries TO gatehouse_system;
GRANT SELECT (execution_id) ON metering TO gatehouse_system;
GRANT UPDATE (name, slug) ON tenants TO gatehouse_system;
-- A tenant that is renamed has newer facts.
GRANT USAGE ON SEQUENCE fact_epoch TO gatehouse_system;
GRANT SELECT, UPDATE (erased_rows, key_destroyed_at, finished_at) ON erasures TO gatehouse_system;
