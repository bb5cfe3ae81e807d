-- Functions that run as their owner, and those that row-level security trusts with rows that it does not show.
select n.nspname as schema_name, p.proname as name, p.prosecdef as is_definer, p.proleakproof as is_leakproof,
    p.oid::regprocedure::text as signature
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where (p.prosecdef or p.proleakproof) and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
order by 1, 2
