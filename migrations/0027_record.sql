-- What an attempt leaves behind: how it ended and whether it is charged beside what it used, and where a result came from.
--
-- Expand: the build before this one goes on. It meters nothing, charges neither minutes nor tokens and stores no provenance.

ALTER TABLE metering
    -- The fencing token of the attempt's claim.
    ADD COLUMN IF NOT EXISTS lease_epoch bigint CHECK (lease_epoch >= 1),
    ADD COLUMN IF NOT EXISTS end_reason text CHECK (length(end_reason) BETWEEN 1 AND 40),
    ADD COLUMN IF NOT EXISTS ended_at timestamptz,
    -- Whether it counts against the day's minutes and tokens.
    ADD COLUMN IF NOT EXISTS charged boolean NOT NULL DEFAULT false,
    -- What ran it, of one that was lost: by this name its machine may say later what it used.
    ADD COLUMN IF NOT EXISTS sandbox text CHECK (length(sandbox) = 45);
CREATE INDEX IF NOT EXISTS metering_lost ON metering (sandbox) WHERE end_reason = 'lost';

ALTER TABLE usage_counters
    -- Milliseconds beyond the whole minutes; nothing for what is counted in ones.
    ADD COLUMN IF NOT EXISTS rest bigint NOT NULL DEFAULT 0 CHECK (rest >= 0);

ALTER TABLE executions
    -- The submit was given back to the day's executions: once, whoever fails under it how often.
    ADD COLUMN IF NOT EXISTS refunded boolean NOT NULL DEFAULT false,
    -- Of the document, which is sealed under the tenant's data key.
    ADD COLUMN IF NOT EXISTS provenance_hash text CHECK (provenance_hash ~ '^sha256:[0-9a-f]{64}$'),
    ADD COLUMN IF NOT EXISTS sealed_provenance bytea CHECK (octet_length(sealed_provenance) <= 65536),
    -- Of the attempt that runs; where there is none the execution's id and the epoch make the name.
    ADD COLUMN IF NOT EXISTS sandbox text CHECK (length(sandbox) = 45);

-- === Row security ===

GRANT UPDATE (lease_epoch, end_reason, ended_at, charged, wall_ms, cpu_ms, peak_memory_bytes, tokens, egress_requests)
    ON metering TO gatehouse_app;
GRANT INSERT (rest), UPDATE (rest) ON usage_counters TO gatehouse_app;
GRANT UPDATE (refunded, provenance_hash, sealed_provenance) ON executions TO gatehouse_app;

-- sweep: what is taken from a lost worker is metered, and given back where nobody is at fault but the platform.
DROP POLICY IF EXISTS job_sweep ON metering;
CREATE POLICY job_sweep ON metering TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'sweep' AND end_reason = 'lost')
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'sweep' AND end_reason = 'lost' AND NOT charged);
GRANT SELECT (sandbox, end_reason, cpu_ms, peak_memory_bytes),
    INSERT (tenant_id, execution_id, attempt, at, agent_id, wall_ms, cpu_ms, peak_memory_bytes, tokens, egress_requests,
        lease_epoch, end_reason, ended_at, sandbox),
    UPDATE (cpu_ms, peak_memory_bytes) ON metering TO gatehouse_system;
DROP POLICY IF EXISTS job_sweep ON usage_counters;
CREATE POLICY job_sweep ON usage_counters TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'sweep')
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'sweep');
GRANT SELECT (tenant_id, quota, day, used), UPDATE (used) ON usage_counters TO gatehouse_system;
GRANT SELECT (agent_id, started_at, refunded, sandbox), UPDATE (refunded) ON executions TO gatehouse_system;
