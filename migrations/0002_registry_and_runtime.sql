-- Agents, their versions, and executions.
-- Not partitioned yet: executions and tenant_audit become native range partitions with the tenancy issue.

CREATE TABLE agents (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    name text NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    description text CHECK (length(description) <= 2000),
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Kept: executions of the past name their agent.
    deleted_at timestamptz,
    PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX agents_name ON agents (tenant_id, name) WHERE deleted_at IS NULL;

CREATE TABLE agent_versions (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    agent_id uuid NOT NULL,
    version text NOT NULL CHECK (length(version) BETWEEN 5 AND 64),
    -- name@sha256:<64 hex digits>; where it lies follows from the tenant.
    image text NOT NULL CHECK (image ~ '^[a-z0-9-]{1,63}@sha256:[0-9a-f]{64}$'),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, agent_id, version),
    UNIQUE (tenant_id, agent_id, id),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, id)
);

CREATE TABLE executions (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    agent_id uuid NOT NULL,
    agent_version_id uuid NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN (
        'pending', 'queued', 'running', 'completed', 'failed', 'timeout', 'retry', 'cancelled', 'dead_letter')),
    priority smallint NOT NULL DEFAULT 1 CHECK (priority BETWEEN 0 AND 3),
    -- The fencing token: grows with every claim, and a result counts only under the epoch of its claim.
    lease_epoch bigint NOT NULL DEFAULT 0,
    -- 1 is the first.
    attempt integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    max_attempts integer NOT NULL DEFAULT 3 CHECK (max_attempts BETWEEN 1 AND 100),
    timeout_s integer NOT NULL DEFAULT 300 CHECK (timeout_s BETWEEN 1 AND 86400),
    -- The incarnation of a worker that holds, or last held, the lease; alive while it beats.
    worker text,
    input jsonb NOT NULL,
    output jsonb,
    end_reason text,
    error text,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    queued_at timestamptz,
    started_at timestamptz,
    completed_at timestamptz,
    -- When a retry is due.
    due_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, agent_id, agent_version_id)
        REFERENCES agent_versions (tenant_id, agent_id, id),
    CHECK (state <> 'running' OR worker IS NOT NULL)
);
CREATE INDEX executions_newest ON executions (tenant_id, created_at DESC, id);
CREATE INDEX executions_version ON executions (tenant_id, agent_id, agent_version_id);
-- The jobs look across tenants: the only indexes that do not start with the tenant.
CREATE INDEX executions_waiting ON executions (priority, created_at) WHERE state IN ('pending', 'retry');
CREATE INDEX executions_held ON executions (state, worker) WHERE state IN ('queued', 'running');

CREATE TABLE worker_heartbeats (
    -- One row per incarnation of a worker, not per execution.
    worker text PRIMARY KEY,
    beat_at timestamptz NOT NULL DEFAULT now()
);

-- Wakes the feeder; it also polls, so that a lost notification costs a second and nothing else.
CREATE FUNCTION notify_pending() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('gatehouse_pending', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER notify_pending AFTER INSERT ON executions
    FOR EACH STATEMENT EXECUTE FUNCTION notify_pending();
