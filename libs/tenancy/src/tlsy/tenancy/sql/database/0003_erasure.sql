-- The rows of one tenant, wherever they are in this database: in every table with a tenant_id, but for the
-- fence and the schemas in `keep`. These functions refuse to judge under row-level security, where there
-- might be rows that they cannot see.

create function tlsy.tenant_tables(keep text[]) returns setof regclass
language plpgsql stable security invoker as $$
begin
    if row_security_active('tlsy.fence') then
        raise exception using errcode = 'TL011', message = 'ERASURE_IS_BLIND';
    end if;
    return query
        select c.oid::regclass
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
        where c.relkind in ('r', 'p') and not c.relispartition
            and c.oid <> 'tlsy.fence'::regclass
            and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and n.nspname <> all (keep)
        order by n.nspname, c.relname;
end
$$;

-- The tables that still have rows of the tenant; none means verified empty.
create function tlsy.occupied(tenant uuid, keep text[] default '{}') returns setof text
language plpgsql stable security invoker as $$
declare
    target regclass;
    found_one boolean;
begin
    for target in select tlsy.tenant_tables(keep) loop
        execute format('select exists (select from %s where tenant_id = $1)', target) into found_one using tenant;
        if found_one then
            return next target::text;
        end if;
    end loop;
end
$$;

-- Deletes at most `batch` rows of the tenant from the first table that has any; answers how many. To be
-- called, each time in a transaction of its own, until it answers 0.
create function tlsy.erase_batch(tenant uuid, batch integer, keep text[] default '{}') returns bigint
language plpgsql security invoker as $$
declare
    target regclass;
    deleted bigint;
begin
    for target in select tlsy.tenant_tables(keep) loop
        execute format(
            'delete from %s where (tableoid, ctid) in (select tableoid, ctid from %s where tenant_id = $1 limit $2)',
            target, target) using tenant, batch;
        get diagnostics deleted = row_count;
        if deleted > 0 then
            return deleted;
        end if;
    end loop;
    return 0;
end
$$;

-- Removes a schema with all tables, and what this database notes about it.
create function tlsy.drop_schema(name text) returns void language plpgsql security invoker as $$
begin
    execute format('drop schema if exists %I cascade', name);
    delete from tlsy.time_table where schema_name = name;
    delete from tlsy.version where schema_name = name;
end
$$;

revoke all on all functions in schema tlsy from public;
