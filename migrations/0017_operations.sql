-- What takes longer than an answer (operations), what is counted against quotas from now on, and slugs that are never
-- given twice.
--
-- Expand: the build before this one neither reads nor writes any of it. What it makes meanwhile is not counted.

-- === Operations ===

-- What was asked for and what of it tells that it is done: a row of the outbox, or the tenant's erasure. Nothing here is
-- changed but `relayed_at`, which outlives its row of the outbox. Of a deleted tenant it stays, as `erasures` does.
CREATE TABLE IF NOT EXISTS operations (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('tenant.create', 'tenant.suspend', 'tenant.resume', 'tenant.delete')),
    -- The change that has to reach whoever remembers facts; NULL where nothing changed.
    outbox_id bigint,
    relayed_at timestamptz,
    subject text NOT NULL,
    request_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);
-- The platform looks across tenants.
CREATE UNIQUE INDEX IF NOT EXISTS operations_id ON operations (id);
CREATE INDEX IF NOT EXISTS operations_page ON operations (created_at, id);
CREATE INDEX IF NOT EXISTS operations_of_outbox ON operations (outbox_id) WHERE relayed_at IS NULL;
-- A tenant is deleted once, however often that is asked for.
CREATE UNIQUE INDEX IF NOT EXISTS operations_delete ON operations (tenant_id) WHERE kind = 'tenant.delete';
CREATE INDEX IF NOT EXISTS tenants_page ON tenants (created_at, id);

ALTER TABLE operations ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS admin_all ON operations;
CREATE POLICY admin_all ON operations TO gatehouse_admin USING (true) WITH CHECK (true);
GRANT SELECT, INSERT (tenant_id, id, kind, outbox_id, subject, request_id) ON operations TO gatehouse_admin;
-- Whether a change was relayed, and nothing of what it says.
GRANT SELECT (id, tenant_id, kind, relayed_at) ON outbox TO gatehouse_admin;
-- The relay says when, before it forgets the row that says so.
DROP POLICY IF EXISTS job_relay ON operations;
CREATE POLICY job_relay ON operations TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'relay')
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'relay');
GRANT SELECT (outbox_id, relayed_at), UPDATE (relayed_at) ON operations TO gatehouse_system;

-- === A slug is given once ===
-- A deleted tenant's name and slug are erased; the hash keeps the slug from being given to somebody else, who would be
-- taken for the one before.

ALTER TABLE tenants ADD COLUMN IF NOT EXISTS slug_sha256 bytea;
ALTER TABLE tenants NO FORCE ROW LEVEL SECURITY;
UPDATE tenants SET slug_sha256 = sha256(convert_to(slug, 'UTF8')) WHERE slug_sha256 IS NULL;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
CREATE OR REPLACE FUNCTION keep_slug() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    NEW.slug_sha256 := pg_catalog.sha256(pg_catalog.convert_to(NEW.slug, 'UTF8'));
    RETURN NEW;
END
$$;
DROP TRIGGER IF EXISTS keep_slug ON tenants;
CREATE TRIGGER keep_slug BEFORE INSERT ON tenants FOR EACH ROW EXECUTE FUNCTION keep_slug();
CREATE UNIQUE INDEX IF NOT EXISTS tenants_slug_given ON tenants (slug_sha256);

-- === What is counted ===

ALTER TABLE usage_counters DROP CONSTRAINT IF EXISTS usage_counters_quota_check;
ALTER TABLE usage_counters ADD CONSTRAINT usage_counters_quota_check CHECK (quota IN
    ('agents', 'storage_bytes', 'executions', 'compute_minutes', 'tokens', 'queued_executions'));
-- Stored bytes are counted by the month of their execution, so that they go with it.
ALTER TABLE agents NO FORCE ROW LEVEL SECURITY;
ALTER TABLE executions NO FORCE ROW LEVEL SECURITY;
ALTER TABLE usage_counters NO FORCE ROW LEVEL SECURITY;
INSERT INTO usage_counters (tenant_id, quota, day, used)
    SELECT tenant_id, 'agents', '1970-01-01', count(*) FROM agents WHERE deleted_at IS NULL GROUP BY tenant_id
    ON CONFLICT (tenant_id, quota, day) DO UPDATE SET used = excluded.used;
INSERT INTO usage_counters (tenant_id, quota, day, used)
    SELECT tenant_id, 'storage_bytes', date_trunc('month', created_at AT TIME ZONE 'UTC')::date,
        sum(coalesce(octet_length(sealed_input), octet_length(input::text), 0)
            + coalesce(octet_length(sealed_output), octet_length(output::text), 0))
    FROM executions GROUP BY 1, 3
    ON CONFLICT (tenant_id, quota, day) DO UPDATE SET used = excluded.used;
ALTER TABLE agents FORCE ROW LEVEL SECURITY;
ALTER TABLE executions FORCE ROW LEVEL SECURITY;
ALTER TABLE usage_counters FORCE ROW LEVEL SECURITY;
-- How many wait is counted where the bound is near (crates/store/src/usage.rs).
CREATE INDEX IF NOT EXISTS executions_of_queue ON executions (tenant_id) WHERE state IN ('pending', 'queued', 'retry');
-- The job that drops months takes the bytes that were counted in them along; of everything else it sees nothing.
DROP POLICY IF EXISTS job_partitions ON usage_counters;
CREATE POLICY job_partitions ON usage_counters TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'partitions'
        AND quota NOT IN ('agents', 'executions', 'compute_minutes', 'tokens', 'queued_executions'))
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'partitions'
        AND quota NOT IN ('agents', 'executions', 'compute_minutes', 'tokens', 'queued_executions'));
GRANT SELECT (tenant_id, quota, day) ON usage_counters TO gatehouse_system;

-- === Alerts ===
-- The platform reads what was told; who tells it is the tenant's own transaction, once per window.

DROP POLICY IF EXISTS admin_all ON quota_alerts;
CREATE POLICY admin_all ON quota_alerts TO gatehouse_admin USING (true) WITH CHECK (true);
GRANT SELECT ON quota_alerts TO gatehouse_admin;
