-- Foreign keys to tables with tenants' rows that do not tie tenant_id to tenant_id. They are checked around
-- row-level security, and so would tell whether another tenant has a row.
select n.nspname as schema_name, c.relname as table_name, k.conname as name
from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
where k.contype = 'f' and k.conparentid = 0
    and exists (
        select from pg_attribute a
        where a.attrelid = k.confrelid and a.attname = 'tenant_id' and not a.attisdropped
    )
    and not exists (
        select from unnest(k.conkey, k.confkey) as pair (own, theirs)
        join pg_attribute o on o.attrelid = k.conrelid and o.attnum = pair.own
        join pg_attribute t on t.attrelid = k.confrelid and t.attnum = pair.theirs
        where o.attname = 'tenant_id' and t.attname = 'tenant_id'
    )
order by 1, 2, 3
