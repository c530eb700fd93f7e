-- What a tenant is beside its record (organizations, configuration, quotas, usage), what happened in it (events,
-- metering), whom it tells (webhooks); and monthly partitions for the four tables that grow without end.
--
-- Expand: every statement of the build before this one works as it did. Executions and the audit keep their rows: the
-- table that was there becomes the first partition, without a copy.

-- === Organizations: a tree within a tenant ===

CREATE TABLE organizations (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    -- NULL is a root; a tenant may have several.
    parent_id uuid,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    -- Grows with every change: what `If-Match` names.
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, parent_id) REFERENCES organizations (tenant_id, id),
    UNIQUE NULLS NOT DISTINCT (tenant_id, parent_id, name)
);

-- Whoever puts an organization below another waits for everybody else of the tenant who does, and then looks: the
-- ancestors that it finds are those of the committed tree. A snapshot from before the wait would miss the other's move.
CREATE FUNCTION keep_organizations_a_tree() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    -- Levels of a tree; the root is the first.
    deepest constant integer := 8;
    above integer;
    below integer;
    loops boolean;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_transaction_state',
            MESSAGE = 'organizations are moved under READ COMMITTED alone';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('gatehouse organizations ' || NEW.tenant_id, 0));
    WITH RECURSIVE up AS (
        SELECT o.id, o.parent_id, 1 AS level FROM public.organizations o
        WHERE o.tenant_id = NEW.tenant_id AND o.id = NEW.parent_id
        UNION ALL
        SELECT o.id, o.parent_id, up.level + 1 FROM up
        JOIN public.organizations o ON o.tenant_id = NEW.tenant_id AND o.id = up.parent_id
        WHERE up.level <= deepest AND up.id <> NEW.id
    )
    SELECT coalesce(max(level), 0), coalesce(bool_or(id = NEW.id), false) INTO above, loops FROM up;
    -- An organization that names itself is not in the table yet when it is made.
    IF loops OR NEW.parent_id = NEW.id THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'organizations_no_cycle',
            MESSAGE = 'an organization cannot be below itself';
    END IF;
    WITH RECURSIVE down AS (
        SELECT NEW.id AS id, 1 AS level
        UNION ALL
        SELECT o.id, down.level + 1 FROM down
        JOIN public.organizations o ON o.tenant_id = NEW.tenant_id AND o.parent_id = down.id
        WHERE down.level <= deepest
    )
    SELECT max(level) INTO below FROM down;
    IF above + below > deepest THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'organizations_depth',
            MESSAGE = format('organizations have at most %s levels', deepest);
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER keep_a_tree BEFORE INSERT OR UPDATE OF parent_id ON organizations
    FOR EACH ROW EXECUTE FUNCTION keep_organizations_a_tree();

-- === Configuration: a document under a versioned schema; without a row it is empty ===

CREATE TABLE tenant_config (
    tenant_id uuid NOT NULL PRIMARY KEY REFERENCES tenants (id),
    -- Of the JSON Schema that the document was last judged by.
    schema_version integer NOT NULL CHECK (schema_version >= 1),
    document jsonb NOT NULL CHECK (jsonb_typeof(document) = 'object' AND octet_length(document::text) <= 65536),
    revision bigint NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- === Quotas: one row per tenant, in the one table that has them ===
-- NULL is the tier's, so that another tier counts at once; what stands here goes before it. 0 blocks.

ALTER TABLE tenant_quotas
    ADD COLUMN max_agents bigint CHECK (max_agents >= 0),
    ADD COLUMN max_storage_bytes bigint CHECK (max_storage_bytes >= 0),
    ADD COLUMN max_executions_per_day bigint CHECK (max_executions_per_day >= 0),
    ADD COLUMN max_compute_minutes_per_day bigint CHECK (max_compute_minutes_per_day >= 0),
    ADD COLUMN max_tokens_per_day bigint CHECK (max_tokens_per_day >= 0),
    ADD COLUMN max_concurrent_executions bigint CHECK (max_concurrent_executions >= 0),
    ADD COLUMN max_queued_executions bigint CHECK (max_queued_executions >= 0);

-- In the transaction that makes the tenant, whoever makes it.
CREATE FUNCTION make_tenant_quotas() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    INSERT INTO public.tenant_quotas (tenant_id) VALUES (NEW.id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER make_quotas AFTER INSERT ON tenants
    FOR EACH ROW EXECUTE FUNCTION make_tenant_quotas();
-- Those that are there already. The owner is under row security, too; nobody else sees these tables meanwhile.
ALTER TABLE tenants NO FORCE ROW LEVEL SECURITY;
ALTER TABLE tenant_quotas NO FORCE ROW LEVEL SECURITY;
INSERT INTO tenant_quotas (tenant_id) SELECT id FROM tenants ON CONFLICT DO NOTHING;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
ALTER TABLE tenant_quotas FORCE ROW LEVEL SECURITY;

ALTER TABLE quota_alerts DROP CONSTRAINT quota_alerts_quota_check;
ALTER TABLE quota_alerts ADD CONSTRAINT quota_alerts_quota_check CHECK (quota IN
    ('api_calls', 'agents', 'storage_bytes', 'executions', 'compute_minutes', 'tokens'));

-- What is counted against a quota, in the transaction that uses it.
CREATE TABLE usage_counters (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    quota text NOT NULL CHECK (quota IN ('agents', 'storage_bytes', 'executions', 'compute_minutes', 'tokens')),
    -- The UTC day; 1970-01-01 for what does not begin anew.
    day date NOT NULL,
    used bigint NOT NULL CHECK (used >= 0),
    PRIMARY KEY (tenant_id, quota, day)
);

-- === Webhooks ===

CREATE TABLE webhook_endpoints (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    url text NOT NULL CHECK (url ~ '^https://' AND length(url) <= 2048),
    description text CHECK (length(description) <= 2000),
    -- The kinds of events that it is told of.
    events text[] NOT NULL CHECK (cardinality(events) BETWEEN 1 AND 64),
    -- Sealed by the control API under a key from a file. The one before it signs, too, until its time is over.
    sealed_secret bytea NOT NULL,
    sealed_previous_secret bytea,
    previous_until timestamptz,
    enabled boolean NOT NULL DEFAULT true,
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    CHECK ((sealed_previous_secret IS NULL) = (previous_until IS NULL))
);

CREATE TABLE webhook_deliveries (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    endpoint_id uuid NOT NULL,
    event_id uuid NOT NULL,
    event_kind text NOT NULL CHECK (length(event_kind) BETWEEN 1 AND 100),
    -- Sealed under the tenant's data key.
    sealed_payload bytea NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
    attempt integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    due_at timestamptz NOT NULL DEFAULT now(),
    last_status integer CHECK (last_status BETWEEN 100 AND 599),
    last_error text CHECK (length(last_error) <= 500),
    created_at timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    -- An endpoint is told of an event once.
    UNIQUE (tenant_id, endpoint_id, event_id),
    FOREIGN KEY (tenant_id, endpoint_id) REFERENCES webhook_endpoints (tenant_id, id) ON DELETE CASCADE
);
-- The job looks across tenants.
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (due_at) WHERE state = 'pending';

-- === Events ===

-- How far an aggregate is. Unique numbers cannot be had from the events' own index, which is one per month: the lock on
-- this row gives them, and only the triggers below say what they are.
CREATE TABLE event_heads (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    aggregate_kind text NOT NULL CHECK (aggregate_kind ~ '^[a-z][a-z_]{0,39}$'),
    aggregate_id uuid NOT NULL,
    seq bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, aggregate_kind, aggregate_id)
);
CREATE FUNCTION step_event_head() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    NEW.seq := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE OLD.seq + 1 END;
    RETURN NEW;
END
$$;
CREATE TRIGGER step BEFORE INSERT OR UPDATE ON event_heads
    FOR EACH ROW EXECUTE FUNCTION step_event_head();

CREATE TABLE event_store (
    tenant_id uuid NOT NULL,
    aggregate_kind text NOT NULL,
    aggregate_id uuid NOT NULL,
    -- 1 is the first; without gaps.
    seq bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    id uuid NOT NULL,
    kind text NOT NULL CHECK (length(kind) BETWEEN 1 AND 100),
    -- Of the payload's schema.
    schema_version integer NOT NULL CHECK (schema_version >= 1),
    -- Sealed under the tenant's data key.
    sealed_payload bytea NOT NULL CHECK (octet_length(sealed_payload) <= 1048576),
    subject text NOT NULL,
    request_id text NOT NULL,
    PRIMARY KEY (tenant_id, aggregate_kind, aggregate_id, seq, at),
    FOREIGN KEY (tenant_id, aggregate_kind, aggregate_id)
        REFERENCES event_heads (tenant_id, aggregate_kind, aggregate_id)
) PARTITION BY RANGE (at);

-- The number of an event is its aggregate's next one. Its time was read before the lock was had: a state at a time is
-- rebuilt from all events up to the highest number that has come by then.
CREATE FUNCTION number_event() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    INSERT INTO public.event_heads AS h (tenant_id, aggregate_kind, aggregate_id)
    VALUES (NEW.tenant_id, NEW.aggregate_kind, NEW.aggregate_id)
    ON CONFLICT (tenant_id, aggregate_kind, aggregate_id) DO UPDATE SET seq = h.seq
    RETURNING h.seq INTO NEW.seq;
    RETURN NEW;
END
$$;
CREATE TRIGGER number_it BEFORE INSERT ON event_store
    FOR EACH ROW EXECUTE FUNCTION number_event();

-- === Metering: what an attempt cost ===

CREATE TABLE metering (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    execution_id uuid NOT NULL,
    attempt integer NOT NULL CHECK (attempt >= 1),
    -- When the attempt began, as its claim has it: a report that comes twice is the same row.
    at timestamptz NOT NULL,
    agent_id uuid NOT NULL,
    wall_ms bigint NOT NULL CHECK (wall_ms >= 0),
    cpu_ms bigint NOT NULL CHECK (cpu_ms >= 0),
    peak_memory_bytes bigint NOT NULL CHECK (peak_memory_bytes >= 0),
    tokens bigint NOT NULL CHECK (tokens >= 0),
    egress_requests bigint NOT NULL CHECK (egress_requests >= 0),
    PRIMARY KEY (tenant_id, execution_id, attempt, at)
) PARTITION BY RANGE (at);
CREATE INDEX metering_newest ON metering (tenant_id, at DESC);

-- === Executions and the audit, by month ===
-- The key has the month's column in it, as PostgreSQL wants it; ids are the control API's and random, so that none
-- comes twice. Their index is looked into once per month that is kept.

ALTER TABLE executions RENAME TO executions_p0;
ALTER INDEX executions_newest RENAME TO executions_p0_newest;
ALTER INDEX executions_version RENAME TO executions_p0_version;
ALTER INDEX executions_waiting RENAME TO executions_p0_waiting;
ALTER INDEX executions_held RENAME TO executions_p0_held;
ALTER TABLE executions_p0 DROP CONSTRAINT executions_pkey;
DROP TRIGGER notify_pending ON executions_p0;
DROP POLICY job_feeder ON executions_p0;
DROP POLICY job_sweep ON executions_p0;
CREATE TABLE executions (LIKE executions_p0 INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
    PARTITION BY RANGE (created_at);
ALTER TABLE executions
    ADD PRIMARY KEY (tenant_id, id, created_at),
    ADD CONSTRAINT executions_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id),
    ADD CONSTRAINT executions_tenant_id_agent_id_agent_version_id_fkey
        FOREIGN KEY (tenant_id, agent_id, agent_version_id) REFERENCES agent_versions (tenant_id, agent_id, id);
CREATE INDEX executions_newest ON executions (tenant_id, created_at DESC, id);
CREATE INDEX executions_version ON executions (tenant_id, agent_id, agent_version_id);
-- The jobs look across tenants: the only indexes that do not start with the tenant.
CREATE INDEX executions_waiting ON executions (priority, created_at) WHERE state IN ('pending', 'retry');
CREATE INDEX executions_held ON executions (state, worker) WHERE state IN ('queued', 'running');
CREATE TRIGGER notify_pending AFTER INSERT ON executions
    FOR EACH STATEMENT EXECUTE FUNCTION notify_pending();

-- Its numbers go on where they are: whoever reads the audit in order reads it by them.
ALTER TABLE tenant_audit RENAME TO tenant_audit_p0;
ALTER TABLE tenant_audit_p0 DROP CONSTRAINT tenant_audit_pkey;
ALTER TABLE tenant_audit_p0 ALTER COLUMN id DROP IDENTITY;
CREATE TABLE tenant_audit (LIKE tenant_audit_p0 INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (at);
ALTER TABLE tenant_audit
    ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY,
    ADD PRIMARY KEY (tenant_id, id, at),
    ADD CONSTRAINT tenant_audit_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id);
ALTER TABLE tenant_audit_p0 NO FORCE ROW LEVEL SECURITY;
SELECT setval('tenant_audit_id_seq', coalesce(max(id), 0) + 1, false) FROM tenant_audit_p0;
ALTER TABLE tenant_audit_p0 FORCE ROW LEVEL SECURITY;
DROP POLICY admin_all ON tenant_audit_p0;

DO $$
DECLARE
    name text;
    -- No row is younger than this migration.
    month text := to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month', 'YYYY-MM-DD');
BEGIN
    FOREACH name IN ARRAY ARRAY['executions', 'tenant_audit'] LOOP
        EXECUTE format('REVOKE ALL ON %I FROM gatehouse_app, gatehouse_admin, gatehouse_system', name || '_p0');
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%L)',
            name, name || '_p0', month || ' 00:00:00+00');
    END LOOP;
END
$$;

-- === Partitions: made ahead, dropped when their time is over ===

CREATE TABLE partition_rules (
    parent text PRIMARY KEY CHECK (parent IN ('executions', 'event_store', 'metering', 'tenant_audit')),
    -- Whole months that a partition is kept after its last one; NULL is for ever.
    keep_months integer CHECK (keep_months BETWEEN 1 AND 1200)
);
-- Events are what states are rebuilt from: none is dropped unless somebody says so.
INSERT INTO partition_rules (parent, keep_months) VALUES
    ('executions', 13), ('event_store', NULL), ('metering', 25), ('tenant_audit', 84);

-- Makes the partitions of this month and the three after it, drops those whose months are over, and says which. Nothing
-- that it runs comes from outside: the tables are those of the rules, whose names are a closed list.
CREATE FUNCTION maintain_partitions() RETURNS TABLE (partition_name text, was_made boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET timezone = 'UTC' SET lock_timeout = '3s' AS $$
DECLARE
    ahead constant interval := interval '4 months';
    ours constant text :=
        $q$(SELECT NULLIF(pg_catalog.current_setting('app.current_tenant_id', true), '')::pg_catalog.uuid)$q$;
    rule record;
    part record;
    till timestamptz;
    lower_bound text;
BEGIN
    IF current_setting('app.current_job', true) IS DISTINCT FROM 'partitions' THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the job of partitions may';
    END IF;
    -- One at a time: who comes second finds everything done.
    PERFORM pg_advisory_xact_lock(hashtextextended('gatehouse partitions', 0));
    FOR rule IN SELECT r.parent, r.keep_months FROM public.partition_rules r ORDER BY r.parent LOOP
        SELECT max(substring(pg_get_expr(c.relpartbound, c.oid) FROM $r$TO \('([^']+)'\)$r$)::timestamptz) INTO till
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = ('public.' || quote_ident(rule.parent))::regclass;
        WHILE till IS NULL OR till < date_trunc('month', now()) + ahead LOOP
            IF till IS NULL THEN
                -- The first takes everything that is older, too.
                partition_name := rule.parent || '_p0';
                lower_bound := 'MINVALUE';
                till := date_trunc('month', now()) + interval '1 month';
            ELSE
                partition_name := rule.parent || to_char(till, '_YYYY_MM');
                lower_bound := quote_literal(till);
                till := till + interval '1 month';
            END IF;
            -- Made beside its parent, which is not locked against readers and writers while it is attached.
            EXECUTE format(
                'CREATE TABLE public.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED)',
                partition_name, rule.parent);
            -- Nobody is granted anything on it; should somebody be, it is under the same rule as its parent.
            EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', partition_name);
            EXECUTE format('CREATE POLICY own_tenant ON public.%I TO gatehouse_app
                USING (tenant_id = %s) WITH CHECK (tenant_id = %s)', partition_name, ours, ours);
            EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%s) TO (%L)',
                rule.parent, partition_name, lower_bound, till);
            was_made := true;
            RETURN NEXT;
        END LOOP;
        FOR part IN
            SELECT c.relname,
                substring(pg_get_expr(c.relpartbound, c.oid) FROM $r$TO \('([^']+)'\)$r$)::timestamptz AS ends
            FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = ('public.' || quote_ident(rule.parent))::regclass
            ORDER BY 2
        LOOP
            IF part.ends + make_interval(months => rule.keep_months) <= date_trunc('month', now()) THEN
                EXECUTE format('ALTER TABLE public.%I DETACH PARTITION public.%I', rule.parent, part.relname);
                EXECUTE format('DROP TABLE public.%I', part.relname);
                partition_name := part.relname;
                was_made := false;
                RETURN NEXT;
            END IF;
        END LOOP;
    END LOOP;
END
$$;
REVOKE EXECUTE ON FUNCTION maintain_partitions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION maintain_partitions() TO gatehouse_system;

-- === Row security ===

DO $$
DECLARE
    name text;
    ours constant text := $q$(SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid)$q$;
BEGIN
    FOREACH name IN ARRAY ARRAY['organizations', 'tenant_config', 'usage_counters', 'webhook_endpoints',
        'webhook_deliveries', 'event_heads', 'event_store', 'metering', 'executions', 'tenant_audit'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY own_tenant ON %I TO gatehouse_app USING (tenant_id = %s) WITH CHECK (tenant_id = %s)',
            name, ours, ours);
    END LOOP;
    ALTER TABLE partition_rules ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    FOREACH name IN ARRAY ARRAY[
        'organizations', 'tenant_config', 'usage_counters', 'tenant_audit', 'partition_rules'] LOOP
        EXECUTE format('CREATE POLICY admin_all ON %I TO gatehouse_admin USING (true) WITH CHECK (true)', name);
    END LOOP;
END
$$;
-- The function above runs as its owner, who is under row security, too.
CREATE POLICY read_rules ON partition_rules FOR SELECT TO gatehouse_owner USING (true);

-- feeder and sweep as in 0005.
CREATE POLICY job_feeder ON executions TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'feeder'
        AND state IN ('pending', 'retry', 'queued'))
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'feeder' AND state = 'queued');
CREATE POLICY job_sweep ON executions TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'sweep'
        AND state IN ('queued', 'running', 'pending', 'dead_letter'))
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'sweep'
        AND state IN ('queued', 'pending', 'dead_letter'));

-- What was granted on the two tables before, on what carries their names now.
GRANT SELECT, INSERT (tenant_id, subject, request_id, action, target_kind, target_id) ON tenant_audit
    TO gatehouse_app;
GRANT SELECT, INSERT (tenant_id, subject, request_id, action, target_kind, target_id, reason) ON tenant_audit
    TO gatehouse_admin;
GRANT SELECT,
    INSERT (tenant_id, id, agent_id, agent_version_id, priority, timeout_s, max_attempts, input, created_by),
    UPDATE (state, lease_epoch, attempt, worker, output, end_reason, error, queued_at, started_at, completed_at,
        due_at)
    ON executions TO gatehouse_app;
GRANT SELECT (tenant_id, id, state, priority, created_at, due_at, attempt, max_attempts, worker, queued_at),
    UPDATE (state, queued_at, end_reason, error, completed_at) ON executions TO gatehouse_system;

-- The two doors do the same to organizations and configuration.
GRANT SELECT, INSERT (tenant_id, id, parent_id, name), UPDATE (parent_id, name, revision, updated_at), DELETE
    ON organizations TO gatehouse_app, gatehouse_admin;
GRANT SELECT, INSERT (tenant_id, schema_version, document), UPDATE (schema_version, document, revision, updated_at)
    ON tenant_config TO gatehouse_app, gatehouse_admin;
-- A tenant's limits are the platform's to set; what is used, the tenant's own transactions count.
GRANT INSERT (max_agents, max_storage_bytes, max_executions_per_day, max_compute_minutes_per_day, max_tokens_per_day,
        max_concurrent_executions, max_queued_executions),
    UPDATE (max_agents, max_storage_bytes, max_executions_per_day, max_compute_minutes_per_day, max_tokens_per_day,
        max_concurrent_executions, max_queued_executions)
    ON tenant_quotas TO gatehouse_admin;
GRANT SELECT, INSERT (tenant_id, quota, day, used), UPDATE (used) ON usage_counters TO gatehouse_app;
GRANT SELECT ON usage_counters TO gatehouse_admin;
-- A secret can be written and never read here; the delivery has it from a job's own columns.
GRANT SELECT (tenant_id, id, url, description, events, previous_until, enabled, revision, created_at, updated_at),
    INSERT (tenant_id, id, url, description, events, sealed_secret, enabled),
    UPDATE (url, description, events, sealed_secret, sealed_previous_secret, previous_until, enabled, revision,
        updated_at),
    DELETE ON webhook_endpoints TO gatehouse_app;
GRANT SELECT, INSERT (tenant_id, id, endpoint_id, event_id, event_kind, sealed_payload) ON webhook_deliveries
    TO gatehouse_app;
-- Nobody changes an event or takes one away. Its number is the trigger's, which acts as whoever writes the event.
GRANT SELECT, INSERT (tenant_id, aggregate_kind, aggregate_id), UPDATE (seq) ON event_heads TO gatehouse_app;
GRANT SELECT, INSERT (tenant_id, aggregate_kind, aggregate_id, id, kind, schema_version, sealed_payload, subject,
    request_id) ON event_store TO gatehouse_app;
GRANT SELECT, INSERT ON metering TO gatehouse_app;
GRANT SELECT, UPDATE (keep_months) ON partition_rules TO gatehouse_admin;

-- The first ones, so that the tables take rows at once.
SELECT set_config('app.current_job', 'partitions', true);
SELECT maintain_partitions();
