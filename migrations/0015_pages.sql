-- What 0012's tables need for their lists.
-- Expand: indexes alone.

CREATE INDEX IF NOT EXISTS organizations_page ON organizations (tenant_id, created_at, id);
CREATE INDEX IF NOT EXISTS webhook_endpoints_page ON webhook_endpoints (tenant_id, created_at, id);
CREATE INDEX IF NOT EXISTS webhook_deliveries_page ON webhook_deliveries (tenant_id, created_at, id);
