-- The schema by pgTAP, run by `pgtap.rs` as the superuser in a fresh database; nothing of it stays.
BEGIN;
SELECT plan(33);

SELECT has_table(name) FROM unnest(ARRAY['tenants', 'organizations', 'tenant_quotas', 'tenant_config', 'event_store',
    'metering', 'webhook_endpoints', 'usage_counters']) name;
SELECT is_partitioned(name) FROM unnest(ARRAY['executions', 'event_store', 'metering', 'tenant_audit']) name;
SELECT is_partition_of('executions_p0', 'executions');
SELECT col_is_pk('organizations', ARRAY['tenant_id', 'id']);
SELECT col_is_pk('tenant_quotas', 'tenant_id');
SELECT fk_ok('organizations', ARRAY['tenant_id', 'parent_id'], 'organizations', ARRAY['tenant_id', 'id']);
SELECT fk_ok('agent_versions', ARRAY['tenant_id', 'agent_id'], 'agents', ARRAY['tenant_id', 'id']);

SELECT policies_are('executions_p0', ARRAY['own_tenant']);
SELECT policy_roles_are('agents', 'own_tenant', ARRAY['gatehouse_app']);
SELECT policy_cmd_is('agents', 'own_tenant', 'all');
SELECT policy_roles_are('executions', 'job_feeder', ARRAY['gatehouse_system']);

SELECT table_privs_are('executions_p0', 'gatehouse_app', '{}'::text[]);
SELECT table_privs_are('event_store_p0', 'gatehouse_system', '{}'::text[]);
SELECT table_privs_are('tenants', 'gatehouse_app', ARRAY['SELECT']);
SELECT function_privs_are('maintain_partitions', '{}'::text[], 'gatehouse_app', '{}'::text[]);
SELECT function_privs_are('maintain_partitions', '{}'::text[], 'gatehouse_system', ARRAY['EXECUTE']);
SELECT is_definer('maintain_partitions');
SELECT isnt_superuser('gatehouse_app');
SELECT schema_privs_are('public', 'gatehouse_app', ARRAY['USAGE']);

INSERT INTO tenants (id, slug, name, tier, status) VALUES
    ('aaaaaaaa-0000-4000-8000-000000000000', 'tenant-a', 'A', 'free', 'active'),
    ('bbbbbbbb-0000-4000-8000-000000000000', 'tenant-b', 'B', 'free', 'active');
INSERT INTO agents (tenant_id, id, name) SELECT id, gen_random_uuid(), slug FROM tenants;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO gatehouse_app;
GRANT ALL ON ALL TABLES IN SCHEMA pg_temp TO gatehouse_app;
GRANT ALL ON ALL SEQUENCES IN SCHEMA pg_temp TO gatehouse_app;
SET LOCAL ROLE gatehouse_app;
SELECT is_empty('SELECT id FROM agents', 'without a tenant there is nothing');
SET LOCAL app.current_tenant_id = 'aaaaaaaa-0000-4000-8000-000000000000';
SELECT results_eq('SELECT name FROM agents', ARRAY['tenant-a'], 'a tenant sees its own');
SELECT throws_ok(
    $$INSERT INTO agents (tenant_id, id, name) VALUES ('bbbbbbbb-0000-4000-8000-000000000000', gen_random_uuid(), 'x')$$,
    '42501', NULL, 'it writes nothing into another');
SELECT throws_ok($$UPDATE agents SET tenant_id = 'bbbbbbbb-0000-4000-8000-000000000000'$$,
    '42501', NULL, 'it gives nothing away');
RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
