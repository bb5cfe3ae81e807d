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
language plpgsql stable security invoker set enable_seqscan = off as $$
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

-- Those whose rows are events (made by sql/eventlog/placement.sql): published first, then erased.
create function tlsy.outboxes(keep text[]) returns setof regclass
language sql stable security invoker as $$
    select t.target from tlsy.tenant_tables(keep) as t (target)
    join pg_class c on c.oid = t.target and c.relname = 'outbox'
$$;

-- The outboxes that have events of the tenant which the relay has not published.
create function tlsy.unpublished(tenant uuid, keep text[] default '{}') returns setof text
language plpgsql stable security invoker set enable_seqscan = off as $$
declare
    target regclass;
    found_one boolean;
begin
    for target in select tlsy.outboxes(keep) loop
        execute format('select exists (select from %s where tenant_id = $1 and published_at is null)', target)
            into found_one using tenant;
        if found_one then
            return next target::text;
        end if;
    end loop;
end
$$;

-- Deletes at most `batch` rows of the tenant from the first partition that has any, but for events that are
-- not published; answers how many. To be called, each time in a transaction of its own, until it answers 0.
-- Each partition on its own and by its primary key, which begins with the tenant: of the other tenants' rows
-- none is read, however many there are.
create function tlsy.erase_batch(tenant uuid, batch integer, keep text[] default '{}') returns bigint
language plpgsql security invoker set enable_seqscan = off as $$
declare
    target regclass;
    part regclass;
    published text;
    deleted bigint;
begin
    for target in select tlsy.tenant_tables(keep) loop
        published := case when target in (select tlsy.outboxes(keep)) then 'and published_at is not null' else '' end;
        -- A table without partitions has no such tree: it is its own only part.
        for part in select coalesce(p.relid, target)
            from (select) as one left join pg_partition_tree(target) as p on p.isleaf
        loop
            execute format(
                'delete from %s where ctid = any (array(select ctid from %s where tenant_id = $1 %s limit $2))',
                part, part, published) using tenant, batch;
            get diagnostics deleted = row_count;
            if deleted > 0 then
                return deleted;
            end if;
        end loop;
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
