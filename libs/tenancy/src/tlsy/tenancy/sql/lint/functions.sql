-- What the functions of schema tlsy do.
select p.proname as name, p.prosrc as body
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname = 'tlsy'
order by 1
