-- Functions that run as their owner.
select n.nspname as schema_name, p.proname as name
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where p.prosecdef and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
order by 1, 2
