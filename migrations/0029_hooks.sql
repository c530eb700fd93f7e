-- Lifecycle hooks: what a version declares, which of them ran and which are still owed; and under which configuration of its
-- worker an execution was claimed.
--
-- Expand: the build before this one runs no hook and owes none; what is owed meanwhile waits for a build that does.

ALTER TABLE agent_versions
    -- `{"cleanup": {"command": ["/bin/x"], "timeout_s": 10}}`, by the eight names of `gatehouse_execution::hooks`.
    ADD COLUMN IF NOT EXISTS hooks jsonb CHECK (jsonb_typeof(hooks) = 'object');
ALTER TABLE executions
    ADD COLUMN IF NOT EXISTS config_version text CHECK (length(config_version) <= 64);

-- One row per attempt and hook, however often it is begun: it is recorded once. No key to the execution, which is in months.
CREATE TABLE IF NOT EXISTS hook_runs (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    execution_id uuid NOT NULL,
    lease_epoch bigint NOT NULL CHECK (lease_epoch >= 1),
    hook text NOT NULL CHECK (hook IN ('pre_init', 'post_init', 'pre_validate', 'post_validate', 'pre_execute', 'post_execute',
        'on_error', 'cleanup')),
    -- The same however often it is begun: what it does outside can be recognised by it.
    run_id uuid NOT NULL,
    -- `owed` is run by whoever has the attempt, and after that by whoever takes it.
    state text NOT NULL CHECK (state IN ('owed', 'done', 'failed', 'skipped')),
    -- Who runs it, or did.
    worker text CHECK (length(worker) BETWEEN 1 AND 200),
    -- How often somebody took it from the attempt.
    taken integer NOT NULL DEFAULT 0 CHECK (taken >= 0),
    end_reason text CHECK (length(end_reason) BETWEEN 1 AND 40),
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    PRIMARY KEY (tenant_id, execution_id, lease_epoch, hook),
    CHECK ((state = 'owed') = (ended_at IS NULL))
);
CREATE INDEX IF NOT EXISTS hook_runs_owed ON hook_runs (created_at) WHERE state = 'owed';
CREATE INDEX IF NOT EXISTS hook_runs_old ON hook_runs (ended_at) WHERE state <> 'owed';

-- === Row security ===

ALTER TABLE hook_runs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
DO $$
DECLARE
    rule record;
    ours constant text := $q$(SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid)$q$;
    job constant text := $q$(SELECT current_setting('app.current_job', true))$q$;
BEGIN
    DROP POLICY IF EXISTS own_tenant ON hook_runs;
    EXECUTE format('CREATE POLICY own_tenant ON hook_runs TO gatehouse_app USING (tenant_id = %s)
        WITH CHECK (tenant_id = %s)', ours, ours);
    DROP POLICY IF EXISTS job_erasure ON hook_runs;
    EXECUTE format('CREATE POLICY job_erasure ON hook_runs TO gatehouse_system USING (%s) WITH CHECK (%s)',
        job || $q$ = 'erasure' AND hook_runs.tenant_id IN (SELECT e.tenant_id FROM public.erasures e)$q$,
        job || $q$ = 'erasure' AND hook_runs.tenant_id IN (SELECT e.tenant_id FROM public.erasures e)$q$);
    FOR rule IN SELECT * FROM (VALUES
        -- hooks: takes what is owed of attempts that are over, whosesoever they are, and removes what is old.
        ('job_hooks_reads', 'hook_runs', 'SELECT', $q$= 'hooks'$q$, NULL),
        ('job_hooks', 'hook_runs', 'UPDATE', $q$= 'hooks'$q$, $q$= 'hooks'$q$),
        ('job_hooks_removes', 'hook_runs', 'DELETE', $q$= 'hooks' AND state <> 'owed'$q$, NULL),
        ('job_hooks', 'executions', 'SELECT', $q$= 'hooks' AND state = 'running'$q$, NULL),
        ('job_hooks', 'worker_heartbeats', 'SELECT', $q$= 'hooks'$q$, NULL)
    ) AS v (name, relation, verb, reaches, writes) LOOP
        EXECUTE format('DROP POLICY IF EXISTS %I ON %I', rule.name, rule.relation);
        EXECUTE format('CREATE POLICY %I ON %I FOR %s TO gatehouse_system', rule.name, rule.relation, rule.verb)
            || format(' USING (%s %s)', job, rule.reaches)
            || CASE WHEN rule.writes IS NULL THEN '' ELSE format(' WITH CHECK (%s %s)', job, rule.writes) END;
    END LOOP;
END
$$;
GRANT INSERT (hooks) ON agent_versions TO gatehouse_app;
GRANT UPDATE (config_version) ON executions TO gatehouse_app;
GRANT SELECT, INSERT (tenant_id, execution_id, lease_epoch, hook, run_id, state, worker, end_reason, ended_at),
    UPDATE (state, end_reason, ended_at) ON hook_runs TO gatehouse_app;
GRANT SELECT (tenant_id, execution_id, lease_epoch, hook, run_id, state, worker, taken, created_at, ended_at),
    UPDATE (worker, taken), DELETE ON hook_runs TO gatehouse_system;
