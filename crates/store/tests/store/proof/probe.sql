-- What the proof of row security runs with, in a session of the superuser, in a transaction that is rolled back. Two
-- tenants have a row in every table and partition; every role is granted everything, so that what stops it is row
-- security alone. Knows no table by name: all comes from the catalog.

-- Rules of values and references say nothing of who sees what, and would refuse rows that are made up.
DO $$
DECLARE
    rule record;
BEGIN
    FOR rule IN
        SELECT conrelid::regclass AS tab, conname FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype = 'c' AND conislocal AND coninhcount = 0
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', rule.tab, rule.conname);
    END LOOP;
END
$$;
-- Neither references nor triggers.
SET LOCAL session_replication_role = replica;
SET LOCAL timezone = 'UTC';

CREATE ROLE proof_stranger;
GRANT USAGE ON SCHEMA public TO proof_stranger, gatehouse_lookup;

-- The tables, partitions included. `k` is the column that says whose a row is; NULL is nobody's.
CREATE TEMP TABLE proof_tables AS
    SELECT c.oid, c.relname::text AS name, c.relispartition AS is_part,
        CASE WHEN c.relname = 'tenants' THEN 'id'
            WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id') THEN 'tenant_id'
        END AS k
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> '_sqlx_migrations';

-- What was granted before: what a role may do it must be able to do to its own rows.
CREATE TEMP TABLE proof_grants AS
    SELECT t.name, r.rolname::text AS role, left(v.verb, 1) AS verb
    FROM proof_tables t, pg_roles r, (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) v (verb)
    WHERE r.rolname IN ('gatehouse_app', 'gatehouse_admin', 'gatehouse_system', 'gatehouse_lookup')
    AND CASE v.verb WHEN 'DELETE' THEN has_table_privilege(r.oid, t.oid, v.verb)
        ELSE has_any_column_privilege(r.oid, t.oid, v.verb) END;

GRANT ALL ON ALL TABLES IN SCHEMA public
    TO gatehouse_app, gatehouse_admin, gatehouse_system, gatehouse_lookup, proof_stranger;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public
    TO gatehouse_app, gatehouse_admin, gatehouse_system, gatehouse_lookup, proof_stranger;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public
    TO gatehouse_app, gatehouse_admin, gatehouse_system, gatehouse_lookup, proof_stranger;

-- A statement that puts a row of this owner into a table. Where policies tell by a state who works on a row, the second tenant's
-- is one that somebody works on: of two jobs that differ in that alone, each has a letter of its own.
CREATE FUNCTION pg_temp.insertion(tab oid, key_column text, owner uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    col record;
    cols text[] := '{}';
    vals text[] := '{}';
    -- Into a partition: just before its end, which is in it.
    till text := (SELECT substring(pg_get_expr(relpartbound, oid) FROM $r$TO \('([^']+)'\)$r$) FROM pg_class WHERE oid = tab);
    month text := (SELECT a.attname FROM pg_inherits i JOIN pg_partitioned_table p ON p.partrelid = i.inhparent
        JOIN pg_attribute a ON a.attrelid = i.inhparent AND a.attnum = p.partattrs[0] WHERE i.inhrelid = tab);
    worked_on boolean := EXISTS (SELECT FROM pg_policies WHERE schemaname = 'public' AND qual LIKE $r$%'running'%$r$
        AND tablename = coalesce(pg_partition_root(tab), tab)::regclass::text);
BEGIN
    FOR col IN
        SELECT a.attname AS name, a.atttypid::regtype::text AS type, d.oid IS NOT NULL AS has_default, a.attnotnull
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = tab AND d.adnum = a.attnum
        WHERE a.attrelid = tab AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attidentity = ''
        ORDER BY a.attnum
    LOOP
        cols := cols || quote_ident(col.name);
        vals := vals || CASE
            WHEN col.name = key_column THEN quote_literal(owner) || '::uuid'
            WHEN col.name = month THEN format('%L::timestamptz - interval ''1 second''', till)
            WHEN col.name = 'state' AND owner = 'bbbbbbbb-0000-4000-8000-000000000000' AND worked_on THEN '''running'''
            -- Of events some see those of executions alone.
            WHEN col.name = 'aggregate_kind' AND owner = 'bbbbbbbb-0000-4000-8000-000000000000' THEN '''execution'''
            -- Of attempts a job sees those that were lost.
            WHEN col.name = 'end_reason' THEN '''lost'''
            WHEN col.has_default THEN 'DEFAULT'
            ELSE CASE col.type
                WHEN 'uuid' THEN 'gen_random_uuid()'
                WHEN 'text' THEN 'md5(random()::text)'
                WHEN 'bytea' THEN 'uuid_send(gen_random_uuid())'
                WHEN 'smallint' THEN '1'
                WHEN 'integer' THEN '1'
                WHEN 'bigint' THEN '(random() * 1000000000)::bigint'
                WHEN 'boolean' THEN 'true'
                WHEN 'date' THEN 'current_date'
                WHEN 'timestamp with time zone' THEN 'now()'
                WHEN 'jsonb' THEN '''{}''::jsonb'
                WHEN 'text[]' THEN '''{}''::text[]'
                WHEN 'bigint[]' THEN '''{}''::bigint[]'
                WHEN 'uuid[]' THEN '''{}''::uuid[]'
            END
        END;
        IF vals[cardinality(vals)] IS NULL THEN
            RAISE EXCEPTION 'the proof makes up no value of type % (%.%)', col.type, tab::regclass, col.name;
        END IF;
    END LOOP;
    RETURN format('INSERT INTO %s (%s) VALUES (%s)', tab::regclass,
        array_to_string(cols, ', '), array_to_string(vals, ', '));
END
$$;

-- What becomes of a statement: how many rows it touches, 'refused' where a policy or a grant does not let it, or
-- another SQLSTATE. Leaves nothing behind: neither rows nor the role nor the settings.
CREATE FUNCTION pg_temp.attempt(role text, tenant text, job text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    touched bigint;
    told text;
BEGIN
    PERFORM set_config('app.current_tenant_id', tenant, true), set_config('app.current_job', job, true);
    EXECUTE format('SET LOCAL ROLE %I', role);
    EXECUTE statement;
    GET DIAGNOSTICS touched = ROW_COUNT;
    RAISE EXCEPTION USING ERRCODE = 'PROOF', MESSAGE = touched::text;
EXCEPTION
    WHEN SQLSTATE 'PROOF' THEN
        GET STACKED DIAGNOSTICS told = MESSAGE_TEXT;
        RETURN told;
    -- Its key is there already: nothing but the index stood in the way.
    WHEN unique_violation THEN RETURN '1';
    WHEN insufficient_privilege THEN RETURN 'refused';
    WHEN OTHERS THEN RETURN SQLSTATE;
END
$$;

-- Per verb whose rows somebody gets at in a table: a letter for tenant a's, b's, nobody's (x), `!` where it finds rows
-- and is then refused what it does to them. M is moving a's row to b.
CREATE FUNCTION pg_temp.reach(tab oid, key_column text, role text, tenant text, job text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    whose record;
    rel text := tab::regclass::text;
    key_name text := coalesce(quote_ident(key_column),
        (SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = tab AND attnum > 0 AND NOT attisdropped
            AND attgenerated = '' AND attidentity = '' ORDER BY attnum LIMIT 1));
    found text;
    s text := ''; i text := ''; u text := ''; d text := ''; m text := '';
    a constant uuid := 'aaaaaaaa-0000-4000-8000-000000000000';
    b constant uuid := 'bbbbbbbb-0000-4000-8000-000000000000';
BEGIN
    FOR whose IN SELECT * FROM (VALUES ('a', a), ('b', b)) v (letter, id) LOOP
        -- Nobody's are asked for once.
        CONTINUE WHEN key_column IS NULL AND whose.letter = 'b';
        DECLARE
            letter text := CASE WHEN key_column IS NULL THEN 'x' ELSE whose.letter END;
            these text := CASE WHEN key_column IS NULL THEN '' ELSE format(' WHERE %s = %L', key_name, whose.id) END;
        BEGIN
            found := pg_temp.attempt(role, tenant, job, 'SELECT 1 FROM ' || rel || these);
            s := s || CASE found WHEN '0' THEN '' WHEN 'refused' THEN '!' ELSE letter END;
            found := pg_temp.attempt(role, tenant, job, pg_temp.insertion(tab, key_column, whose.id));
            i := i || CASE found WHEN '1' THEN letter WHEN 'refused' THEN '' ELSE found END;
            found := pg_temp.attempt(role, tenant, job, format('UPDATE %s SET %s = %s%s', rel, key_name, key_name, these));
            u := u || CASE found WHEN '0' THEN '' WHEN 'refused' THEN letter || '!' ELSE letter END;
            found := pg_temp.attempt(role, tenant, job, 'DELETE FROM ' || rel || these);
            d := d || CASE found WHEN '0' THEN '' WHEN 'refused' THEN '!' ELSE letter END;
        END;
    END LOOP;
    IF key_column IS NOT NULL THEN
        found := pg_temp.attempt(role, tenant, job,
            format('UPDATE %s SET %s = %L WHERE %s = %L', rel, key_name, b, key_name, a));
        m := CASE found WHEN '0' THEN '' WHEN 'refused' THEN '!' ELSE 'ab' END;
    END IF;
    RETURN concat_ws(' ', 'S:' || s, 'I:' || i, 'U:' || u, 'D:' || d, 'M:' || m);
END
$$;

DO $$
DECLARE
    tab record;
BEGIN
    FOR tab IN SELECT * FROM proof_tables ORDER BY name LOOP
        IF tab.k IS NULL THEN
            -- Some have their one row already.
            PERFORM pg_temp.attempt('postgres', '', '', 'SELECT 1');
            BEGIN
                EXECUTE pg_temp.insertion(tab.oid, NULL, NULL);
            EXCEPTION WHEN unique_violation THEN
                NULL;
            END;
        ELSE
            EXECUTE pg_temp.insertion(tab.oid, tab.k, 'aaaaaaaa-0000-4000-8000-000000000000');
            EXECUTE pg_temp.insertion(tab.oid, tab.k, 'bbbbbbbb-0000-4000-8000-000000000000');
        END IF;
    END LOOP;
END
$$;
