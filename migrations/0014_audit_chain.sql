-- The audit as a chain (MTD-005): who did it by kind, what was before and after as a commitment beside the sealed
-- values, and per tenant a row of seals that nobody may change either.
-- Expand: the build before this one writes rows without what is new here, and they are sealed like the others.

-- A row's transaction, in the order in which the sealer reads: what is below the oldest one that still runs is complete,
-- whenever it commits. Numbers of transactions begin anew in another cluster; after a restore from a dump the function
-- below is replaced by one that returns more than was sealed (docs/audit.md).
CREATE FUNCTION audit_clock_base() RETURNS bigint LANGUAGE sql IMMUTABLE SET search_path = '' AS $$ SELECT 0::bigint $$;
REVOKE EXECUTE ON FUNCTION audit_clock_base() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_clock_base() TO gatehouse_app, gatehouse_admin, gatehouse_system;

ALTER TABLE tenant_audit
    ADD COLUMN tx bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint + audit_clock_base()),
    ADD COLUMN subject_kind text CHECK (subject_kind IN ('user', 'client', 'api_key', 'system')),
    -- Before and after, and the commitment's salt, sealed under the tenant's data key: gone when that is.
    ADD COLUMN sealed_details bytea,
    ADD COLUMN commitment bytea CHECK (octet_length(commitment) = 32),
    ADD CHECK (sealed_details IS NULL OR commitment IS NOT NULL);
CREATE INDEX tenant_audit_order ON tenant_audit (tx, id);

CREATE TABLE audit_seals (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    -- 1 is the first; without gaps.
    seq bigint NOT NULL CHECK (seq >= 1),
    -- The hash of the seal before; zeros before the first.
    prev bytea NOT NULL CHECK (octet_length(prev) = 32),
    -- The rows that it covers and their hashes, one after another (crates/audit).
    row_ids bigint[] NOT NULL CHECK (cardinality(row_ids) <= 1000),
    row_hashes bytea NOT NULL CHECK (octet_length(row_hashes) = 32 * cardinality(row_ids)),
    -- How many rows the chain has.
    total bigint NOT NULL CHECK (total >= cardinality(row_ids)),
    -- In seconds since the Unix epoch.
    sealed_at bigint NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    -- The signed head, a JWS.
    head text NOT NULL CHECK (length(head) BETWEEN 1 AND 8192),
    -- Its last row.
    last_tx bigint NOT NULL,
    last_id bigint NOT NULL,
    PRIMARY KEY (tenant_id, seq)
);
-- How far the sealer is.
CREATE INDEX audit_seals_last ON audit_seals (last_tx DESC, last_id DESC);

-- === Row security ===

ALTER TABLE audit_seals ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON audit_seals FOR SELECT TO gatehouse_app
    USING (tenant_id = (SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid));
CREATE POLICY admin_all ON audit_seals FOR SELECT TO gatehouse_admin USING (true);

GRANT INSERT (subject_kind, sealed_details, commitment) ON tenant_audit TO gatehouse_app, gatehouse_admin;
GRANT SELECT ON audit_seals TO gatehouse_app, gatehouse_admin;

-- sealer: reads the audit as it is hashed, and seals. It has neither UPDATE nor DELETE, and cannot read values.
CREATE POLICY job_sealer ON tenant_audit FOR SELECT TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'sealer');
CREATE POLICY job_sealer ON audit_seals TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'sealer')
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'sealer');
GRANT SELECT (tenant_id, id, at, tx, subject, subject_kind, request_id, action, target_kind, target_id, reason, commitment)
    ON tenant_audit TO gatehouse_system;
GRANT SELECT, INSERT ON audit_seals TO gatehouse_system;

-- === Look-ups ===

-- A key that signed heads verifies them for as long as they are kept, published or not.
CREATE FUNCTION lookup_signing_key(kid text) RETURNS TABLE (public_jwk jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' ROWS 1 AS $$
    SELECT k.public_jwk FROM public.signing_keys k WHERE k.kid = lookup_signing_key.kid
$$;
GRANT CREATE ON SCHEMA public TO gatehouse_lookup;
ALTER FUNCTION lookup_signing_key(text) OWNER TO gatehouse_lookup;
REVOKE CREATE ON SCHEMA public FROM gatehouse_lookup;
REVOKE EXECUTE ON FUNCTION lookup_signing_key(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lookup_signing_key(text) TO gatehouse_app;
