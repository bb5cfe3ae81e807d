-- Tables and partitions of this database, with what protects them, and what holds rows and cannot be protected.
select c.oid::bigint as id, n.nspname as schema_name, c.relname as table_name,
    case c.relkind when 'm' then 'materialized view' when 'f' then 'foreign table' else 'table' end as kind,
    c.relispartition as is_partition, c.relrowsecurity as enabled, c.relforcerowsecurity as forced,
    pg_get_userbyid(c.relowner) as owner,
    exists (
        select from pg_attribute a
        where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
    ) as has_tenant,
    (
        select a.attname from pg_partitioned_table p
        join pg_attribute a on a.attrelid = p.partrelid and a.attnum = p.partattrs[0]
        where p.partrelid = c.oid
    ) as time_column,
    array(
        select a.attname::text from pg_attribute a join pg_type t on t.oid = a.atttypid
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            and (t.typtype in ('e', 'd', 'c') or t.typnamespace <> 'pg_catalog'::regnamespace)
    ) as bound_types
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'm', 'f') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
order by n.nspname, c.relname
