-- What the API's conventions need: answers kept for requests that are repeated, and an index for each list, in the order
-- in which its pages follow each other.
-- Expand: the build before this one neither reads nor writes the table, and its lists find their order in the new
-- indexes as in the old.

-- === Answers kept under a client's Idempotency-Key ===
-- Written in the transaction that the answer tells of, so that there is an answer exactly where there is an effect.

CREATE TABLE IF NOT EXISTS idempotency_keys (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    -- SHA-256 of tenant, caller and key: what clients write is not kept.
    key_sha256 bytea NOT NULL CHECK (octet_length(key_sha256) = 32),
    -- Of method, path, query and body: another request under the key is refused.
    request_sha256 bytea NOT NULL CHECK (octet_length(request_sha256) = 32),
    -- Sealed by the control API under a key from a file: an answer may hold a secret that is shown once, and names.
    sealed_answer bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, key_sha256)
);
-- What is too old goes with the next answer of its tenant.
CREATE INDEX IF NOT EXISTS idempotency_keys_age ON idempotency_keys (tenant_id, created_at);

ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency_keys FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS own_tenant ON idempotency_keys;
CREATE POLICY own_tenant ON idempotency_keys TO gatehouse_app
    USING (tenant_id = (SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid))
    WITH CHECK (tenant_id = (SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid));
-- The platform's own keys, within the transactions of the admin door.
DROP POLICY IF EXISTS admin_all ON idempotency_keys;
CREATE POLICY admin_all ON idempotency_keys TO gatehouse_admin USING (true) WITH CHECK (true);
GRANT SELECT, INSERT (tenant_id, key_sha256, request_sha256, sealed_answer), DELETE ON idempotency_keys
    TO gatehouse_app;
-- It writes answers and clears old ones away; it reads none.
GRANT SELECT (tenant_id, key_sha256, created_at), INSERT (tenant_id, key_sha256, request_sha256, sealed_answer), DELETE
    ON idempotency_keys TO gatehouse_admin;

-- === Pages: the newest first, read backwards ===

CREATE INDEX IF NOT EXISTS agents_page ON agents (tenant_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX IF NOT EXISTS agent_versions_page ON agent_versions (tenant_id, agent_id, created_at, id);
CREATE INDEX IF NOT EXISTS executions_page ON executions (tenant_id, created_at, id);
CREATE INDEX IF NOT EXISTS users_page ON users (tenant_id, created_at, id);
CREATE INDEX IF NOT EXISTS oauth_clients_page ON oauth_clients (tenant_id, created_at, id);
CREATE INDEX IF NOT EXISTS api_keys_page ON api_keys (tenant_id, created_at, id);
CREATE INDEX IF NOT EXISTS issuers_page ON issuers (tenant_id, created_at, id);
-- Its ids go the other way within one moment: no page can begin in the midst of it.
DROP INDEX IF EXISTS executions_newest;
