-- Every valid index with the names of its plain columns in order ('' for an expression, and where an exclusion
-- compares otherwise than by =). An exclusion tells of other rows as a unique index does.
select i.indrelid::bigint as table_id, x.relname as name, i.indisunique or i.indisexclusion as is_unique,
    i.indisprimary as is_primary,
    -- Of all rows, in their order: what a range of them is read by.
    i.indpred is null and x.relam = (select oid from pg_am where amname = 'btree') as is_ordered,
    array(
        select case when coalesce(o.oprname, '=') = '=' then coalesce(a.attname::text, '') else '' end
        from unnest(i.indkey[0:i.indnkeyatts - 1]) with ordinality as k (attnum, position)
        left join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
        left join pg_operator o on o.oid = e.conexclop[k.position]
        order by k.position
    ) as columns
from pg_index i join pg_class x on x.oid = i.indexrelid join pg_class c on c.oid = i.indrelid
join pg_namespace n on n.oid = c.relnamespace
left join pg_constraint e on e.conindid = i.indexrelid and e.contype = 'x'
where i.indisvalid and n.nspname !~ '^pg_'
