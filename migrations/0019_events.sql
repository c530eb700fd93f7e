-- Events: written in the transaction of what they tell, kept for ever in event_store, and once more in event_outbox until
-- they are published. And what a version of an agent can be besides published: promoted, deprecated.
--
-- Expand: the build before this one writes no events and knows nothing of promotion; what it does goes on working.

-- === Versions ===

ALTER TABLE agent_versions
    -- Runs where no version is named.
    ADD COLUMN promoted_at timestamptz,
    -- Should be run no longer; it can be.
    ADD COLUMN deprecated_at timestamptz,
    ADD COLUMN deprecation text CHECK (length(deprecation) <= 500),
    ADD CHECK (deprecation IS NULL OR deprecated_at IS NOT NULL);
CREATE UNIQUE INDEX agent_versions_promoted ON agent_versions (tenant_id, agent_id) WHERE promoted_at IS NOT NULL;
GRANT UPDATE (promoted_at, deprecated_at, deprecation) ON agent_versions TO gatehouse_app;
GRANT UPDATE (name, description) ON agents TO gatehouse_app;

-- === Events ===

-- What jobs tell is in the clear: they have no key, and say nothing of anybody's own.
ALTER TABLE event_store
    ALTER COLUMN sealed_payload DROP NOT NULL,
    ADD COLUMN payload jsonb,
    ADD CHECK (num_nonnulls(payload, sealed_payload) = 1);
GRANT INSERT (payload) ON event_store TO gatehouse_app;

-- What waits to be published. A row goes when it was: no cursor that a transaction which commits late could be behind of.
-- Its number grows with its aggregate's: who writes the next event waits for the head that the one before has locked.
CREATE TABLE event_outbox (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id bigint GENERATED ALWAYS AS IDENTITY,
    event_id uuid NOT NULL,
    aggregate_kind text NOT NULL,
    aggregate_id uuid NOT NULL,
    -- 0 where it is not numbered.
    seq bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- NULL is a tombstone: compacted topics forget the aggregate's messages.
    kind text CHECK (length(kind) BETWEEN 1 AND 100),
    schema_version integer NOT NULL DEFAULT 1 CHECK (schema_version >= 1),
    -- What is published: without what an agent read or wrote. Sealed where the event is.
    payload jsonb,
    sealed_payload bytea,
    traceparent text CHECK (length(traceparent) <= 100),
    PRIMARY KEY (tenant_id, id),
    CHECK (num_nonnulls(payload, sealed_payload) = CASE WHEN kind IS NULL THEN 0 ELSE 1 END)
);
-- The publisher looks across tenants.
CREATE INDEX event_outbox_order ON event_outbox (id);

-- How far the tombstones of an erased tenant are: behind this aggregate.
ALTER TABLE erasures
    ADD COLUMN buried_kind text,
    ADD COLUMN buried_id uuid;

-- === Row security ===

ALTER TABLE event_outbox ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON event_outbox TO gatehouse_app
    USING (tenant_id = (SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid))
    WITH CHECK (tenant_id = (SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid));
GRANT INSERT (tenant_id, event_id, aggregate_kind, aggregate_id, seq, at, kind, schema_version, payload, sealed_payload,
    traceparent) ON event_outbox TO gatehouse_app;

-- feeder and sweep: tell what they do to executions, in the clear. What others sealed they cannot open.
CREATE POLICY job_tells ON event_heads TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) IN ('feeder', 'sweep'))
    WITH CHECK ((SELECT current_setting('app.current_job', true)) IN ('feeder', 'sweep'));
CREATE POLICY job_tells ON event_store TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) IN ('feeder', 'sweep'))
    WITH CHECK ((SELECT current_setting('app.current_job', true)) IN ('feeder', 'sweep'));
GRANT SELECT, INSERT (tenant_id, aggregate_kind, aggregate_id), UPDATE (seq) ON event_heads TO gatehouse_system;
GRANT SELECT (tenant_id, aggregate_kind, aggregate_id, seq, at, id, kind, schema_version, payload),
    INSERT (tenant_id, aggregate_kind, aggregate_id, id, kind, schema_version, payload, subject, request_id)
    ON event_store TO gatehouse_system;
-- And the sealer, that something was audited, once it is sealed.
CREATE POLICY job_tells ON event_outbox TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) IN ('feeder', 'sweep', 'sealer'))
    WITH CHECK ((SELECT current_setting('app.current_job', true)) IN ('feeder', 'sweep', 'sealer'));
GRANT INSERT (tenant_id, event_id, aggregate_kind, aggregate_id, seq, at, kind, schema_version, payload) ON event_outbox
    TO gatehouse_system;

-- publisher: takes out what waits, and opens it.
CREATE POLICY job_publisher ON event_outbox TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'publisher')
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'publisher');
CREATE POLICY job_publisher ON data_keys FOR SELECT TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'publisher');
GRANT SELECT, DELETE ON event_outbox TO gatehouse_system;

-- erasure: takes out what can no longer be opened, and puts a tombstone for each aggregate that was ever told of.
CREATE POLICY job_erasure ON event_heads FOR SELECT TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'erasure'
        AND event_heads.tenant_id IN (SELECT e.tenant_id FROM public.erasures e));
CREATE POLICY job_erasure ON event_outbox TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'erasure'
        AND event_outbox.tenant_id IN (SELECT e.tenant_id FROM public.erasures e))
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'erasure'
        AND event_outbox.tenant_id IN (SELECT e.tenant_id FROM public.erasures e));
GRANT UPDATE (buried_kind, buried_id) ON erasures TO gatehouse_system;

-- Who tells takes nothing away.
CREATE POLICY job_takes ON event_outbox AS RESTRICTIVE FOR DELETE TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) IN ('publisher', 'erasure'));
