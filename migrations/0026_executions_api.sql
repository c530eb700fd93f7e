-- What a version's executions may use, read, write and reach, and what was asked for one of them.
--
-- Expand: the build before this one runs what names limits under the platform's defaults, judges no schema and lets nothing out.

ALTER TABLE agent_versions
    -- Some of the limits of `gatehouse_execution::limits`, by name; what is not named is the platform's.
    ADD COLUMN IF NOT EXISTS limits jsonb CHECK (jsonb_typeof(limits) = 'object'),
    -- JSON Schema 2020-12.
    ADD COLUMN IF NOT EXISTS input_schema jsonb CHECK (jsonb_typeof(input_schema) IN ('object', 'boolean')),
    ADD COLUMN IF NOT EXISTS output_schema jsonb CHECK (jsonb_typeof(output_schema) IN ('object', 'boolean')),
    -- The hosts that its runs may ask: `host`, `host:port`, `*.suffix`. None is no network.
    ADD COLUMN IF NOT EXISTS egress text[] NOT NULL DEFAULT '{}' CHECK (cardinality(egress) <= 64);

ALTER TABLE executions
    -- What of the limits is not the platform's: its version's, and lower ones that were asked for.
    ADD COLUMN IF NOT EXISTS limits jsonb CHECK (jsonb_typeof(limits) = 'object'),
    -- The execution that this one was submitted again for. No key: both may be erased, in any order.
    ADD COLUMN IF NOT EXISTS retry_of uuid;

-- Lists of one agent, version by version, and of what did not simply complete.
CREATE INDEX IF NOT EXISTS executions_of_version ON executions (tenant_id, agent_id, agent_version_id, created_at, id);
DROP INDEX IF EXISTS executions_version;
CREATE INDEX IF NOT EXISTS executions_in_state ON executions (tenant_id, state, created_at, id)
    WHERE state <> 'completed';

-- === Row security ===

-- Never updated: what a version is does not change, and what was asked for an execution neither.
GRANT INSERT (limits, input_schema, output_schema, egress) ON agent_versions TO gatehouse_app;
GRANT INSERT (limits, retry_of) ON executions TO gatehouse_app;
-- The platform sees how many of a tenant are in which state, and nothing else of them: no other column is granted.
GRANT SELECT (tenant_id, state) ON executions TO gatehouse_admin;
DROP POLICY IF EXISTS admin_counts ON executions;
CREATE POLICY admin_counts ON executions FOR SELECT TO gatehouse_admin USING (true);
