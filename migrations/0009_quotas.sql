-- What a tenant's record says of its limits where they differ from its tier's (MTD-003, GRL-002), and what was told
-- of quotas that run out. One row per tenant: what else is bounded (agents, storage, compute) becomes columns here.
-- Adds only: the build before this one neither reads nor writes any of it.

CREATE TABLE tenant_quotas (
    tenant_id uuid NOT NULL PRIMARY KEY REFERENCES tenants (id),
    -- Of every limit: NULL is the tier's, 0 blocks. The bounds are those of the stores that count.
    requests_per_window bigint CHECK (requests_per_window BETWEEN 0 AND 16777215),
    -- At most this many times the tenant's limit ÷ window seconds in any second; 0 is off.
    burst_multiplier integer CHECK (burst_multiplier BETWEEN 0 AND 1000),
    -- API calls per UTC day.
    max_api_calls bigint CHECK (max_api_calls BETWEEN 0 AND 4294967295),
    -- contract::sidecar::EndpointOverride, each (method, route) once.
    endpoint_limits jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(endpoint_limits) = 'array'),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- A quota that was found to run out: once per window, whoever found it and however often (RES-004).
CREATE TABLE quota_alerts (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    quota text NOT NULL CHECK (quota IN ('api_calls')),
    -- The part that was used, in percent.
    percent smallint NOT NULL CHECK (percent BETWEEN 1 AND 100),
    -- The UTC day.
    day date NOT NULL,
    used bigint NOT NULL CHECK (used >= 0),
    quota_limit bigint NOT NULL CHECK (quota_limit >= 0),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, quota, day, percent)
);

-- === Row security ===

DO $$
DECLARE
    name text;
    ours constant text := $q$(SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid)$q$;
BEGIN
    FOREACH name IN ARRAY ARRAY['tenant_quotas', 'quota_alerts'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY own_tenant ON %I TO gatehouse_app USING (tenant_id = %s) WITH CHECK (tenant_id = %s)',
            name, ours, ours);
    END LOOP;
END
$$;
CREATE POLICY admin_all ON tenant_quotas TO gatehouse_admin USING (true) WITH CHECK (true);

-- A tenant reads its limits; only the platform changes them. Nobody takes a row away: without overrides its members
-- are NULL.
GRANT SELECT ON tenant_quotas TO gatehouse_app;
GRANT SELECT,
    INSERT (tenant_id, requests_per_window, burst_multiplier, max_api_calls, endpoint_limits),
    UPDATE (requests_per_window, burst_multiplier, max_api_calls, endpoint_limits, updated_at)
    ON tenant_quotas TO gatehouse_admin;
GRANT SELECT, INSERT (tenant_id, quota, percent, day, used, quota_limit) ON quota_alerts TO gatehouse_app;

-- === Look-ups ===

GRANT SELECT (tenant_id, requests_per_window, burst_multiplier, max_api_calls, endpoint_limits) ON tenant_quotas
    TO gatehouse_lookup;
CREATE POLICY look_up ON tenant_quotas FOR SELECT TO gatehouse_lookup USING (true);

-- Beside the other look-ups in one statement: a function of its own, so that what they return stays as it is.
CREATE FUNCTION lookup_tenant_limits(tenant uuid)
RETURNS TABLE (requests_per_window bigint, burst_multiplier integer, max_api_calls bigint, endpoint_limits jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' ROWS 1 AS $$
    SELECT q.requests_per_window, q.burst_multiplier, q.max_api_calls, q.endpoint_limits
    FROM public.tenant_quotas q WHERE q.tenant_id = tenant
$$;
GRANT CREATE ON SCHEMA public TO gatehouse_lookup;
ALTER FUNCTION lookup_tenant_limits(uuid) OWNER TO gatehouse_lookup;
REVOKE CREATE ON SCHEMA public FROM gatehouse_lookup;
REVOKE EXECUTE ON FUNCTION lookup_tenant_limits(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lookup_tenant_limits(uuid) TO gatehouse_app;
