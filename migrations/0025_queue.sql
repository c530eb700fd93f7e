-- The queue: whose turn it is, how many of a tenant run, what was lost how often, what shall end.
--
-- Expand: the build before this one goes on. What it offers is in no fair order and beyond a tenant's slots; it does not
-- look at `cancel_asked_at`, and its sweep does not count losses.

ALTER TABLE executions
    -- How often its worker was lost under it. Such an attempt is none of those that the tenant may have.
    ADD COLUMN IF NOT EXISTS losses integer NOT NULL DEFAULT 0 CHECK (losses >= 0),
    -- The caller wants it ended while it runs: its worker does.
    ADD COLUMN IF NOT EXISTS cancel_asked_at timestamptz;

-- The jobs look across tenants. Whose turn it is: the tenants with something waiting, and the oldest of each.
CREATE INDEX IF NOT EXISTS executions_turn ON executions (priority, tenant_id, state, (coalesce(due_at, created_at)))
    WHERE state IN ('pending', 'retry');
DROP INDEX IF EXISTS executions_waiting;
-- How many of a tenant have a slot, or are offered one. A slot is the running row itself: with its lease it is gone.
CREATE INDEX IF NOT EXISTS executions_slots ON executions (tenant_id, state, priority)
    WHERE state IN ('queued', 'running');
-- What a worker has to end: nearly always nothing.
CREATE INDEX IF NOT EXISTS executions_to_end ON executions (worker)
    WHERE state = 'running' AND cancel_asked_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS executions_dead ON executions (tenant_id, completed_at, id) WHERE state = 'dead_letter';

-- === Row security ===

GRANT UPDATE (losses, cancel_asked_at) ON executions TO gatehouse_app;

-- feeder: besides what it offers, how many run, and how many may.
DROP POLICY IF EXISTS job_feeder_counts ON executions;
CREATE POLICY job_feeder_counts ON executions FOR SELECT TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'feeder' AND state = 'running');
DROP POLICY IF EXISTS job_feeder ON tenants;
CREATE POLICY job_feeder ON tenants FOR SELECT TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'feeder');
GRANT SELECT (id, tier) ON tenants TO gatehouse_system;
DROP POLICY IF EXISTS job_feeder ON tenant_quotas;
CREATE POLICY job_feeder ON tenant_quotas FOR SELECT TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'feeder');
GRANT SELECT (tenant_id, max_concurrent_executions) ON tenant_quotas TO gatehouse_system;

-- sweep: counts what it takes from lost workers, and ends what should have ended there.
DROP POLICY IF EXISTS job_sweep ON executions;
CREATE POLICY job_sweep ON executions TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'sweep'
        AND state IN ('queued', 'running', 'pending', 'dead_letter', 'cancelled'))
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'sweep'
        AND state IN ('queued', 'pending', 'dead_letter', 'cancelled'));
GRANT SELECT (losses, cancel_asked_at), UPDATE (losses) ON executions TO gatehouse_system;

-- watch: a worker looks which of its runs shall end.
DROP POLICY IF EXISTS job_watch ON executions;
CREATE POLICY job_watch ON executions FOR SELECT TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'watch' AND state = 'running');
GRANT SELECT (lease_epoch) ON executions TO gatehouse_system;
