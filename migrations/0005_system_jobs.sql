-- All that background jobs may touch, in one place: one policy and one column grant per job and table. A job is
-- named by a setting of its transaction (store.system). The setting keeps one job's code from another's rows; what
-- the role as a whole can reach is bounded by the column grants, which never include inputs or outputs.

-- feeder: offers waiting executions to the workers.
CREATE POLICY job_feeder ON executions TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'feeder'
        AND state IN ('pending', 'retry', 'queued'))
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'feeder' AND state = 'queued');
GRANT SELECT (tenant_id, id, state, priority, created_at, due_at), UPDATE (state, queued_at) ON executions
    TO gatehouse_system;

-- sweep: takes leases away from workers that no longer beat, and offers again what no worker took.
CREATE POLICY job_sweep ON executions TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'sweep'
        AND state IN ('queued', 'running', 'pending', 'dead_letter'))
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'sweep'
        AND state IN ('queued', 'pending', 'dead_letter'));
GRANT SELECT (attempt, max_attempts, worker, queued_at), UPDATE (end_reason, error, completed_at) ON executions
    TO gatehouse_system;

-- heartbeat: one row per incarnation of a worker.
CREATE POLICY job_heartbeat ON worker_heartbeats TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) IN ('heartbeat', 'sweep'))
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'heartbeat');
GRANT SELECT, INSERT (worker), UPDATE (beat_at), DELETE ON worker_heartbeats TO gatehouse_system;
