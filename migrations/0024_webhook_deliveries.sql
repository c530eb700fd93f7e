-- Webhooks are delivered: a row per event and endpoint that wants it comes in the transaction of the event, by whatever way
-- that is told; a job sends them. Processes share the work by leases: an endpoint is one process's at a time, under an epoch.
--
-- Expand: the build before this one delivers nothing; what waits grows until a build that does.

-- === What is sent, and by whom ===

ALTER TABLE webhook_deliveries
    -- As the events' outbox has it, sealed where that is: a delivery outlives the outbox's row.
    ALTER COLUMN sealed_payload DROP NOT NULL,
    ADD COLUMN IF NOT EXISTS payload jsonb,
    ADD COLUMN IF NOT EXISTS event_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN IF NOT EXISTS aggregate_id uuid,
    ADD COLUMN IF NOT EXISTS traceparent text CHECK (length(traceparent) <= 100),
    DROP CONSTRAINT IF EXISTS webhook_deliveries_one_payload,
    ADD CONSTRAINT webhook_deliveries_one_payload CHECK (num_nonnulls(payload, sealed_payload) = 1);

ALTER TABLE webhook_endpoints
    -- Counts those who took it; what one of before brings back is not taken.
    ADD COLUMN IF NOT EXISTS lease_epoch bigint NOT NULL DEFAULT 0,
    -- Nobody takes it before this: somebody has it, or it rests.
    ADD COLUMN IF NOT EXISTS leased_until timestamptz,
    -- When it was last taken: the one that waited longest is next.
    ADD COLUMN IF NOT EXISTS served_at timestamptz;

-- The job goes from endpoint to endpoint, and takes from each what is due first.
CREATE INDEX IF NOT EXISTS webhook_deliveries_waiting ON webhook_deliveries (tenant_id, endpoint_id, due_at)
    WHERE state = 'pending';
DROP INDEX IF EXISTS webhook_deliveries_due;
CREATE INDEX IF NOT EXISTS webhook_deliveries_age ON webhook_deliveries (created_at);

-- === How they come into being ===

-- Acts as whoever tells the event, and holds the endpoints it writes for: one that is being removed is waited for, and is
-- then no longer there, so that no event fails for it.
CREATE OR REPLACE FUNCTION deliver_event() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    -- A lost worker's execution without a further attempt was given up.
    told constant text := CASE NEW.kind WHEN 'execution.lost' THEN 'execution.given_up' ELSE NEW.kind END;
BEGIN
    INSERT INTO public.webhook_deliveries (tenant_id, id, endpoint_id, event_id, event_kind, event_at, aggregate_id, payload,
        sealed_payload, traceparent)
    SELECT e.tenant_id, gen_random_uuid(), e.id, NEW.event_id, told, NEW.at, NEW.aggregate_id, NEW.payload,
        NEW.sealed_payload, NEW.traceparent
    FROM (SELECT w.tenant_id, w.id FROM public.webhook_endpoints w
        WHERE w.tenant_id = NEW.tenant_id AND w.enabled AND told = ANY (w.events) ORDER BY w.id FOR KEY SHARE) e;
    RETURN NULL;
END
$$;
DROP TRIGGER IF EXISTS deliver_event ON event_outbox;
CREATE TRIGGER deliver_event AFTER INSERT ON event_outbox FOR EACH ROW
    WHEN (NEW.kind IN ('agent.created', 'agent.updated', 'agent.deleted', 'version.published', 'version.promoted',
            'version.deprecated', 'execution.completed', 'execution.failed', 'execution.timed_out', 'execution.cancelled',
            'execution.given_up', 'quota.threshold_reached')
        OR (NEW.kind = 'execution.lost' AND NEW.payload ->> 'state' = 'dead_letter'))
    EXECUTE FUNCTION deliver_event();

-- === Row security ===

GRANT INSERT (event_at, aggregate_id, payload, traceparent),
    -- To send one again.
    UPDATE (state, attempt, due_at, last_status, last_error, delivered_at) ON webhook_deliveries TO gatehouse_app;
GRANT SELECT (last_error), UPDATE (state, attempt, due_at, last_status, last_error, delivered_at) ON webhook_deliveries
    TO gatehouse_admin;
DROP POLICY IF EXISTS admin_replays ON webhook_deliveries;
CREATE POLICY admin_replays ON webhook_deliveries FOR UPDATE TO gatehouse_admin USING (true) WITH CHECK (true);
GRANT SELECT (lease_epoch) ON webhook_endpoints TO gatehouse_app;

DO $$
DECLARE
    rule record;
    job constant text := $q$(SELECT current_setting('app.current_job', true))$q$;
BEGIN
    FOR rule IN SELECT * FROM (VALUES
        -- feeder and sweep tell of executions, and so write what is delivered of that. Endpoints they lock and do not change.
        ('job_tells', 'webhook_endpoints', 'SELECT', $q$IN ('feeder', 'sweep')$q$, NULL),
        ('job_tells_locks', 'webhook_endpoints', 'UPDATE', $q$IN ('feeder', 'sweep')$q$, $q$= 'nobody'$q$),
        ('job_tells', 'webhook_deliveries', 'ALL', $q$= 'nobody'$q$, $q$IN ('feeder', 'sweep')$q$),
        -- deliverer: takes endpoints, sends what is due, writes what became of it, and removes what is old.
        ('job_deliverer_reads', 'webhook_endpoints', 'SELECT', $q$= 'deliverer'$q$, NULL),
        ('job_deliverer', 'webhook_endpoints', 'UPDATE', $q$= 'deliverer'$q$, $q$= 'deliverer'$q$),
        ('job_deliverer_reads', 'webhook_deliveries', 'SELECT', $q$= 'deliverer'$q$, NULL),
        ('job_deliverer', 'webhook_deliveries', 'UPDATE', $q$= 'deliverer'$q$, $q$= 'deliverer'$q$),
        ('job_deliverer_removes', 'webhook_deliveries', 'DELETE', $q$= 'deliverer'$q$, NULL),
        ('job_deliverer', 'data_keys', 'SELECT', $q$= 'deliverer'$q$, NULL)
    ) AS v (name, relation, verb, reaches, writes) LOOP
        EXECUTE format('DROP POLICY IF EXISTS %I ON %I', rule.name, rule.relation);
        EXECUTE format('CREATE POLICY %I ON %I FOR %s TO gatehouse_system', rule.name, rule.relation, rule.verb)
            || format(' USING (%s %s)', job, rule.reaches)
            || CASE WHEN rule.writes IS NULL THEN '' ELSE format(' WITH CHECK (%s %s)', job, rule.writes) END;
    END LOOP;
END
$$;
GRANT SELECT (url, events, enabled, previous_until, lease_epoch, leased_until, served_at),
    UPDATE (lease_epoch, leased_until, served_at) ON webhook_endpoints TO gatehouse_system;
GRANT SELECT (endpoint_id, event_id, event_kind, event_at, aggregate_id, payload, sealed_payload, traceparent, state, attempt,
        due_at, created_at),
    INSERT (tenant_id, id, endpoint_id, event_id, event_kind, event_at, aggregate_id, payload, sealed_payload,
        traceparent),
    UPDATE (state, attempt, due_at, last_status, last_error, delivered_at) ON webhook_deliveries TO gatehouse_system;
