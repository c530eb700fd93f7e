-- Tenants, who acts in them, what they did, and the keys that sign tokens.
-- Every table of a tenant carries tenant_id, and references within a tenant are composite: referential checks do
-- not look at row security, so that a plain foreign key could hang a row under another tenant's.

DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format(
        'GRANT CONNECT ON DATABASE %I TO gatehouse_app, gatehouse_admin, gatehouse_system', current_database());
END
$$;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO gatehouse_app, gatehouse_admin, gatehouse_system, gatehouse_lookup;
-- A new function can be called by everyone unless this says otherwise.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Orders the changes of what a principal may do: whoever holds facts with a smaller epoch holds old ones.
CREATE SEQUENCE fact_epoch;

CREATE TABLE tenants (
    id uuid PRIMARY KEY,
    slug text NOT NULL UNIQUE CHECK (slug ~ '^[a-z][a-z0-9-]{1,61}[a-z0-9]$'),
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    tier text NOT NULL CHECK (tier IN ('free', 'pro', 'enterprise')),
    status text NOT NULL CHECK (status IN ('provisioning', 'active', 'suspended', 'deleting')),
    epoch bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE users (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    email text NOT NULL CHECK (length(email) BETWEEN 3 AND 254),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX users_email ON users (tenant_id, lower(email));

CREATE TABLE oauth_clients (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    -- SHA-256 of a 256-bit random secret: nothing to guess, so that a slow hash would add nothing.
    secret_sha256 bytea NOT NULL CHECK (octet_length(secret_sha256) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    secret_changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    -- A client presents its id before its tenant is known (RFC 6749 §2.3.1).
    UNIQUE (id)
);

-- The roles that a user or a client holds in its tenant.
CREATE TABLE memberships (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    user_id uuid,
    client_id uuid,
    subject uuid NOT NULL GENERATED ALWAYS AS (coalesce(user_id, client_id)) STORED,
    role text NOT NULL CHECK (role IN ('viewer', 'operator', 'developer', 'admin')),
    epoch bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (num_nonnulls(user_id, client_id) = 1),
    PRIMARY KEY (tenant_id, subject, role),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id),
    FOREIGN KEY (tenant_id, client_id) REFERENCES oauth_clients (tenant_id, id)
);

-- Who may act across tenants. A table of its own: no role within a tenant implies it, and no door but the
-- admin's can write it.
CREATE TABLE platform_memberships (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    user_id uuid,
    client_id uuid,
    subject uuid NOT NULL GENERATED ALWAYS AS (coalesce(user_id, client_id)) STORED,
    epoch bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (num_nonnulls(user_id, client_id) = 1),
    PRIMARY KEY (tenant_id, subject),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id),
    FOREIGN KEY (tenant_id, client_id) REFERENCES oauth_clients (tenant_id, id)
);

CREATE FUNCTION stamp_fact_epoch() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    NEW.epoch := nextval('public.fact_epoch');
    RETURN NEW;
END
$$;
CREATE TRIGGER stamp_epoch BEFORE INSERT OR UPDATE ON tenants
    FOR EACH ROW EXECUTE FUNCTION stamp_fact_epoch();
CREATE TRIGGER stamp_epoch BEFORE INSERT OR UPDATE ON memberships
    FOR EACH ROW EXECUTE FUNCTION stamp_fact_epoch();
CREATE TRIGGER stamp_epoch BEFORE INSERT OR UPDATE ON platform_memberships
    FOR EACH ROW EXECUTE FUNCTION stamp_fact_epoch();

-- One row per mutation, written in the mutation's transaction; nobody may change or remove one.
CREATE TABLE tenant_audit (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    subject text NOT NULL,
    request_id text NOT NULL,
    action text NOT NULL,
    target_kind text NOT NULL,
    target_id text NOT NULL,
    -- Why a platform member acted in a tenant that is not its own.
    reason text,
    PRIMARY KEY (tenant_id, id)
);

-- Every use of the admin door, committed before the work starts: what fails leaves its trace, too.
CREATE TABLE admin_access (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    tenant_id uuid NOT NULL,
    subject text NOT NULL,
    request_id text NOT NULL,
    reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500)
);

-- The platform's own keys; no tenant's. The private part is sealed by the control API under a key from a file.
CREATE TABLE signing_keys (
    kid text PRIMARY KEY,
    algorithm text NOT NULL CHECK (algorithm IN ('RS256')),
    public_jwk jsonb NOT NULL,
    sealed_private bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Set when another key took over. Published until then plus the life of the last token it signed.
    retired_at timestamptz,
    publish_until timestamptz,
    CHECK ((retired_at IS NULL) = (publish_until IS NULL))
);
-- At most one key signs.
CREATE UNIQUE INDEX signing_keys_current ON signing_keys ((true)) WHERE retired_at IS NULL;
