-- The API version that answers a tenant's requests which name none (acceptance V5); NULL is the gateway's default.
-- Which versions are served is the gateway's to know: here only the form is bounded, as in contract::ApiVersion.
-- Adds only: the build before this one neither reads nor writes it.

ALTER TABLE tenants ADD COLUMN version_pin text
    CHECK (version_pin ~ '^[A-Za-z0-9_.-]{1,32}$' AND version_pin !~ '^[.]+$');

-- A tenant pins itself: the one column of its record that is its own to change. The trigger of 0001 makes its facts
-- newer with every change.
GRANT UPDATE (version_pin) ON tenants TO gatehouse_app, gatehouse_admin;

-- === Look-ups ===

GRANT SELECT (version_pin) ON tenants TO gatehouse_lookup;

-- Beside the other look-ups in one statement, as `lookup_tenant_limits` is.
CREATE FUNCTION lookup_version_pin(tenant uuid) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT t.version_pin FROM public.tenants t WHERE t.id = tenant
$$;
GRANT CREATE ON SCHEMA public TO gatehouse_lookup;
ALTER FUNCTION lookup_version_pin(uuid) OWNER TO gatehouse_lookup;
REVOKE CREATE ON SCHEMA public FROM gatehouse_lookup;
REVOKE EXECUTE ON FUNCTION lookup_version_pin(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lookup_version_pin(uuid) TO gatehouse_app;
