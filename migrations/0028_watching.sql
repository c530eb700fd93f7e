-- Seeing an execution while it goes on: how far those are that somebody waits for, the end of what an attempt logged, and
-- the warning that its time runs out.
--
-- Expand: the build before this one waits for nothing, keeps no log and warns nobody; what it does goes on working.

-- === The warning ===

-- The claim under which it was last warned: a warning whose commit was in doubt is repeated, and told once.
ALTER TABLE executions ADD COLUMN IF NOT EXISTS warned_epoch bigint;
GRANT UPDATE (warned_epoch) ON executions TO gatehouse_app;

-- As in 0024, and with the warning.
DROP TRIGGER IF EXISTS deliver_event ON event_outbox;
CREATE TRIGGER deliver_event AFTER INSERT ON event_outbox FOR EACH ROW
    WHEN (NEW.kind IN ('agent.created', 'agent.updated', 'agent.deleted', 'version.published', 'version.promoted',
            'version.deprecated', 'execution.time_runs_out', 'execution.completed', 'execution.failed',
            'execution.timed_out', 'execution.cancelled', 'execution.given_up', 'quota.threshold_reached')
        OR (NEW.kind = 'execution.lost' AND NEW.payload ->> 'state' = 'dead_letter'))
    EXECUTE FUNCTION deliver_event();

-- === Logs ===

-- The end of what an attempt wrote to standard error: sealed, since nobody knows what is in it.
CREATE TABLE IF NOT EXISTS execution_logs (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    execution_id uuid NOT NULL,
    -- The claim that ran it: attempts of one that was started anew have the same numbers again.
    lease_epoch bigint NOT NULL CHECK (lease_epoch >= 1),
    -- When the attempt began, as its claim has it.
    at timestamptz NOT NULL,
    attempt integer NOT NULL CHECK (attempt >= 1),
    -- All that was written; the tail is the last of it.
    total_bytes bigint NOT NULL CHECK (total_bytes >= 0),
    sealed_tail bytea NOT NULL CHECK (octet_length(sealed_tail) <= 1048576),
    PRIMARY KEY (tenant_id, execution_id, lease_epoch, at)
) PARTITION BY RANGE (at);
ALTER TABLE execution_logs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
DO $$
DECLARE
    ours constant text := $q$(SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid)$q$;
    of_erased constant text := $q$(SELECT current_setting('app.current_job', true)) = 'erasure'
        AND execution_logs.tenant_id IN (SELECT e.tenant_id FROM public.erasures e)$q$;
BEGIN
    DROP POLICY IF EXISTS own_tenant ON execution_logs;
    EXECUTE format('CREATE POLICY own_tenant ON execution_logs TO gatehouse_app USING (tenant_id = %s)
        WITH CHECK (tenant_id = %s)', ours, ours);
    DROP POLICY IF EXISTS job_erasure ON execution_logs;
    EXECUTE format('CREATE POLICY job_erasure ON execution_logs TO gatehouse_system USING (%s) WITH CHECK (%s)',
        of_erased, of_erased);
END
$$;
-- Nobody changes what was logged.
GRANT SELECT, INSERT ON execution_logs TO gatehouse_app;
GRANT SELECT (tenant_id, execution_id), DELETE ON execution_logs TO gatehouse_system;

-- Kept for three whole months after their own, unless the platform says otherwise.
ALTER TABLE partition_rules
    DROP CONSTRAINT IF EXISTS partition_rules_parent_check,
    ADD CONSTRAINT partition_rules_parent_check
        CHECK (parent IN ('executions', 'event_store', 'execution_logs', 'metering', 'tenant_audit'));
ALTER TABLE partition_rules NO FORCE ROW LEVEL SECURITY;
INSERT INTO partition_rules (parent, keep_months) VALUES ('execution_logs', 3) ON CONFLICT (parent) DO NOTHING;
ALTER TABLE partition_rules FORCE ROW LEVEL SECURITY;
SELECT set_config('app.current_job', 'partitions', true);
SELECT maintain_partitions();
SELECT set_config('app.current_job', '', true);

-- === How far executions are ===

-- Which of these executions have events beyond these numbers, and how many: asked once for all that somebody waits for,
-- whosesoever they are. By exact keys, and says nothing of them but the number.
CREATE OR REPLACE FUNCTION executions_beyond(tenants uuid[], executions uuid[], seen bigint[])
RETURNS TABLE (n bigint, seq bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT w.n, h.seq
    FROM unnest(tenants, executions, seen) WITH ORDINALITY AS w (tenant_id, execution_id, seen, n)
    JOIN public.event_heads h ON h.tenant_id = w.tenant_id AND h.aggregate_kind = 'execution'
        AND h.aggregate_id = w.execution_id AND h.seq > w.seen
$$;
GRANT SELECT (tenant_id, aggregate_kind, aggregate_id, seq) ON event_heads TO gatehouse_lookup;
DROP POLICY IF EXISTS look_up ON event_heads;
CREATE POLICY look_up ON event_heads FOR SELECT TO gatehouse_lookup USING (aggregate_kind = 'execution');
GRANT CREATE ON SCHEMA public TO gatehouse_lookup;
ALTER FUNCTION executions_beyond(uuid[], uuid[], bigint[]) OWNER TO gatehouse_lookup;
REVOKE CREATE ON SCHEMA public FROM gatehouse_lookup;
REVOKE EXECUTE ON FUNCTION executions_beyond(uuid[], uuid[], bigint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION executions_beyond(uuid[], uuid[], bigint[]) TO gatehouse_app;
