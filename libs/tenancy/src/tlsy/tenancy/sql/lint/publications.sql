-- Publications of rows of tenants: whoever subscribes gets them around row-level security.
select distinct p.pubname as name
from pg_publication_tables p
where exists (
    select from pg_attribute a
    where a.attrelid = format('%I.%I', p.schemaname, p.tablename)::regclass and a.attname = 'tenant_id'
        and not a.attisdropped
)
order by 1
