-- What must be known before the tenant is: each function returns by exact key, reads the named columns and no
-- others (its owner, gatehouse_lookup, has no further grant), and takes no text that becomes SQL. Forced row
-- security holds for a definer function's owner as well, hence one policy per table that is looked into.

GRANT SELECT (id, status, tier, epoch) ON tenants TO gatehouse_lookup;
GRANT SELECT (tenant_id, id) ON users TO gatehouse_lookup;
GRANT SELECT (tenant_id, id, secret_sha256) ON oauth_clients TO gatehouse_lookup;
GRANT SELECT (tenant_id, subject, role, epoch) ON memberships TO gatehouse_lookup;
GRANT SELECT (tenant_id, subject, epoch) ON platform_memberships TO gatehouse_lookup;
GRANT SELECT (kid, public_jwk, sealed_private, created_at, retired_at, publish_until) ON signing_keys
    TO gatehouse_lookup;

CREATE POLICY look_up ON tenants FOR SELECT TO gatehouse_lookup USING (true);
CREATE POLICY look_up ON users FOR SELECT TO gatehouse_lookup USING (true);
CREATE POLICY look_up ON oauth_clients FOR SELECT TO gatehouse_lookup USING (true);
CREATE POLICY look_up ON memberships FOR SELECT TO gatehouse_lookup USING (true);
CREATE POLICY look_up ON platform_memberships FOR SELECT TO gatehouse_lookup USING (true);
CREATE POLICY look_up ON signing_keys FOR SELECT TO gatehouse_lookup USING (true);

-- The client that presents this id (RFC 6749 §4.4).
CREATE FUNCTION lookup_oauth_client(client uuid)
RETURNS TABLE (tenant_id uuid, secret_sha256 bytea, tenant_status text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' ROWS 1 AS $$
    SELECT c.tenant_id, c.secret_sha256, t.status
    FROM public.oauth_clients c JOIN public.tenants t ON t.id = c.tenant_id
    WHERE c.id = client
$$;

-- What the record says of a subject within a tenant: no row where either is not known.
CREATE FUNCTION lookup_principal(tenant uuid, subject uuid)
RETURNS TABLE (status text, tier text, roles text[], platform boolean, epoch bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' ROWS 1 AS $$
    SELECT t.status, t.tier,
        coalesce(m.roles, '{}'),
        p.epoch IS NOT NULL,
        greatest(t.epoch, m.epoch, p.epoch)
    FROM public.tenants t
    LEFT JOIN LATERAL (
        SELECT array_agg(m.role) AS roles, max(m.epoch) AS epoch FROM public.memberships m
        WHERE m.tenant_id = t.id AND m.subject = lookup_principal.subject
    ) m ON true
    LEFT JOIN public.platform_memberships p
        ON p.tenant_id = t.id AND p.subject = lookup_principal.subject
    WHERE t.id = tenant AND (
        EXISTS (SELECT FROM public.oauth_clients c WHERE c.tenant_id = t.id AND c.id = lookup_principal.subject)
        OR EXISTS (SELECT FROM public.users u WHERE u.tenant_id = t.id AND u.id = lookup_principal.subject))
$$;

-- The keys that verifiers must know: the one that signs, and those whose tokens may still be alive.
CREATE FUNCTION published_signing_keys() RETURNS TABLE (kid text, public_jwk jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT k.kid, k.public_jwk FROM public.signing_keys k
    WHERE k.retired_at IS NULL OR k.publish_until > now()
    ORDER BY k.created_at DESC, k.kid
$$;

-- The key that signs, its private part sealed.
CREATE FUNCTION current_signing_key() RETURNS TABLE (kid text, public_jwk jsonb, sealed_private bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' ROWS 1 AS $$
    SELECT k.kid, k.public_jwk, k.sealed_private FROM public.signing_keys k WHERE k.retired_at IS NULL
$$;

GRANT CREATE ON SCHEMA public TO gatehouse_lookup;
ALTER FUNCTION lookup_oauth_client(uuid) OWNER TO gatehouse_lookup;
ALTER FUNCTION lookup_principal(uuid, uuid) OWNER TO gatehouse_lookup;
ALTER FUNCTION published_signing_keys() OWNER TO gatehouse_lookup;
ALTER FUNCTION current_signing_key() OWNER TO gatehouse_lookup;
REVOKE CREATE ON SCHEMA public FROM gatehouse_lookup;

REVOKE EXECUTE ON FUNCTION lookup_oauth_client(uuid), lookup_principal(uuid, uuid), published_signing_keys(),
    current_signing_key() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lookup_oauth_client(uuid), lookup_principal(uuid, uuid), published_signing_keys(),
    current_signing_key() TO gatehouse_app;
