-- External issuers of identities (OpenID Connect), the users that they stand for, and browser sessions.

-- === Users who come from a provider ===

-- Two providers may know one address, and one person at both is two users: an address is unique only among users who
-- were made here, because an invitation is found by it.
ALTER TABLE users ADD COLUMN federated boolean NOT NULL DEFAULT false;
DROP INDEX users_email;
CREATE UNIQUE INDEX users_email ON users (tenant_id, lower(email)) WHERE NOT federated;

-- === Issuers ===

CREATE TABLE issuers (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    -- `iss`, byte for byte; discovery lies below it.
    issuer text NOT NULL CHECK (issuer ~ '^https?://[!-~]+$' AND length(issuer) <= 512),
    client_id text NOT NULL CHECK (length(client_id) BETWEEN 1 AND 256),
    -- Sealed by the control API; none is a public client, which has PKCE alone.
    sealed_client_secret bytea,
    client_auth text NOT NULL CHECK (client_auth IN ('client_secret_basic', 'client_secret_post', 'none')),
    CHECK ((client_auth = 'none') = (sealed_client_secret IS NULL)),
    -- Where the keys are; NULL asks the discovery document.
    jwks_uri text CHECK (length(jwks_uri) <= 512),
    scopes text[] NOT NULL CHECK ('openid' = ANY (scopes)),
    -- What `aud` of a bearer token must name.
    audiences text[] NOT NULL,
    algorithms text[] NOT NULL CHECK (cardinality(algorithms) > 0),
    -- Nobody who comes from here is ever more.
    max_role text NOT NULL CHECK (max_role IN ('viewer', 'operator', 'developer', 'admin')),
    -- JSON pointers into a token.
    subject_claim text NOT NULL,
    email_claim text NOT NULL,
    groups_claim text,
    -- {group: role}
    role_map jsonb NOT NULL CHECK (jsonb_typeof(role_map) = 'object'),
    -- {pointer: value} that a token must have.
    required_claims jsonb NOT NULL CHECK (jsonb_typeof(required_claims) = 'object'),
    roles_source text NOT NULL CHECK (roles_source IN ('record', 'token')),
    allow_sign_in boolean NOT NULL,
    allow_bearer boolean NOT NULL,
    -- Who takes any audience takes tokens that were made for somebody else.
    CHECK (NOT allow_bearer OR cardinality(audiences) > 0),
    enabled boolean NOT NULL,
    -- Its addresses were named by the platform: only then may one be an exception of the operator's.
    by_platform boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    epoch bigint NOT NULL DEFAULT nextval('fact_epoch'),
    PRIMARY KEY (tenant_id, id),
    -- Sign-in names an issuer before its tenant is known.
    UNIQUE (id)
);
CREATE UNIQUE INDEX issuers_issuer ON issuers (tenant_id, issuer);
CREATE INDEX issuers_by_name ON issuers (issuer);
CREATE TRIGGER stamp_epoch BEFORE UPDATE ON issuers FOR EACH ROW EXECUTE FUNCTION stamp_fact_epoch();

-- Who a provider's subject is in a tenant. By the issuer's name and not by the row above: an issuer that is entered
-- again finds its users.
CREATE TABLE user_identities (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    issuer text NOT NULL,
    subject text NOT NULL CHECK (length(subject) BETWEEN 1 AND 256),
    user_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, issuer, subject),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX user_identities_user ON user_identities (tenant_id, user_id);

-- === Sign-ins under way ===

CREATE TABLE login_attempts (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    -- SHA-256 of what travels through the provider, and of what stays in the browser's cookie.
    state_sha256 bytea NOT NULL CHECK (octet_length(state_sha256) = 32),
    browser_sha256 bytea NOT NULL CHECK (octet_length(browser_sha256) = 32),
    issuer_id uuid NOT NULL,
    nonce text NOT NULL,
    -- The PKCE verifier.
    sealed_verifier bytea NOT NULL,
    return_to text NOT NULL CHECK (return_to LIKE '/%' AND length(return_to) <= 2048),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, state_sha256),
    -- The answer comes before its tenant is known.
    UNIQUE (state_sha256),
    FOREIGN KEY (tenant_id, issuer_id) REFERENCES issuers (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX login_attempts_issuer ON login_attempts (tenant_id, issuer_id);
CREATE INDEX login_attempts_expiry ON login_attempts (tenant_id, expires_at);

-- === Sessions ===

CREATE TABLE sessions (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    -- Its public name, in the change feed and in the audit.
    id uuid NOT NULL,
    -- SHA-256 of the cookie's 256 random bits: who reads this table cannot sign in.
    secret_sha256 bytea NOT NULL CHECK (octet_length(secret_sha256) = 32),
    user_id uuid NOT NULL,
    issuer_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    -- Ends after this long without use, and at the latest then.
    idle_s integer NOT NULL CHECK (idle_s > 0),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    -- A cookie is presented before its tenant is known.
    UNIQUE (secret_sha256),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, issuer_id) REFERENCES issuers (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX sessions_user ON sessions (tenant_id, user_id);
CREATE INDEX sessions_issuer ON sessions (tenant_id, issuer_id);

-- === Row security ===

DO $$
DECLARE
    name text;
    ours constant text := $q$(SELECT NULLIF(current_setting('app.current_tenant_id', true), '')::uuid)$q$;
BEGIN
    FOREACH name IN ARRAY ARRAY['issuers', 'user_identities', 'login_attempts', 'sessions'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY own_tenant ON %I TO gatehouse_app USING (tenant_id = %s) WITH CHECK (tenant_id = %s)',
            name, ours, ours);
    END LOOP;
    -- The platform enters issuers for others; it signs nobody in.
    FOREACH name IN ARRAY ARRAY['issuers', 'sessions'] LOOP
        EXECUTE format('CREATE POLICY admin_all ON %I TO gatehouse_admin USING (true) WITH CHECK (true)', name);
    END LOOP;
END
$$;

-- The secret can be written and never read here; sign-in has it from a look-up.
GRANT SELECT (tenant_id, id, name, issuer, client_id, client_auth, jwks_uri, scopes, audiences, algorithms, max_role,
        subject_claim, email_claim, groups_claim, role_map, required_claims, roles_source, allow_sign_in,
        allow_bearer, enabled, by_platform, created_at, epoch),
    INSERT (tenant_id, id, name, issuer, client_id, sealed_client_secret, client_auth, jwks_uri, scopes, audiences,
        algorithms, max_role, subject_claim, email_claim, groups_claim, role_map, required_claims,
        roles_source, allow_sign_in, allow_bearer, enabled, by_platform),
    UPDATE (name, issuer, client_id, sealed_client_secret, client_auth, jwks_uri, scopes, audiences, algorithms, max_role,
        subject_claim, email_claim, groups_claim, role_map, required_claims, roles_source, allow_sign_in,
        allow_bearer, enabled, by_platform),
    DELETE ON issuers TO gatehouse_app, gatehouse_admin;
GRANT INSERT (federated) ON users TO gatehouse_app;
GRANT SELECT, INSERT (tenant_id, issuer, subject, user_id) ON user_identities TO gatehouse_app;
GRANT SELECT,
    INSERT (tenant_id, state_sha256, browser_sha256, issuer_id, nonce, sealed_verifier, return_to, expires_at),
    DELETE ON login_attempts TO gatehouse_app;
GRANT SELECT (tenant_id, id, user_id, issuer_id, created_at, last_seen_at, idle_s, expires_at, revoked_at),
    UPDATE (last_seen_at, revoked_at), DELETE ON sessions TO gatehouse_app;
GRANT INSERT (tenant_id, id, secret_sha256, user_id, issuer_id, idle_s, expires_at) ON sessions TO gatehouse_app;
GRANT SELECT (tenant_id, id, issuer_id, revoked_at), UPDATE (revoked_at) ON sessions TO gatehouse_admin;

-- === Look-ups ===

GRANT SELECT ON issuers TO gatehouse_lookup;
GRANT SELECT (tenant_id, issuer, subject, user_id) ON user_identities TO gatehouse_lookup;
GRANT SELECT (tenant_id, state_sha256) ON login_attempts TO gatehouse_lookup;
GRANT SELECT (tenant_id, id, secret_sha256, user_id, issuer_id, last_seen_at, idle_s, expires_at, revoked_at) ON sessions
    TO gatehouse_lookup;
CREATE POLICY look_up ON issuers FOR SELECT TO gatehouse_lookup USING (true);
CREATE POLICY look_up ON user_identities FOR SELECT TO gatehouse_lookup USING (true);
CREATE POLICY look_up ON login_attempts FOR SELECT TO gatehouse_lookup USING (true);
CREATE POLICY look_up ON sessions FOR SELECT TO gatehouse_lookup USING (true);

-- The issuer that a sign-in names.
CREATE FUNCTION lookup_issuer(issuer uuid) RETURNS SETOF public.issuers
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' ROWS 1 AS $$
    SELECT i.* FROM public.issuers i WHERE i.id = lookup_issuer.issuer
$$;

-- The issuer that signed a token for this tenant. Where this tenant has none of the name, another tenant's: its keys
-- tell a token that is good elsewhere from a forged one. Compare the tenants.
CREATE FUNCTION lookup_token_issuer(issuer text, tenant uuid) RETURNS SETOF public.issuers
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' ROWS 1 AS $$
    SELECT i.* FROM public.issuers i
    WHERE i.issuer = lookup_token_issuer.issuer AND i.enabled AND i.allow_bearer
    ORDER BY i.tenant_id = lookup_token_issuer.tenant DESC, i.created_at, i.id LIMIT 1
$$;

-- Who the subject of an issuer is in this tenant, and what the issuer may do there. `registered`: the tenant has it;
-- `elsewhere`: some tenant has it. One row always.
CREATE FUNCTION lookup_identity(tenant uuid, issuer text, subject text)
RETURNS TABLE (user_id uuid, registered boolean, bearer boolean, max_role text, elsewhere boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' ROWS 1 AS $$
    SELECT n.user_id, i.id IS NOT NULL, coalesce(i.enabled AND i.allow_bearer, false), i.max_role,
        EXISTS (SELECT FROM public.issuers o WHERE o.issuer = lookup_identity.issuer)
    FROM (SELECT) one
    LEFT JOIN public.user_identities n ON n.tenant_id = lookup_identity.tenant
        AND n.issuer = lookup_identity.issuer AND n.subject = lookup_identity.subject
    LEFT JOIN public.issuers i ON i.tenant_id = lookup_identity.tenant AND i.issuer = lookup_identity.issuer
$$;

-- What is said of a member that the record does not know and whose issuer answers for it: its tenant's standing alone.
CREATE FUNCTION lookup_tenant(tenant uuid) RETURNS TABLE (status text, tier text, epoch bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' ROWS 1 AS $$
    SELECT t.status, t.tier, t.epoch FROM public.tenants t WHERE t.id = tenant
$$;

-- Whose sign-in has this state.
CREATE FUNCTION lookup_login(state bytea) RETURNS TABLE (tenant_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' ROWS 1 AS $$
    SELECT a.tenant_id FROM public.login_attempts a WHERE a.state_sha256 = state
$$;

-- The session of this cookie, while it lives: it ends with its issuer, too.
CREATE FUNCTION lookup_session(secret bytea)
RETURNS TABLE (tenant_id uuid, id uuid, user_id uuid, ends_at timestamptz, last_seen_at timestamptz, max_role text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' ROWS 1 AS $$
    SELECT s.tenant_id, s.id, s.user_id, e.ends_at, s.last_seen_at, i.max_role
    FROM public.sessions s
    JOIN public.issuers i ON i.tenant_id = s.tenant_id AND i.id = s.issuer_id AND i.enabled AND i.allow_sign_in
    CROSS JOIN LATERAL (
        SELECT least(s.expires_at, s.last_seen_at + make_interval(secs => s.idle_s)) AS ends_at
    ) e
    WHERE s.secret_sha256 = secret AND s.revoked_at IS NULL AND e.ends_at > now()
$$;

GRANT CREATE ON SCHEMA public TO gatehouse_lookup;
ALTER FUNCTION lookup_issuer(uuid) OWNER TO gatehouse_lookup;
ALTER FUNCTION lookup_token_issuer(text, uuid) OWNER TO gatehouse_lookup;
ALTER FUNCTION lookup_identity(uuid, text, text) OWNER TO gatehouse_lookup;
ALTER FUNCTION lookup_tenant(uuid) OWNER TO gatehouse_lookup;
ALTER FUNCTION lookup_login(bytea) OWNER TO gatehouse_lookup;
ALTER FUNCTION lookup_session(bytea) OWNER TO gatehouse_lookup;
REVOKE CREATE ON SCHEMA public FROM gatehouse_lookup;

REVOKE EXECUTE ON FUNCTION lookup_issuer(uuid), lookup_token_issuer(text, uuid), lookup_identity(uuid, text, text),
    lookup_tenant(uuid), lookup_login(bytea), lookup_session(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lookup_issuer(uuid), lookup_token_issuer(text, uuid), lookup_identity(uuid, text, text),
    lookup_tenant(uuid), lookup_login(bytea), lookup_session(bytea) TO gatehouse_app;
