-- What a credential may do from one second to the next: members that are suspended, API keys, revoked tokens, and the
-- outbox that carries each change to whoever remembers facts.

-- === Members ===

ALTER TABLE users
    ADD COLUMN status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    -- Of its own, and not only of its roles: a role that is taken away leaves no row whose epoch could grow.
    ADD COLUMN epoch bigint NOT NULL DEFAULT nextval('fact_epoch');
ALTER TABLE oauth_clients
    ADD COLUMN status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    ADD COLUMN epoch bigint NOT NULL DEFAULT nextval('fact_epoch');
CREATE TRIGGER stamp_epoch BEFORE UPDATE ON users
    FOR EACH ROW EXECUTE FUNCTION stamp_fact_epoch();
CREATE TRIGGER stamp_epoch BEFORE UPDATE ON oauth_clients
    FOR EACH ROW EXECUTE FUNCTION stamp_fact_epoch();

-- === API keys ===

CREATE TABLE api_keys (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    environment text NOT NULL CHECK (environment ~ '^[a-z0-9]{1,8}$'),
    -- HMAC-SHA-256 of the whole key under a pepper that no database holds.
    pepper_id text NOT NULL CHECK (length(pepper_id) BETWEEN 1 AND 64),
    hmac bytea NOT NULL CHECK (octet_length(hmac) = 32),
    -- The permissions that it is narrowed to; NULL is all that its roles hold.
    scopes text[] CHECK (cardinality(scopes) BETWEEN 1 AND 64),
    -- The member that made it and above which it never is: its roles end where the member's do, it is suspended with
    -- it and ends with it. NULL where the platform made it. No reference: it outlives the member, worth nothing.
    owner uuid,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    -- The key that this one takes over from, and until when that one still opens.
    rotated_from uuid,
    overlap_until timestamptz,
    last_used_at timestamptz,
    epoch bigint NOT NULL DEFAULT nextval('fact_epoch'),
    PRIMARY KEY (tenant_id, id),
    -- A key is presented before its tenant is known.
    UNIQUE (id),
    -- A key is rotated once: its successor is.
    UNIQUE (tenant_id, rotated_from),
    FOREIGN KEY (tenant_id, rotated_from) REFERENCES api_keys (tenant_id, id)
);
CREATE INDEX api_keys_owner ON api_keys (tenant_id, owner);
-- Being used is no change of what it may do.
CREATE TRIGGER stamp_epoch BEFORE UPDATE OF name, revoked_at, overlap_until ON api_keys
    FOR EACH ROW EXECUTE FUNCTION stamp_fact_epoch();

-- A membership's subject may be a key. What a column is generated from cannot be changed in place.
REVOKE SELECT (subject) ON memberships FROM gatehouse_lookup;
ALTER TABLE memberships
    DROP CONSTRAINT memberships_check,
    DROP COLUMN subject;
ALTER TABLE memberships
    ADD COLUMN key_id uuid,
    ADD COLUMN subject uuid NOT NULL GENERATED ALWAYS AS (coalesce(user_id, client_id, key_id)) STORED,
    ADD CONSTRAINT memberships_check CHECK (num_nonnulls(user_id, client_id, key_id) = 1),
    ADD PRIMARY KEY (tenant_id, subject, role),
    ADD FOREIGN KEY (tenant_id, key_id) REFERENCES api_keys (tenant_id, id);

-- === Revocations ===

CREATE TABLE revoked_tokens (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    -- 128 bits of SHA-256 over issuer and jti (authn::revocation): who reads it learns no token.
    mark text NOT NULL CHECK (mark ~ '^[A-Za-z0-9_-]{22}$'),
    -- When the token has expired by itself.
    until timestamptz NOT NULL,
    revoked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, mark)
);
CREATE INDEX revoked_tokens_until ON revoked_tokens (until);

-- Every token of a subject that was issued before a time. One row per subject: the latest time.
CREATE TABLE token_cutoffs (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    subject uuid NOT NULL,
    issued_before timestamptz NOT NULL,
    -- When the last such token has expired by itself.
    until timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, subject)
);
CREATE INDEX token_cutoffs_until ON token_cutoffs (until);

-- === The outbox and the feed ===

-- Written in the transaction of the change that it tells, read by the relay. Without a reference to the tenant: what is
-- the platform's own (its signing keys) is told under the tenant of whoever did it.
CREATE TABLE outbox (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    tenant_id uuid NOT NULL,
    kind text NOT NULL,
    -- contract::sidecar::Change.
    payload jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    relayed_at timestamptz
);
-- Denials first, each in the order of arrival. Not by position: an id that was taken early and committed late is found,
-- and nobody waits for it meanwhile.
CREATE INDEX outbox_waiting ON outbox ((kind <> 'deny'), id) WHERE relayed_at IS NULL;
CREATE INDEX outbox_relayed ON outbox (relayed_at) WHERE relayed_at IS NOT NULL;

-- Wakes the relay; it also polls, so that a lost notification costs a second and nothing else.
CREATE FUNCTION notify_outbox() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('gatehouse_outbox', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER notify_outbox AFTER INSERT ON outbox
    FOR EACH STATEMENT EXECUTE FUNCTION notify_outbox();

-- What the relay wrote last: where Redis says otherwise, it lost something, and a new epoch begins.
CREATE TABLE feed_state (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch text NOT NULL,
    sequence bigint NOT NULL CHECK (sequence >= 0)
);
INSERT INTO feed_state (epoch, sequence) VALUES ('', 0);

-- === Signing keys that are published before they sign ===

ALTER TABLE signing_keys ADD COLUMN signs_from timestamptz NOT NULL DEFAULT now();

-- === Row security ===

DO $$
DECLARE
    name text;
    ours constant text := $q$(SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid)$q$;
BEGIN
    FOREACH name IN ARRAY ARRAY['api_keys', 'revoked_tokens', 'token_cutoffs', 'outbox', 'feed_state'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['api_keys', 'revoked_tokens', 'token_cutoffs', 'outbox'] LOOP
        EXECUTE format(
            'CREATE POLICY own_tenant ON %I TO gatehouse_app USING (tenant_id = %s) WITH CHECK (tenant_id = %s)',
            name, ours, ours);
        EXECUTE format('CREATE POLICY admin_all ON %I TO gatehouse_admin USING (true) WITH CHECK (true)', name);
    END LOOP;
END
$$;

-- The two doors do the same to members and keys; the admin's besides to tenants.
GRANT UPDATE (status), DELETE ON users TO gatehouse_app, gatehouse_admin;
GRANT SELECT (status, epoch), UPDATE (secret_sha256, secret_changed_at, status), DELETE ON oauth_clients
    TO gatehouse_app, gatehouse_admin;
GRANT INSERT (key_id), DELETE ON memberships TO gatehouse_app, gatehouse_admin;
-- The mark can be written and never read; it is compared through a look-up.
GRANT SELECT (tenant_id, id, name, environment, scopes, owner, created_by, created_at, expires_at, revoked_at, rotated_from,
        overlap_until, last_used_at),
    INSERT (tenant_id, id, name, environment, pepper_id, hmac, scopes, owner, created_by, expires_at, rotated_from),
    UPDATE (name, revoked_at, overlap_until) ON api_keys TO gatehouse_app, gatehouse_admin;
GRANT SELECT, INSERT (tenant_id, mark, until) ON revoked_tokens TO gatehouse_app, gatehouse_admin;
GRANT SELECT, INSERT (tenant_id, subject, issued_before, until), UPDATE (issued_before, until) ON token_cutoffs
    TO gatehouse_app, gatehouse_admin;
GRANT INSERT (tenant_id, kind, payload) ON outbox TO gatehouse_app, gatehouse_admin;
GRANT SELECT (signs_from), INSERT (signs_from) ON signing_keys TO gatehouse_admin;

-- === The relay ===

CREATE POLICY job_relay ON outbox TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'relay')
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'relay');
GRANT SELECT (id, kind, payload, created_at, relayed_at), UPDATE (relayed_at), DELETE ON outbox TO gatehouse_system;
CREATE POLICY job_relay ON feed_state TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'relay')
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'relay');
GRANT SELECT, UPDATE (epoch, sequence) ON feed_state TO gatehouse_system;
CREATE POLICY job_relay ON api_keys FOR SELECT TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'relay');
GRANT SELECT (tenant_id, id, pepper_id, hmac, expires_at, revoked_at, overlap_until) ON api_keys TO gatehouse_system;
CREATE POLICY job_relay ON revoked_tokens TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'relay')
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'relay');
GRANT SELECT (mark, until), DELETE ON revoked_tokens TO gatehouse_system;
CREATE POLICY job_relay ON token_cutoffs TO gatehouse_system
    USING ((SELECT current_setting('app.current_job', true)) = 'relay')
    WITH CHECK ((SELECT current_setting('app.current_job', true)) = 'relay');
GRANT SELECT, DELETE ON token_cutoffs TO gatehouse_system;

-- === Look-ups ===

GRANT SELECT (status, epoch) ON users TO gatehouse_lookup;
GRANT SELECT (status, epoch) ON oauth_clients TO gatehouse_lookup;
GRANT SELECT (subject) ON memberships TO gatehouse_lookup;
GRANT SELECT (tenant_id, id, pepper_id, hmac, scopes, owner, expires_at, revoked_at, overlap_until, last_used_at, epoch),
    UPDATE (last_used_at) ON api_keys TO gatehouse_lookup;
GRANT SELECT (tenant_id, mark) ON revoked_tokens TO gatehouse_lookup;
GRANT SELECT (tenant_id, subject, issued_before) ON token_cutoffs TO gatehouse_lookup;
GRANT SELECT (signs_from) ON signing_keys TO gatehouse_lookup;
CREATE POLICY look_up ON api_keys FOR SELECT TO gatehouse_lookup USING (true);
CREATE POLICY last_used ON api_keys FOR UPDATE TO gatehouse_lookup USING (true) WITH CHECK (true);
CREATE POLICY look_up ON revoked_tokens FOR SELECT TO gatehouse_lookup USING (true);
CREATE POLICY look_up ON token_cutoffs FOR SELECT TO gatehouse_lookup USING (true);

-- What a function returns cannot be changed in place.
DROP FUNCTION lookup_oauth_client(uuid);
DROP FUNCTION lookup_principal(uuid, uuid);

CREATE FUNCTION lookup_oauth_client(client uuid)
RETURNS TABLE (tenant_id uuid, secret_sha256 bytea, tenant_status text, suspended boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' ROWS 1 AS $$
    SELECT c.tenant_id, c.secret_sha256, t.status, c.status = 'suspended'
    FROM public.oauth_clients c JOIN public.tenants t ON t.id = c.tenant_id
    WHERE c.id = client
$$;

-- What the record says of a user or a client within a tenant: no row where either is not known. Tokens of the subject
-- that were issued before `issued_before` are worth nothing.
CREATE FUNCTION lookup_principal(tenant uuid, subject uuid)
RETURNS TABLE (status text, tier text, roles text[], platform boolean, epoch bigint, suspended boolean,
    issued_before timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' ROWS 1 AS $$
    SELECT t.status, t.tier,
        coalesce(m.roles, '{}'),
        p.epoch IS NOT NULL,
        greatest(t.epoch, w.epoch, m.epoch, p.epoch),
        w.suspended,
        (SELECT c.issued_before FROM public.token_cutoffs c
            WHERE c.tenant_id = t.id AND c.subject = lookup_principal.subject)
    FROM public.tenants t
    JOIN LATERAL (
        SELECT u.status = 'suspended' AS suspended, u.epoch FROM public.users u
        WHERE u.tenant_id = t.id AND u.id = lookup_principal.subject
        UNION ALL
        SELECT c.status = 'suspended', c.epoch FROM public.oauth_clients c
        WHERE c.tenant_id = t.id AND c.id = lookup_principal.subject
        LIMIT 1
    ) w ON true
    LEFT JOIN LATERAL (
        SELECT array_agg(m.role) AS roles, max(m.epoch) AS epoch FROM public.memberships m
        WHERE m.tenant_id = t.id AND m.subject = lookup_principal.subject
    ) m ON true
    LEFT JOIN public.platform_memberships p
        ON p.tenant_id = t.id AND p.subject = lookup_principal.subject
    WHERE t.id = tenant
$$;

-- The key that is presented with this id. `alive`: neither revoked, nor expired, nor without its owner. Its roles are
-- bounded by its owner's, which are NULL where it has none.
CREATE FUNCTION lookup_api_key(key uuid)
RETURNS TABLE (tenant_id uuid, pepper_id text, hmac bytea, alive boolean, expires_at timestamptz, scopes text[],
    status text, tier text, roles text[], owner_roles text[], suspended boolean, epoch bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' ROWS 1 AS $$
    SELECT k.tenant_id, k.pepper_id, k.hmac,
        k.revoked_at IS NULL
            AND coalesce(least(k.expires_at, k.overlap_until) > now(), true)
            AND (k.owner IS NULL OR o.epoch IS NOT NULL),
        least(k.expires_at, k.overlap_until),
        k.scopes, t.status, t.tier,
        coalesce(m.roles, '{}'),
        CASE WHEN k.owner IS NOT NULL THEN coalesce(om.roles, '{}') END,
        coalesce(o.suspended, false),
        greatest(t.epoch, k.epoch, m.epoch, o.epoch, om.epoch)
    FROM public.api_keys k
    JOIN public.tenants t ON t.id = k.tenant_id
    LEFT JOIN LATERAL (
        SELECT u.status = 'suspended' AS suspended, u.epoch FROM public.users u
        WHERE u.tenant_id = k.tenant_id AND u.id = k.owner
        UNION ALL
        SELECT c.status = 'suspended', c.epoch FROM public.oauth_clients c
        WHERE c.tenant_id = k.tenant_id AND c.id = k.owner
        LIMIT 1
    ) o ON true
    LEFT JOIN LATERAL (
        SELECT array_agg(m.role) AS roles, max(m.epoch) AS epoch FROM public.memberships m
        WHERE m.tenant_id = k.tenant_id AND m.subject = k.id
    ) m ON true
    LEFT JOIN LATERAL (
        SELECT array_agg(m.role) AS roles, max(m.epoch) AS epoch FROM public.memberships m
        WHERE m.tenant_id = k.tenant_id AND m.subject = k.owner
    ) om ON true
    WHERE k.id = key
$$;

CREATE FUNCTION is_token_revoked(tenant uuid, mark text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT EXISTS (SELECT FROM public.revoked_tokens r
        WHERE r.tenant_id = tenant AND r.mark = is_token_revoked.mark)
$$;

-- When keys were last used, in batches; never backwards, and never ahead of this clock. A row that somebody else holds
-- is left out: whoever holds it says about the same. The one look-up that writes: no tenant is known here either.
CREATE FUNCTION record_last_used(keys uuid[], seen timestamptz[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $$
    UPDATE public.api_keys k SET last_used_at = least(free.seen, now())
    FROM (
        SELECT k.id, s.seen
        FROM unnest(record_last_used.keys, record_last_used.seen) AS s (id, seen)
        JOIN public.api_keys k ON k.id = s.id
        ORDER BY k.id
        FOR UPDATE OF k SKIP LOCKED
    ) free
    WHERE k.id = free.id AND (k.last_used_at IS NULL OR k.last_used_at < least(free.seen, now()))
$$;

CREATE OR REPLACE FUNCTION published_signing_keys() RETURNS TABLE (kid text, public_jwk jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT k.kid, k.public_jwk FROM public.signing_keys k
    WHERE k.retired_at IS NULL OR k.publish_until > now()
    ORDER BY k.signs_from DESC, k.kid
$$;

-- A key signs from its time until the next one's; that time is its `retired_at`.
CREATE OR REPLACE FUNCTION current_signing_key() RETURNS TABLE (kid text, public_jwk jsonb, sealed_private bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' ROWS 1 AS $$
    SELECT k.kid, k.public_jwk, k.sealed_private FROM public.signing_keys k
    WHERE k.signs_from <= now() AND (k.retired_at IS NULL OR k.retired_at > now())
    ORDER BY k.signs_from DESC, k.kid LIMIT 1
$$;

GRANT CREATE ON SCHEMA public TO gatehouse_lookup;
ALTER FUNCTION lookup_oauth_client(uuid) OWNER TO gatehouse_lookup;
ALTER FUNCTION lookup_principal(uuid, uuid) OWNER TO gatehouse_lookup;
ALTER FUNCTION lookup_api_key(uuid) OWNER TO gatehouse_lookup;
ALTER FUNCTION is_token_revoked(uuid, text) OWNER TO gatehouse_lookup;
ALTER FUNCTION record_last_used(uuid[], timestamptz[]) OWNER TO gatehouse_lookup;
REVOKE CREATE ON SCHEMA public FROM gatehouse_lookup;

REVOKE EXECUTE ON FUNCTION lookup_oauth_client(uuid), lookup_principal(uuid, uuid), lookup_api_key(uuid),
    is_token_revoked(uuid, text), record_last_used(uuid[], timestamptz[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lookup_oauth_client(uuid), lookup_principal(uuid, uuid), lookup_api_key(uuid),
    is_token_revoked(uuid, text), record_last_used(uuid[], timestamptz[]) TO gatehouse_app;
